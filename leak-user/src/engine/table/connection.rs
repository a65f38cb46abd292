//! One connection, as known from events.

mod parts;

use std::time::Duration;

pub(super) use parts::Account;
pub use parts::{Callers, DriverSide, Place, Requests, Tcp, Traffic};

use crate::engine::table::pools::PoolKey;
use crate::engine::table::servers::ServerSide;
use crate::model::{
    Caller, ConnectionId, Endpoints, ListedSocket, ProcessKey, StackId, StackRole, StateSource,
    TcpState, Timestamp, Usage, Wire, WireState,
};
use parts::{ByteCounter, known_endpoints};

/// How much later a listed time must be than a known one to be news.
///
/// sock_diag tells "milliseconds ago" in the kernel's ticks, and the dump takes time; without this
/// allowance a silent connection would seem to be used a little at every inventory.
const LISTED_JITTER: Duration = Duration::from_secs(1);

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
    /// When it was opened; `None` when it is older than the trace or its opening was missed:
    /// [`Self::opened_before_trace`] tells which.
    pub opened_at: Option<Timestamp>,
    /// When it came into the table.
    pub first_seen: Timestamp,
    /// Its TCP connection.
    pub tcp: Tcp,
    /// The payload that it has carried.
    pub traffic: Traffic,
    /// PostgreSQL's state.
    pub wire: Wire,
    /// What its server said of it when it was last asked; `None` when it was not, or does not know
    /// it.
    pub server: Option<Box<ServerSide>>,
    /// What the driver in its process said of its session when it was last asked.
    pub driver: Option<DriverSide>,
    /// Where it is by the word of the program's own pool; `None` when it was not read or does not
    /// know the connection. [`Self::place_now`] tells whether that still holds.
    pub place: Option<Place>,
    /// The requests sent on it.
    pub requests: Requests,
    /// The code that opened and used it.
    pub callers: Callers,
    /// How the table keeps account of it.
    pub(super) account: Account,
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
            opened_at: None,
            first_seen: now,
            tcp: Tcp::dialing(now),
            traffic: Traffic::default(),
            wire: Wire::default(),
            server: None,
            driver: None,
            place: None,
            requests: Requests::default(),
            callers: Callers::default(),
            account: Account::new(pool, counted_since),
        }
    }

    /// Whether it is older than the trace. One that the first inventory did not list is not, also
    /// where nobody knows when exactly it was opened.
    #[must_use]
    pub fn opened_before_trace(&self) -> bool {
        self.opened_at.is_none() && self.account.counted_since.is_none()
    }

    /// Whether too little is known to be judged: it is older than the trace, has sent no request
    /// since, and no server has said that it does anything. An idle one may be lost or at rest.
    #[must_use]
    pub fn is_unjudged(&self) -> bool {
        self.opened_before_trace()
            && self.requests.count == 0
            && matches!(self.dialogue(), WireState::Unknown | WireState::Idle)
    }

    /// Whether no stack will tell which code sent the latest request: that was before the trace, or
    /// its stack was looked for in vain.
    #[must_use]
    pub fn is_user_unknown(&self) -> bool {
        let is_sought = match self.requests.count {
            0 => self.opened_before_trace(),
            latest => self.callers.sought == latest,
        };
        is_sought && self.callers.last_used_by.is_none()
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
        let payload = self.traffic.last_send.max(self.traffic.last_receive);
        payload.or(self.tcp.established_at).or(self.opened_at).unwrap_or(self.first_seen)
    }

    /// Time since [`Self::silent_since`].
    #[must_use]
    pub fn silent_for(&self, now: Timestamp) -> Duration {
        now.since(self.silent_since())
    }

    /// Where the dialogue stands, as far as anybody tells.
    #[must_use]
    pub fn dialogue(&self) -> WireState {
        self.told().map_or(WireState::Unknown, |(state, _)| state)
    }

    /// Where the dialogue stands, and who tells: the wire where it can be read, else what the
    /// server or else the driver said of this silence.
    #[must_use]
    pub fn told(&self) -> Option<(WireState, StateSource)> {
        let by_server = || Some((self.server_now()?.dialogue(), StateSource::Server));
        let by_driver = || Some((self.driver_now()?, StateSource::Driver));
        let is_known = |(state, _): &(WireState, StateSource)| *state != WireState::Unknown;
        let by_wire = Some((self.wire.state, StateSource::Wire));
        by_wire
            .filter(is_known)
            .or_else(|| by_server().filter(is_known))
            .or_else(|| by_driver().filter(is_known))
    }

    /// What its server said of this silence.
    #[must_use]
    pub fn server_now(&self) -> Option<&ServerSide> {
        self.server.as_deref().filter(|side| side.at >= self.silent_since())
    }

    /// Where it is by the word of the program's own pool, said of this silence and at `since` or
    /// later.
    #[must_use]
    pub fn place_now(&self, since: Timestamp) -> Option<Place> {
        self.place.filter(|place| place.at >= since && place.at >= self.silent_since())
    }

    /// PID of the server's backend: as it told its client, else as it lists it.
    #[must_use]
    pub fn backend_pid(&self) -> Option<u32> {
        self.wire.backend_pid.or_else(|| Some(self.server.as_ref()?.session.pid))
    }

    /// `application_name`: as its client told it, else as the server lists it.
    #[must_use]
    pub fn application_name(&self) -> Option<&str> {
        let by_server = || self.server.as_ref()?.session.application_name.as_deref();
        self.wire.application_name.as_deref().or_else(by_server)
    }

    /// Whether no request is unanswered: by [`Self::dialogue`] where it is known, else by the
    /// direction of the last bytes.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        match self.dialogue() {
            WireState::Idle => true,
            WireState::Unknown => {
                self.tcp.state == TcpState::Established
                    && self.traffic.last_receive >= self.traffic.last_send
            }
            _ => false,
        }
    }

    /// Whether the server waits for a request in a transaction.
    #[must_use]
    pub fn is_in_transaction(&self) -> bool {
        matches!(self.dialogue(), WireState::InTransaction | WireState::FailedTransaction)
    }

    /// For how long its transaction has been open: by the wire, else as old as it was when its
    /// server was asked, unless that was longer ago than `recently`. `None` outside of one.
    #[must_use]
    pub fn transaction_age(&self, now: Timestamp, recently: Duration) -> Option<Duration> {
        let by_server = || {
            let side = self.server.as_deref().filter(|side| now.since(side.at) <= recently)?;
            side.session.transaction_age
        };
        self.wire.transaction_at.map(|at| now.since(at)).or_else(by_server)
    }

    /// Whether a request is unanswered, in the same sense as [`Self::is_idle`].
    #[must_use]
    pub fn is_busy(&self) -> bool {
        match self.dialogue() {
            WireState::Busy => true,
            WireState::Unknown => self.traffic.last_send > self.traffic.last_receive,
            _ => false,
        }
    }

    /// Whether the process is known to have read nothing since it last sent.
    ///
    /// [`Traffic::last_receive`] does not tell: the list's is when bytes came, read or not.
    #[must_use]
    pub fn is_answer_untouched(&self) -> bool {
        self.traffic.sent_last && !self.traffic.has_unseen()
    }

    /// Applies the end of the handshake.
    pub(super) fn establish(&mut self, at: Timestamp, endpoints: Endpoints) {
        self.endpoints = endpoints;
        self.tcp.established_at = Some(at);
        if self.tcp.state == TcpState::SynSent {
            self.tcp.set(TcpState::Established, at);
        }
    }

    /// Learns who called `connect()`, and when.
    pub(super) fn announce(&mut self, at: Timestamp, caller: &Caller) {
        self.account.announced = true;
        self.opened_at = Some(at);
        self.tid = Some(caller.tid);
    }

    /// Applies endpoints and TCP state of the kernel programs' counters.
    pub(super) fn use_state(&mut self, usage: &Usage) {
        self.endpoints = known_endpoints(self.endpoints, usage.endpoints);
        if usage.state_changed_at >= self.tcp.state_changed_at {
            self.tcp.set(usage.tcp_state, usage.state_changed_at);
        }
        self.tcp.imply_handshake();
    }

    /// How long the server took to answer the latest request, when these counters are the first to
    /// say that it has. At most that: a later request may have begun since.
    pub(super) fn answered_after(&self, usage: &Usage) -> Option<Duration> {
        let at = match usage.requests.checked_sub(self.requests.count)? {
            0 => usage.last_receive?,
            _ => usage.request_at?,
        };
        let is_news = self.is_busy() && self.requests.count > 0;
        (is_news && Some(at) > self.traffic.last_send).then(|| at.since(self.silent_since()))
    }

    /// Applies the other counters of the kernel programs.
    pub(super) fn use_counters(&mut self, usage: &Usage) {
        let traffic = &mut self.traffic;
        if traffic.counted_by == ByteCounter::Programs {
            traffic.bytes_sent = usage.bytes_sent.max(traffic.bytes_sent);
            traffic.bytes_received = usage.bytes_received.max(traffic.bytes_received);
        }
        traffic.last_send = traffic.last_send.max(usage.last_send);
        traffic.last_receive = traffic.last_receive.max(usage.last_receive);
        traffic.seen_received = usage.bytes_received;
        traffic.sent_last = usage.last_send > usage.last_receive;
        if usage.requests != self.requests.count {
            self.callers.forget_latest();
        }
        self.requests.use_counters(usage);
        self.wire = usage.wire.clone();
        self.doubt_wire();
    }

    /// Adds bytes that moved past the hooks, as `splice` moves them: the list knows what came in,
    /// and how much of that still lies unread.
    fn count_unseen(&mut self, socket: &ListedSocket) {
        let traffic = &mut self.traffic;
        traffic.bytes_sent = traffic.bytes_sent.max(socket.bytes_sent);
        let consumed = socket.bytes_received.saturating_sub(u64::from(socket.unread_bytes));
        if consumed > traffic.bytes_received {
            traffic.bytes_received = consumed;
            traffic.unseen_after = Some(traffic.seen_received);
            self.doubt_wire();
        }
    }

    /// Bytes received unseen may have changed the state, which is unknown until more is seen.
    fn doubt_wire(&mut self) {
        if self.traffic.has_unseen() {
            self.wire.state = WireState::Unknown;
        }
    }

    /// Applies a stack.
    pub(super) fn use_stack(
        &mut self,
        role: StackRole,
        stack: Option<&StackId>,
        goroutine: Option<u64>,
    ) {
        if role == StackRole::OpenedBy {
            self.goroutine = goroutine;
        }
        self.callers.resolve(role, stack, goroutine, self.requests.count);
    }

    /// Applies a sock_diag listing, and returns whether it corrected what events had said.
    pub(super) fn use_listing(&mut self, socket: &ListedSocket, began: Timestamp) -> bool {
        self.endpoints = known_endpoints(self.endpoints, socket.endpoints);
        self.account.unlisted = 0;
        self.held_by.clone_from(&socket.held_by);
        let traffic = &mut self.traffic;
        traffic.unread_bytes = Some(socket.unread_bytes);
        traffic.unread_inventories = match socket.unread_bytes {
            0 => 0,
            _ => traffic.unread_inventories.saturating_add(1),
        };
        if socket.tcp_state != TcpState::SynSent {
            // Before the handshake sock_diag has no such times and gives that of the dump.
            later(&mut traffic.last_send, socket.last_send);
            later(&mut traffic.last_receive, socket.last_receive);
        }
        if self.opened_at.is_none() {
            traffic.counted_by = ByteCounter::Kernel;
            traffic.bytes_sent = socket.bytes_sent;
            traffic.bytes_received = socket.bytes_received;
        } else {
            self.count_unseen(socket);
        }
        if socket.tcp_state == self.tcp.state || self.tcp.state_changed_at > began {
            return false;
        }
        self.tcp.set(socket.tcp_state, began);
        self.tcp.imply_handshake();
        // No hook reports the state of a connection that was never used under trace, so for such a
        // one this is news and not a correction.
        self.account.announced
    }
}

/// Moves `known` on to `listed` when that is clearly later.
fn later(known: &mut Option<Timestamp>, listed: Timestamp) {
    if known.is_none_or(|known| listed.since(known) > LISTED_JITTER) {
        *known = Some(listed);
    }
}
