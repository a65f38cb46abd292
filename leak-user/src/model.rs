//! The words that all rooms share: plain data, without input, output or a clock.
//!
//! Sources make [`Fact`]s, the engine takes them, and outputs show what it makes of them. All times
//! are [`Timestamp`]s, given by whoever makes a fact.

mod connection;
mod destination;
mod dialogue;
mod facts;
mod health;
mod ids;
mod pod;
pub mod pools;
mod process;
pub mod server;
mod tcp_state;
pub mod time;
mod waiting;

pub use leak_stacks::Timestamp;

pub use self::connection::{Caller, Endpoints, ListedSocket, StackRole, Usage, Use};
pub use self::destination::{Destination, DestinationKind};
pub use self::dialogue::{StateSource, Wire, WireState};
pub use self::facts::{Event, Fact, Learnt};
pub use self::health::{
    Cost, EventKind, Health, IntervalCost, OwnProcess, ProgramHealth, Sample, StackCopies,
};
pub use self::ids::{ConnectionId, ProcessKey, StackId};
pub use self::pod::Pod;
pub use self::process::{ProcessInfo, ProgramId};
pub use self::server::ServerAnswer;
pub use self::tcp_state::TcpState;
pub use self::waiting::{Waiters, Whereabouts};
