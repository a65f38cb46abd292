//! How the kernel programs are to trace.

use crate::sources::kernel::hooks::Flavour;

/// How the kernel programs are to trace: which connections, and with which resources.
#[derive(Clone, Debug)]
pub struct TracerSettings {
    /// Server ports, at least one.
    pub ports: Vec<u16>,
    /// Processes to trace; `None` for all.
    pub pids: Option<Vec<u32>>,
    /// Also trace the children that traced processes fork.
    pub children: bool,
    /// Size of the ring buffer in bytes.
    pub ring_bytes: u32,
    /// Connections that can be traced at once.
    pub max_connections: u32,
    /// Connections for which the stack of the latest request is kept; half as many if it is long.
    pub max_records: u32,
    /// How many uses of each connection are kept, each with its stack.
    pub uses: u32,
    /// Bytes of stack to copy from a process about which nothing is known yet.
    pub stack_bytes: u32,
    /// Time that copying stacks may take, in nanoseconds per second.
    pub stack_budget_ns: u64,
    /// Drop every Nth event; 0 for none. Tests reconciliation.
    pub drop_one_in: u32,
    /// Use only hooks of this flavour where there is a choice. Tests the fallbacks.
    pub flavour: Option<Flavour>,
    /// Load the kernel programs with their debug log.
    pub debug_log: bool,
}
