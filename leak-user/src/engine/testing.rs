//! Made-up histories for tests.

use std::collections::HashMap;
use std::time::Duration;

use crate::engine::detect::Memory;
use crate::engine::table::ConnectionTable;
use crate::model::server::{Listing, ServerAnswer, Session, SessionState, Settings};
use crate::model::{
    Caller, ConnectionId, Endpoints, Event, ListedSocket, ProcessKey, StackId, StackRole, TcpState,
    Timestamp, Usage, Wire, WireState,
};

/// The process of every made-up connection that does not say otherwise.
pub(crate) const APP: ProcessKey = ProcessKey { pid: 4242, start_ticks: 7 };

/// A moment `seconds` after the machine was started.
pub(crate) fn secs(seconds: f64) -> Timestamp {
    Timestamp((seconds * 1e9) as u64)
}

/// Both ends of connection `id`.
pub(crate) fn endpoints(id: u64) -> Endpoints {
    let port = 40_000 + u16::try_from(id % 20_000).unwrap();
    Endpoints { local: ([127, 0, 0, 1], port).into(), remote: "127.0.0.1:5432".parse().unwrap() }
}

/// The main thread of `process`.
pub(crate) fn caller(process: ProcessKey) -> Caller {
    Caller { process, tid: process.pid, comm: "app".into() }
}

/// A table, what detectors remember beside it, and the counters that the kernel would keep.
pub(crate) struct World {
    pub(crate) table: ConnectionTable,
    pub(crate) memory: Memory,
    counters: HashMap<u64, Usage>,
}

impl World {
    /// Begins to trace at second 0.
    pub(crate) fn new() -> Self {
        let mut world = Self {
            table: ConnectionTable::new(100_000),
            memory: Memory::default(),
            counters: HashMap::default(),
        };
        world.inventory(0.0, Vec::new());
        world
    }

    /// Something happens.
    pub(crate) fn apply(&mut self, event: &Event, now: Timestamp) {
        self.table.apply(event, now, &mut self.memory);
    }

    /// Reads the kernel's counters, as is done before every inventory, and applies an incomplete
    /// list.
    pub(crate) fn inventory(&mut self, at: f64, sockets: Vec<ListedSocket>) {
        self.count(at);
        let event = Event::Inventory { began: secs(at), sockets, complete: false };
        self.apply(&event, secs(at));
    }

    /// Reads the kernel's counters of every connection. Whatever has changed was told when it did.
    pub(crate) fn count(&mut self, at: f64) {
        let mut ids = Vec::new();
        for (id, usage) in self.counters.clone() {
            let id = ConnectionId(id);
            if self.table.get(id).is_some() {
                ids.push(id);
            } else {
                self.apply(&Event::Used { id, usage: Box::new(usage) }, secs(at));
            }
        }
        self.apply(&Event::Unchanged { ids }, secs(at));
    }

    /// Makes the kernel forget a connection without a word.
    pub(crate) fn lose_end(&mut self, id: u64) {
        self.counters.remove(&id);
    }

    /// Opens a connection that takes 1 ms to establish and sends nothing.
    pub(crate) fn dial(&mut self, id: u64, at: f64) {
        let event = Event::Opened {
            id: ConnectionId(id),
            at: secs(at),
            caller: caller(APP),
            endpoints: endpoints(id),
        };
        self.apply(&event, secs(at));
        self.counters.insert(id, usage(id, secs(at)));
    }

    /// Opens a connection, and the server answers its startup message.
    pub(crate) fn open(&mut self, id: u64, at: f64) {
        self.dial(id, at);
        self.establish(id, at + 0.001);
        self.request(id, at + 0.002, "startup", WireState::Idle);
    }

    pub(crate) fn establish(&mut self, id: u64, at: f64) {
        let event =
            Event::Established { id: ConnectionId(id), at: secs(at), endpoints: endpoints(id) };
        self.apply(&event, secs(at));
        self.set(id, |usage| {
            usage.tcp_state = TcpState::Established;
            usage.state_changed_at = secs(at);
        });
    }

    /// Sends a request from `stack` that leaves the dialogue in `state`, answered in 1 ms unless it
    /// leaves it busy.
    pub(crate) fn request(&mut self, id: u64, at: f64, stack: &str, state: WireState) {
        self.set(id, |usage| {
            usage.requests += 1;
            usage.request_at = Some(secs(at));
            usage.last_send = Some(secs(at));
            usage.bytes_sent += 100;
            if !matches!(state, WireState::Busy | WireState::Startup) {
                usage.last_receive = Some(secs(at + 0.001));
                usage.bytes_received += 200;
            }
            usage.wire.state = state;
        });
        let request = self.counters[&id].requests;
        let event = Event::StackResolved {
            id: ConnectionId(id),
            role: StackRole::LastUsedBy { request },
            stack: (!stack.is_empty()).then(|| StackId::from(stack)),
            goroutine: None,
        };
        self.apply(&event, secs(at));
    }

