//! One connection, as far as events have told.

use std::time::Duration;

use crate::engine::table::pools::PoolKey;
use crate::engine::table::servers::ServerSide;
use crate::model::{
    Caller, ConnectionId, Endpoints, ListedSocket, ProcessKey, StackId, StackRole, TcpState,
    Timestamp, Usage, Use, Wire, WireState,
};

/// How much later a listed time must be than a known one to be news.
///
/// sock_diag tells "milliseconds ago" in the kernel's ticks, and the dump takes time; without this
/// allowance a silent connection would seem to be used a little at every inventory.
const LISTED_JITTER: Duration = Duration::from_secs(1);

/// Pauses that differ by no more than this part of one are alike.
const ALIKE: u32 = 5;

/// Everything known about one connection.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The kernel's socket cookie.
    pub id: ConnectionId,
    /// The process that opened it; the first that was seen with it when it is older than the trace.
    pub process: ProcessKey,
    /// The thread that opened it.
    pub tid: Option<u32>,
    /// The goroutine that opened it.
    pub goroutine: Option<u64>,
    /// The processes that have it among their file descriptors, at the last inventory.
    pub held_by: Vec<ProcessKey>,
    /// Both ends.
    pub endpoints: Endpoints,
    /// TCP state.
    pub tcp_state: TcpState,
    /// When the TCP state changed, as far as known.
    pub state_changed_at: Timestamp,
    /// PostgreSQL's state.
    pub wire: Wire,
    /// What its server said of it when it was last asked; `None` when it was not, or does not know it.
    pub server: Option<Box<ServerSide>>,
    /// When it was opened; `None` when it is older than the trace or its opening was missed:
    /// [`Self::opened_before_trace`] tells which.
    pub opened_at: Option<Timestamp>,
    /// When it came into the table.
    pub first_seen: Timestamp,
    /// When the handshake was seen to be done.
    pub established_at: Option<Timestamp>,
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
    /// Number of the latest request.
    pub requests: u64,
    /// When the latest request began.
    pub request_at: Option<Timestamp>,
    /// Process and thread that began the latest request.
    pub request_by: Option<(u32, u32)>,
    /// More than one thread has begun requests on it, its opener counted in.
    pub moved: bool,
    /// The thread that began the latest request has ended.
    pub user_gone: bool,
    /// Pauses before its latest requests that were about as long as the one before each.
    pub regular_pauses: u32,
    /// The pause before its latest request.
    pub last_pause: Duration,
    /// The stack that opened it.
    pub opened_by: Option<StackId>,
    /// The stack of the latest request; `None` as long as it is unknown, never an older one's.
    pub last_used_by: Option<StackId>,
    /// The goroutine that sent the latest request.
    pub last_used_goroutine: Option<u64>,
    /// Its latest uses, the oldest first, when they were asked for.
    pub uses: Option<Vec<Use>>,
    /// Number of the request whose stack was looked for last.
    pub(super) stack_sought: u64,
    /// Its own [`crate::model::Event::Opened`] was seen.
    pub(super) announced: bool,
    /// The group that it is counted in.
    pub(super) pool: PoolKey,
    /// Since when it is counted there; `None`: since before the trace.
    pub(super) counted_since: Option<Timestamp>,
    /// It is not counted there: it only cancels a request.
    pub(super) uncounted: bool,
    /// When the kernel programs' counters of it were last read.
    pub(super) last_counted: Option<Timestamp>,
    /// Complete inventories in a row that did not list it.
    pub(super) unlisted: u32,
    /// Byte counts come from inventories: they cover its whole life, the kernel programs' do not.
    pub(super) listed_bytes: bool,
    /// Payload bytes that the kernel programs saw being received.
    seen_received: u64,
    /// The kernel programs saw the process send after it had last read.
    sent_last: bool,
    /// `seen_received` when bytes were last found to have been received unseen.
    unseen_after: Option<u64>,
}

