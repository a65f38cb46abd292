//! Who waits for a connection, and who holds one.

use leak_stacks::StackId;
use schemars::JsonSchema;
use serde::Serialize;

use super::finding::CulpritModel;
use crate::engine::fate::{Fates, User};
use crate::engine::snapshot::Snapshot;
use crate::engine::table::{Connection, Waiting};
use crate::model::{Timestamp, Waiters};

/// Threads or goroutines with the same stack that wait for a connection.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Waiting")]
pub(super) struct WaitingModel<'a> {
    /// How many there are.
    count: u32,
    /// Milliseconds for which the one that has waited for longest is known to have waited, when
    /// they were looked at last. Null when it is unknown.
    longest_ms: Option<u64>,
    /// Id of their stack, among `stacks`.
    stack: StackId,
    /// The innermost call of the stack that belongs to the application. Null when there is none.
    culprit: Option<CulpritModel<'a>>,
}

impl<'a> WaitingModel<'a> {
    pub(super) fn all(snapshot: &Snapshot<'a>, waiting: &'a Waiting) -> Vec<Self> {
        waiting.waiters.iter().map(|waiters| Self::new(snapshot, waiters, waiting.at)).collect()
    }

    fn new(snapshot: &Snapshot<'a>, waiters: &'a Waiters, at: Timestamp) -> Self {
        let stack = snapshot.stack(Some(&waiters.stack));
        let culprit = stack.and_then(|stack| stack.frames.get(stack.culprit?));
        Self {
            count: waiters.count,
            longest_ms: u64::try_from(at.since(waiters.since).as_millis()).ok(),
            stack: waiters.stack,
            culprit: culprit.map(CulpritModel::new),
        }
    }
}

/// Whether a connection is in its pool or out of it, and who has it.
#[derive(Serialize, JsonSchema)]
pub(super) struct ConnectionUse {
    /// Where it is.
    state: UseState,
    /// Who says so. Null when nobody does.
    by: Option<UseSource>,
    /// Whose call that used it is still on its stack. Null when there is none, or it is unknown.
    holder: Option<Holder>,
}

/// Where a connection is.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum UseState {
    /// In its pool: nobody uses it.
    InPool,
    /// The program's code has it.
    CheckedOut,
    /// Nobody knows.
    Unknown,
}

/// Who says where a connection is.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum UseSource {
    /// The pool's own books.
    Pool,
    /// The stack of whoever used it last.
    Stack,
}

/// Whose call that used a connection is still on its stack.
#[derive(Serialize, JsonSchema)]
struct Holder {
    /// PID of the process.
    pid: u32,
    /// The thread; of a goroutine, the one that it ran on.
    tid: u32,
    /// The goroutine. Null outside of Go.
    goroutine: Option<u64>,
    /// Id of the stack with which it waits now, among `stacks`. Null when it is unknown.
    stack: Option<StackId>,
}

impl ConnectionUse {
    pub(super) fn new(snapshot: &Snapshot<'_>, fates: &Fates<'_>, connection: &Connection) -> Self {
        let holder = || {
            let stack = fates.held_at(connection)?;
            let (pid, tid) = connection.requests.latest_by?;
            let goroutine = match User::of(connection)? {
                User::Goroutine(_, number) => Some(number),
                User::Thread(..) => None,
            };
            let stack = snapshot.stack(Some(&stack)).map(|stack| stack.id);
            Some(Holder { pid, tid, goroutine, stack })
        };
        let holder = holder();
        let place = connection.place_now(snapshot.thresholds.recently(snapshot.now));
        let (state, by) = match (place, &holder) {
            (Some(place), _) if place.checked_out => (UseState::CheckedOut, Some(UseSource::Pool)),
            (Some(_), _) => (UseState::InPool, Some(UseSource::Pool)),
            (None, Some(_)) => (UseState::CheckedOut, Some(UseSource::Stack)),
            (None, None) => (UseState::Unknown, None),
        };
        Self { state, by, holder }
    }
}
