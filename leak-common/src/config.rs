//! Settings that the collector gives the kernel programs at load time.

use bytemuck::{Pod, Zeroable};

use crate::size;

/// How many server ports can be traced at once.
pub const MAX_PORTS: usize = 16;

/// Settings of one run, frozen when the programs are loaded.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug)]
pub struct Config {
    /// Server ports to trace, in network byte order; the first `port_count` are valid.
    pub ports: [u16; MAX_PORTS],
    /// How many of `ports` are valid.
    pub port_count: u32,
    /// 1: trace only processes in the `PIDS` map; 0: every process.
    pub filter_pids: u32,
    /// Bytes of user stack copied for a process that has no profile of its own yet.
    pub stack_bytes: u32,
    /// Most connections traced at once: the length of the `CONNECTIONS` map.
    pub max_connections: u32,
    /// Drop one event in this many and count it as lost; 0 in real use. For tests of what repairs
    /// a loss.
    pub drop_one_in: u32,
    /// How many uses of each connection are kept, each with its own stack; 0: none.
    pub uses: u32,
    /// Nanoseconds a second that may be spent on copying stacks, over all processors.
    pub stack_budget_ns: u64,
}
size!(Config, 64);