    /// The stack that opened a connection becomes known.
    pub(crate) fn opened_by(&mut self, id: u64, stack: &str) {
        let (id, role) = (ConnectionId(id), StackRole::OpenedBy);
        let stack = Some(StackId::from(stack));
        self.apply(&Event::StackResolved { id, role, stack, goroutine: None }, secs(0.0));
    }

    /// Sends a request from `stack` on one thread that leaves the connection idle.
    pub(crate) fn request_by(&mut self, id: u64, at: f64, stack: &str, tid: u32) {
        if let Some(usage) = self.counters.get_mut(&id) {
            usage.moved |= usage.request_by.is_some_and(|(_, former)| former != tid);
            usage.request_by = Some((APP.pid, tid));
        }
        self.request(id, at, stack, WireState::Idle);
    }

    /// The same by a stack's id.
    pub(crate) fn request_of(&mut self, id: u64, at: f64, stack: StackId, tid: u32) {
        self.request_by(id, at, "", tid);
        let request = self.counters[&id].requests;
        let (id, role) = (ConnectionId(id), StackRole::LastUsedBy { request });
        let event = Event::StackResolved { id, role, stack: Some(stack), goroutine: None };
        self.apply(&event, secs(at));
    }

    /// Changes the kernel's counters and tells the table.
    pub(crate) fn set(&mut self, id: u64, change: impl FnOnce(&mut Usage)) {
        let usage = self.counters.get_mut(&id).unwrap();
        change(usage);
        let now = usage.last_send.max(usage.last_receive).unwrap_or(usage.opened_at);
        let usage = Box::new(usage.clone());
        self.apply(&Event::Used { id: ConnectionId(id), usage }, now);
    }

    /// The server "db" answers what it was asked at second `at`.
    pub(crate) fn hear(&mut self, at: f64, answer: ServerAnswer) {
        let (server, answer) = ("db".into(), Box::new(answer));
        let event = Event::ServerSessions { server, at: secs(at), answer };
        self.apply(&event, secs(at));
    }

    /// The server lets nobody in, in these words.
    pub(crate) fn refuse(&mut self, id: u64, at: f64, why: &str) {
        self.dial(id, at);
        self.establish(id, at + 0.001);
        self.set(id, |usage| {
            usage.wire.refused = Some("53300".into());
            usage.wire.refused_why = Some(why.into());
            usage.last_receive = Some(secs(at + 1.0));
        });
        self.close(id, at + 1.0);
    }

    /// The process exits, and the kernel closes what it has left open.
    pub(crate) fn exit_leaving(&mut self, id: u64, at: f64) {
        self.set(id, |usage| {
            usage.closed_at_exit = true;
            usage.tcp_state = TcpState::FinWait1;
            usage.state_changed_at = secs(at);
        });
        self.close(id, at);
    }

    pub(crate) fn close(&mut self, id: u64, at: f64) {
        let usage = Box::new(self.counters.remove(&id).unwrap());
        let event = Event::Closed { id: ConnectionId(id), at: secs(at), usage };
        self.apply(&event, secs(at));
    }
}

/// Counters of a connection just opened by [`APP`].
pub(crate) fn usage(id: u64, opened_at: Timestamp) -> Usage {
    Usage {
        opener: caller(APP),
        opened_at,
        adopted: false,
        endpoints: endpoints(id),
        tcp_state: TcpState::SynSent,
        state_changed_at: opened_at,
        bytes_sent: 0,
        bytes_received: 0,
        last_send: None,
        last_receive: None,
        requests: 0,
        request_at: None,
        request_by: None,
        moved: false,
        wire: Wire::default(),
        closed_at_exit: false,
    }
}

/// A socket as sock_diag would list it, last used at `at`.
pub(crate) fn listed(id: u64, at: f64) -> ListedSocket {
    ListedSocket {
        id: ConnectionId(id),
        endpoints: endpoints(id),
        tcp_state: TcpState::Established,
        unread_bytes: 0,
        bytes_sent: 1000,
        bytes_received: 2000,
        last_send: secs(at),
        last_receive: secs(at + 0.001),
        held_by: vec![APP],
    }
}

/// The server's word on connection `id`, whose session is `age` seconds old.
pub(crate) fn session(id: u64, age: f64, state: SessionState) -> Session {
    Session {
        pid: 1000 + u32::try_from(id).unwrap(),
        client: Some(endpoints(id).local),
        application_name: Some("shop".into()),
        user: Some("shop".into()),
        state: Some(state),
        age: Some(Duration::from_secs_f64(age)),
        query: Some("SELECT ?".into()),
        ..Session::default()
    }
}

/// A server that allows 10 connections, 3 of them to superusers only, lists `sessions`.
pub(crate) fn server_lists(sessions: Vec<Session>) -> ServerAnswer {
    let settings = Settings {
        max_connections: 10,
        superuser_reserved: 3,
        ports: vec![5432],
        ..Settings::default()
    };
    ServerAnswer::Listed(Listing { settings, sessions, cut: false })
}
