//! What the collector tells the kernel programs at load time.

use crate::plain;

/// How many server ports can be traced at once.
pub const MAX_PORTS: usize = 16;

/// Settings of one run, frozen when the programs are loaded.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Server ports to trace, in network byte order; the first `port_count` are valid.
    pub ports: [u16; MAX_PORTS],
    /// How many of `ports` are valid.
    pub port_count: u32,
    /// 1: only processes in the `PIDS` map are traced. 0: every process is.
    pub filter_pids: u32,
    /// Bytes of user stack copied for a process about which nothing has been learnt yet.
    pub stack_bytes: u32,
    /// Connections that can be traced at once: the length of the `CONNECTIONS` map.
    pub max_connections: u32,
    /// One event in this many is thrown away and counted as lost; 0 in real use. Lets the tests
    /// see that a loss is healed.
    pub drop_one_in: u32,
    /// How many uses of each connection are kept, each with a stack of its own; 0: none.
    pub uses: u32,
    /// Nanoseconds of every second that may be spent on copying stacks, over all processors.
    pub stack_budget_ns: u64,
}
plain!(Config, 64);
