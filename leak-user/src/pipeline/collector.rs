//! What the event loop works on: events go into the table, the table is judged, judgements are
//! printed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::task::{JoinHandle, spawn_blocking};

use super::Ended;
use super::output::Output;
use super::resolver::{Answer, ResolverThread};
use super::targets::{self, Targets};
use crate::cli::TraceArgs;
use crate::event::{ConnectionId, Event, ListedSocket, ProcessKey, StackId, StackRole, TcpState};
use crate::findings::Ledger;
use crate::inventory::{Inventory, InventoryError};
use crate::kernel::Tracer;
use crate::process::{self, ProcessInfo};
use crate::stacks::Stack;
use crate::table::ConnectionTable;
use crate::{clock, decode, detect};

/// A truncated stack makes the kernel programs copy this many times as much.
const STACK_GROWTH: u32 = 2;

/// Everything known during a trace.
pub(super) struct Collector {
    ports: Vec<u16>,
    silent_after: Duration,
    tracer: Tracer,
    targets: Targets,
    table: ConnectionTable,
    judge: detect::Judge,
    ledger: Ledger,
    resolver: ResolverThread,
    stacks: HashMap<StackId, Arc<Stack>>,
    processes: HashMap<ProcessKey, ProcessInfo>,
    /// Where each connection's slot was when the slots were last read.
    slots: HashMap<ConnectionId, usize>,
    /// Connections whose end only the kernel programs know: sock_diag lists none that are closed
    /// but not destroyed.
    closed_undestroyed: Vec<ListedSocket>,
    received: u64,
    undecodable: u64,
    /// Whether it was said that namespaces cannot be read.
    complained: bool,
    output: Output,
}