impl Connection {
    /// A connection of which nothing is known but where it goes.
    pub(super) fn new(
        id: ConnectionId,
        endpoints: Endpoints,
        pool: PoolKey,
        counted_since: Option<Timestamp>,
        now: Timestamp,
    ) -> Self {
        Self {
            id,
            process: pool.process,
            tid: None,
            goroutine: None,
            held_by: Vec::new(),
            endpoints,
            tcp_state: TcpState::SynSent,
            state_changed_at: now,
            wire: Wire::default(),
            server: None,
            opened_at: None,
            first_seen: now,
            established_at: None,
            last_send: None,
            last_receive: None,
            bytes_sent: 0,
            bytes_received: 0,
            unread_bytes: None,
            unread_inventories: 0,
            requests: 0,
            request_at: None,
            request_by: None,
            moved: false,
            user_gone: false,
            regular_pauses: 0,
            last_pause: Duration::ZERO,
            opened_by: None,
            last_used_by: None,
            last_used_goroutine: None,
            uses: None,
            stack_sought: 0,
            announced: false,
            pool,
            counted_since,
            uncounted: false,
            last_counted: None,
            unlisted: 0,
            listed_bytes: false,
            seen_received: 0,
            sent_last: false,
            unseen_after: None,
        }
    }

    /// Whether it is older than the trace. One that the first inventory did not list is not, also
    /// where nobody knows when exactly it was opened.
    #[must_use]
    pub fn opened_before_trace(&self) -> bool {
        self.opened_at.is_none() && self.counted_since.is_none()
    }

    /// When it was opened, by the server's word where it is older than the trace.
    #[must_use]
    pub fn began(&self) -> Option<Timestamp> {
        let by_server = || {
            let side = self.server.as_ref()?;
            Some(side.at.before(side.session.age?))
        };
        self.opened_at.or_else(by_server)
    }

    /// The moment of the last payload byte in either direction; when there was none, of the
    /// handshake, or else of the opening.
    #[must_use]
    pub fn silent_since(&self) -> Timestamp {
        let payload = self.last_send.max(self.last_receive);
        payload.or(self.established_at).or(self.opened_at).unwrap_or(self.first_seen)
    }

    /// Time since [`Self::silent_since`].
    #[must_use]
    pub fn silent_for(&self, now: Timestamp) -> Duration {
        now.since(self.silent_since())
    }

    /// Where the dialogue stands: by the wire where it can be read, else by what the server said of
    /// this silence.
    #[must_use]
    pub fn dialogue(&self) -> WireState {
        match (self.wire.state, &self.server) {
            (WireState::Unknown, Some(side)) if side.at >= self.silent_since() => side.dialogue(),
            (state, _) => state,
        }
    }

