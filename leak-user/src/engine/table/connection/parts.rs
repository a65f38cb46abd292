//! The parts of a connection.

use crate::engine::table::PoolKey;
use crate::model::{
    Endpoints, StackId, StackRole, TcpState, Timestamp, Usage, Use, Whereabouts, WireState,
};

/// Its TCP connection.
#[derive(Clone, Debug)]
pub struct Tcp {
    /// State.
    pub state: TcpState,
    /// When the state changed, as far as known.
    pub state_changed_at: Timestamp,
    /// When the handshake was seen to be done.
    pub established_at: Option<Timestamp>,
}

impl Tcp {
    pub(super) fn dialing(now: Timestamp) -> Self {
        Self { state: TcpState::SynSent, state_changed_at: now, established_at: None }
    }

    pub(in crate::engine::table) fn set(&mut self, state: TcpState, at: Timestamp) {
        (self.state, self.state_changed_at) = (state, at);
    }

    /// Takes the connection as established since its state changed, unless the handshake was seen.
    pub(super) fn imply_handshake(&mut self) {
        if self.established_at.is_none() && self.state == TcpState::Established {
            self.established_at = Some(self.state_changed_at);
        }
    }
}

/// The payload that it has carried.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// When payload was last sent.
    pub last_send: Option<Timestamp>,
    /// When payload was last received.
    pub last_receive: Option<Timestamp>,
    /// Payload bytes sent.
    pub bytes_sent: u64,
    /// Payload bytes received.
    pub bytes_received: u64,
    /// Bytes that lay unread in the socket at the last inventory; `None` before the first.
    pub unread_bytes: Option<u32>,
    /// Inventories in a row that found bytes unread.
    pub unread_inventories: u32,
    /// Who has counted these bytes.
    pub(super) counted_by: ByteCounter,
    /// Payload bytes that the kernel programs saw being received.
    pub(super) seen_received: u64,
    /// The kernel programs saw the process send after it had last read.
    pub(super) sent_last: bool,
    /// `seen_received` when bytes were last found to have been received unseen.
    pub(super) unseen_after: Option<u64>,
}

/// Who has counted a connection's bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ByteCounter {
    /// The kernel programs, since they first saw the connection.
    #[default]
    Programs,
    /// The kernel itself, as inventories list it, over the connection's whole life.
    Kernel,
}

impl Traffic {
    /// Whether bytes were received unseen since the kernel programs last saw any.
    pub(super) fn has_unseen(&self) -> bool {
        self.unseen_after == Some(self.seen_received)
    }
}

/// The requests sent on it.
#[derive(Clone, Debug, Default)]
pub struct Requests {
    /// How many there were; the number of the latest one.
    pub count: u64,
    /// When the latest one began.
    pub latest_at: Option<Timestamp>,
    /// Process and thread that began the latest one.
    pub latest_by: Option<(u32, u32)>,
    /// More than one thread has begun some, the connection's opener counted in.
    pub moved: bool,
}

impl Requests {
    pub(super) fn use_counters(&mut self, usage: &Usage) {
        self.count = usage.requests;
        self.latest_at = usage.request_at;
        self.latest_by = usage.request_by;
        self.moved = usage.moved;
    }
}

/// The code that opened and used it.
#[derive(Clone, Debug, Default)]
pub struct Callers {
    /// The stack that opened it.
    pub opened_by: Option<StackId>,
    /// The stack of the latest request; `None` as long as it is unknown, never an older one's.
    pub last_used_by: Option<StackId>,
    /// The goroutine that sent the latest request.
    pub last_used_goroutine: Option<u64>,
    /// Its latest uses, the oldest first, when they were asked for.
    pub uses: Option<Vec<Use>>,
    /// Where whoever began the latest request was when that was last looked for; `None`: it was not
    /// yet.
    pub user_seen: Option<Whereabouts>,
    /// Number of the request whose stack was looked for last.
    pub(in crate::engine::table) sought: u64,
}

impl Callers {
    /// A request has begun whose stack is not known yet.
    pub(super) fn forget_latest(&mut self) {
        self.last_used_by = None;
        self.last_used_goroutine = None;
        self.user_seen = None;
    }

    /// Applies where whoever began a request is now; `latest` is the number of the latest one.
    pub(in crate::engine::table) fn see_user(
        &mut self,
        request: u64,
        place: Whereabouts,
        latest: u64,
    ) {
        if request == latest {
            self.user_seen = Some(place);
        }
    }

    /// Applies the stack of a request; `latest` is the number of the latest one. An earlier
    /// request's stack does not tell who used the connection last.
    pub(super) fn resolve(
        &mut self,
        role: StackRole,
        stack: Option<&StackId>,
        goroutine: Option<u64>,
        latest: u64,
    ) {
        match role {
            StackRole::OpenedBy => self.opened_by = stack.cloned(),
            StackRole::LastUsedBy { request } if request == latest => {
                self.last_used_by = stack.cloned();
                self.last_used_goroutine = goroutine;
                self.sought = request;
            }
            StackRole::LastUsedBy { .. } => {}
            StackRole::UsedBy { request } => {
                let mut uses = self.uses.iter_mut().flatten();
                if let Some(one) = uses.find(|one| one.request == request) {
                    one.stack = stack.cloned();
                    one.goroutine = goroutine;
                }
            }
        }
    }
}

/// Where a connection is by its pool's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// When it was read.
    pub at: Timestamp,
    /// Somebody has taken it and not given it back.
    pub checked_out: bool,
    /// How many pools its process has.
    pub pools: usize,
}

/// What its driver says of its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DriverSide {
    /// When it was asked.
    pub at: Timestamp,
    /// What it says.
    pub state: WireState,
}

/// How the table accounts for it.
#[derive(Clone, Debug)]
pub(in crate::engine::table) struct Account {
    /// The pool that it is counted in.
    pub(in crate::engine::table) pool: PoolKey,
    /// Since when it is counted there; `None`: since before the trace.
    pub(in crate::engine::table) counted_since: Option<Timestamp>,
    /// It is not counted there: it only cancels a request.
    pub(in crate::engine::table) uncounted: bool,
    /// Its own [`crate::model::Event::Opened`] was seen.
    pub(in crate::engine::table) announced: bool,
    /// When the kernel programs' counters of it were last read.
    pub(in crate::engine::table) last_counted: Option<Timestamp>,
    /// Its process has exited and left it open.
    pub(in crate::engine::table) left_open: bool,
    /// Complete inventories in a row that did not list it.
    pub(in crate::engine::table) unlisted: u32,
}

impl Account {
    pub(super) fn new(pool: PoolKey, counted_since: Option<Timestamp>) -> Self {
        Self {
            pool,
            counted_since,
            uncounted: false,
            announced: false,
            last_counted: None,
            left_open: false,
            unlisted: 0,
        }
    }
}

/// `heard`, unless its local port is not known yet.
pub(super) fn known_endpoints(known: Endpoints, heard: Endpoints) -> Endpoints {
    if heard.local.port() == 0 { known } else { heard }
}