    /// Whether no request is unanswered: by [`Self::dialogue`] where it is known, else by the
    /// direction of the last bytes.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        match self.dialogue() {
            WireState::Idle => true,
            WireState::Unknown => {
                self.tcp_state == TcpState::Established && self.last_receive >= self.last_send
            }
            _ => false,
        }
    }

    /// Whether a request is unanswered, in the same sense as [`Self::is_idle`].
    #[must_use]
    pub fn is_busy(&self) -> bool {
        match self.dialogue() {
            WireState::Busy => true,
            WireState::Unknown => self.last_send > self.last_receive,
            _ => false,
        }
    }

    /// Whether an answer has begun and stopped: what moved last came from the server, which does not
    /// say that it still works. A cursor that is read in parts and forgotten looks like that.
    #[must_use]
    pub fn is_answered_in_part(&self) -> bool {
        let is_at_work = || {
            let side = self.server.as_ref().filter(|side| side.at >= self.silent_since());
            side.is_some_and(|side| side.dialogue() == WireState::Busy)
        };
        self.wire.state == WireState::Busy
            && self.tcp_state == TcpState::Established
            && self.last_receive > self.last_send
            && !is_at_work()
    }

    /// Whether the process is known to have read nothing since it last sent.
    ///
    /// [`Self::last_receive`] does not tell: the list's is when bytes came, read or not.
    #[must_use]
    pub fn is_answer_untouched(&self) -> bool {
        self.sent_last && self.unseen_after != Some(self.seen_received)
    }

    /// Takes the place of what the handshake's end tells.
    pub(super) fn establish(&mut self, at: Timestamp, endpoints: Endpoints) {
        self.endpoints = endpoints;
        self.established_at = Some(at);
        if self.tcp_state == TcpState::SynSent {
            self.tcp_state = TcpState::Established;
            self.state_changed_at = at;
        }
    }

    /// Learns who called `connect()`, and when.
    pub(super) fn announce(&mut self, at: Timestamp, caller: &Caller) {
        self.announced = true;
        self.opened_at = Some(at);
        self.tid = Some(caller.tid);
    }

    /// Takes over the kernel programs' counters.
    pub(super) fn use_counters(&mut self, usage: &Usage) {
        if usage.endpoints.local.port() != 0 {
            self.endpoints = usage.endpoints;
        }
        if usage.state_changed_at >= self.state_changed_at {
            self.tcp_state = usage.tcp_state;
            self.state_changed_at = usage.state_changed_at;
        }
        if self.established_at.is_none() && self.tcp_state == TcpState::Established {
            self.established_at = Some(self.state_changed_at);
        }
        if !self.listed_bytes {
            self.bytes_sent = usage.bytes_sent.max(self.bytes_sent);
            self.bytes_received = usage.bytes_received.max(self.bytes_received);
        }
        let silent_since = self.silent_since();
        self.last_send = self.last_send.max(usage.last_send);
        self.last_receive = self.last_receive.max(usage.last_receive);
        if usage.requests != self.requests {
            self.requests = usage.requests;
            self.last_used_by = None;
            self.last_used_goroutine = None;
            self.user_gone = false;
            if let Some(at) = usage.request_at {
                self.note_pause(at.since(silent_since));
            }
        }
        self.moved = usage.moved;
        self.request_at = usage.request_at;
        self.request_by = usage.request_by;
        self.wire = usage.wire.clone();
        self.seen_received = usage.bytes_received;
        self.sent_last = usage.last_send > usage.last_receive;
        self.doubt_wire();
    }

    /// Learns how long it was silent before a request.
    fn note_pause(&mut self, pause: Duration) {
        let is_like = pause.abs_diff(self.last_pause) <= pause / ALIKE;
        self.regular_pauses = if is_like { self.regular_pauses + 1 } else { 0 };
        self.last_pause = pause;
    }

    /// Adds bytes that moved past the hooks, as `splice` moves them: the list knows what came in, and
    /// how much of that still lies unread.
    fn count_unseen(&mut self, socket: &ListedSocket) {
        self.bytes_sent = self.bytes_sent.max(socket.bytes_sent);
        let consumed = socket.bytes_received.saturating_sub(u64::from(socket.unread_bytes));
        if consumed > self.bytes_received {
            self.bytes_received = consumed;
            self.unseen_after = Some(self.seen_received);
            self.doubt_wire();
        }
    }

    /// What was received unseen may have changed the state: it is unknown until more is seen.
    fn doubt_wire(&mut self) {
        if self.unseen_after == Some(self.seen_received) {
            self.wire.state = WireState::Unknown;
        }
    }

    /// Takes over a stack; one of a request that is not the latest any more is of no use.
    pub(super) fn use_stack(
        &mut self,
        role: StackRole,
        stack: Option<&StackId>,
        goroutine: Option<u64>,
    ) {
        match role {
            StackRole::OpenedBy => {
                self.opened_by = stack.cloned();
                self.goroutine = goroutine;
            }
            StackRole::LastUsedBy { request } if request == self.requests => {
                self.last_used_by = stack.cloned();
                self.last_used_goroutine = goroutine;
                self.stack_sought = request;
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

    /// Takes over what sock_diag lists, and tells whether that corrected what events had told.
    pub(super) fn use_listing(&mut self, socket: &ListedSocket, began: Timestamp) -> bool {
        if socket.endpoints.local.port() != 0 {
            self.endpoints = socket.endpoints;
        }
        self.unlisted = 0;
        self.held_by.clone_from(&socket.held_by);
        self.unread_bytes = Some(socket.unread_bytes);
        self.unread_inventories = match socket.unread_bytes {
            0 => 0,
            _ => self.unread_inventories.saturating_add(1),
        };
        if socket.tcp_state != TcpState::SynSent {
            // Before the handshake sock_diag has no such times and gives that of the dump.
            later(&mut self.last_send, socket.last_send);
            later(&mut self.last_receive, socket.last_receive);
        }
        if self.opened_at.is_none() {
            self.listed_bytes = true;
            self.bytes_sent = socket.bytes_sent;
            self.bytes_received = socket.bytes_received;
        } else {
            self.count_unseen(socket);
        }
        if socket.tcp_state == self.tcp_state || self.state_changed_at > began {
            return false;
        }
        self.tcp_state = socket.tcp_state;
        self.state_changed_at = began;
        if self.tcp_state == TcpState::Established && self.established_at.is_none() {
            self.established_at = Some(began);
        }
        // No hook reports the state of a connection that was never used under trace, so for such a
        // one this is news and not a correction.
        self.announced
    }
}

/// Moves `known` on to `listed` when that is clearly later.
fn later(known: &mut Option<Timestamp>, listed: Timestamp) {
    if known.is_none_or(|known| listed.since(known) > LISTED_JITTER) {
        *known = Some(listed);
    }
}
