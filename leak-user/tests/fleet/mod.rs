//! Fleets of made-up processes, of any size, told to the engine as a trace tells them.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, SystemTime};

use leak_user::engine::detect::Thresholds;
use leak_user::engine::snapshot::RunInfo;
use leak_user::engine::{Beginning, Engine};
use leak_user::model::time::Clock;
use leak_user::model::{
    Caller, ConnectionId, Endpoints, Event, Fact, Health, ListedSocket, ProcessKey, StackId,
    StackRole, TcpState, Timestamp, Usage, Wire, WireState,
};
use leak_user::outputs::prometheus::Exporter;
use leak_user::outputs::{Format, MetricsSettings, Sink as _, Sinks};
use leak_user::trace::Session;

/// Connections of one process.
pub(crate) const POOL: u64 = 100;
/// One process in this many leaks.
const LEAKY: u64 = 5;

/// For what is printed and not looked at.
pub(crate) fn unseen() -> Sinks {
    Sinks::to(Format::Json, io::sink())
}

/// Processes with connections, and the engine that is told of them.
pub(crate) struct Fleet {
    session: Session,
}

impl Fleet {
    /// An engine that judges every `interval`, with room for a million connections and more.
    pub(crate) fn new(interval: Duration, sinks: Sinks) -> Self {
        let run = RunInfo {
            version: "0".into(),
            host: "fleet".into(),
            kernel: "none".into(),
            hooks: BTreeMap::new(),
            ports: vec![5432],
            started_at: SystemTime::UNIX_EPOCH,
        };
        let clock = Clock::new(Timestamp(0), SystemTime::UNIX_EPOCH);
        let thresholds =
            Thresholds { silent_after: interval, interval, limit: None, fail_on_leak: false };
        let beginning = Beginning { run, clock, thresholds, capacity: 2_000_000 };
        let mut fleet =
            Self { session: Session::begin(beginning, sinks).expect("memory can be written") };
        fleet.list(Timestamp(0), Vec::new());
        fleet
    }

    /// The engine.
    pub(crate) fn engine(&self) -> &Engine {
        self.session.engine()
    }

    /// Tells a fact.
    pub(crate) fn tell(&mut self, now: Timestamp, fact: &Fact) {
        self.session.tell(now, fact).expect("memory can be written");
    }

    /// A connection is opened, and its startup message answered.
    pub(crate) fn open(&mut self, id: u64, at: Timestamp) -> Usage {
        let usage = opened(id, at);
        let (connection, endpoints) = (ConnectionId(id), usage.endpoints);
        let caller = usage.opener.clone();
        self.tell(at, &Fact::Event(Event::Opened { id: connection, at, caller, endpoints }));
        self.tell(at, &Fact::Event(Event::Established { id: connection, at, endpoints }));
        usage
    }

    /// A connection was used by `stack`.
    pub(crate) fn use_it(&mut self, id: u64, usage: &mut Usage, at: Timestamp, stack: &str) {
        usage.requests += 1;
        usage.request_at = Some(at);
        usage.last_send = Some(at);
        usage.last_receive = Some(at.after(Duration::from_millis(1)));
        usage.bytes_sent += 100;
        usage.bytes_received += 200;
        self.count(id, usage, at);
        let role = StackRole::LastUsedBy { request: usage.requests };
        let (id, stack) = (ConnectionId(id), Some(StackId::from(stack)));
        let resolved = Event::StackResolved { id, role, stack, goroutine: None };
        self.tell(at, &Fact::Event(resolved));
    }

    /// The counters of a connection are read.
    pub(crate) fn count(&mut self, id: u64, usage: &Usage, now: Timestamp) {
        let usage = Box::new(usage.clone());
        self.tell(now, &Fact::Event(Event::Used { id: ConnectionId(id), usage }));
    }

    /// A connection is closed.
    pub(crate) fn close(&mut self, id: u64, usage: Usage, at: Timestamp) {
        let usage = Box::new(usage);
        self.tell(at, &Fact::Event(Event::Closed { id: ConnectionId(id), at, usage }));
    }

    /// The kernel lists what exists.
    pub(crate) fn list(&mut self, now: Timestamp, sockets: Vec<ListedSocket>) {
        let event = Event::Inventory { began: now, sockets, complete: true };
        self.tell(now, &Fact::Event(event));
    }

    /// An interval is over.
    pub(crate) fn judge(&mut self, now: Timestamp) {
        self.tell(now, &Fact::Judge(Health::default()));
    }
}

/// What this thread has worked so far: other programs do not count.
pub(crate) fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

/// The moment `seconds` after the beginning.
pub(crate) fn secs(seconds: u64) -> Timestamp {
    Timestamp(seconds * 1_000_000_000)
}

/// The process that a connection belongs to.
pub(crate) fn process_of(id: u64) -> ProcessKey {
    ProcessKey { pid: pid_of(id / POOL), start_ticks: id / POOL }
}

fn pid_of(process: u64) -> u32 {
    u32::try_from(process % 4_000_000).unwrap_or_default() + 1
}

/// Whether a process is one that leaks.
pub(crate) fn is_leaky(process: u64) -> bool {
    process.is_multiple_of(LEAKY)
}

fn opened(id: u64, at: Timestamp) -> Usage {
    let process = process_of(id);
    let port = 1024 + u16::try_from(id % 60_000).unwrap_or_default();
    let wire = Wire {
        state: WireState::Idle,
        user: Some("shop".into()),
        database: Some("orders".into()),
        application_name: Some(format!("worker {}", process.start_ticks % 7)),
        ..Wire::default()
    };
    Usage {
        opener: Caller { process, tid: process.pid, comm: "worker".into() },
        opened_at: at,
        adopted: false,
        moved: false,
        endpoints: Endpoints {
            local: ([10, 0, 0, 1], port).into(),
            remote: ([10, 0, 0, 2], 5432).into(),
        },
        tcp_state: TcpState::Established,
        state_changed_at: at,
        bytes_sent: 0,
        bytes_received: 0,
        last_send: None,
        last_receive: None,
        requests: 0,
        request_at: None,
        request_by: None,
        wire,
        closed_at_exit: false,
    }
}

/// A socket as the kernel lists it.
pub(crate) fn listed(id: u64, usage: &Usage) -> ListedSocket {
    ListedSocket {
        id: ConnectionId(id),
        endpoints: usage.endpoints,
        tcp_state: usage.tcp_state,
        unread_bytes: 0,
        bytes_sent: usage.bytes_sent,
        bytes_received: usage.bytes_received,
        last_send: usage.last_send.unwrap_or(usage.opened_at),
        last_receive: usage.last_receive.unwrap_or(usage.opened_at),
        held_by: vec![usage.opener.process],
    }
}

/// What it took to take in and judge a number of open connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// To open them and use them once.
    pub(crate) events: Duration,
    /// To take in their counters and the kernel's list, in each interval.
    pub(crate) refresh: Duration,
    /// To judge them, in each interval.
    pub(crate) judge: Duration,
    /// To leave the figures for whoever scrapes.
    pub(crate) publish: Duration,
}

/// That many connections at once, one process for every hundred; a fifth of the processes lose
/// every connection that they open, the others use all of theirs. The shortest of three intervals
/// counts.
pub(crate) fn at_once(connections: u64) -> (Cost, Fleet) {
    const INTERVAL: u64 = 60;
    let mut fleet = Fleet::new(Duration::from_secs(INTERVAL), unseen());
    let begun = cpu_time();
    let mut usages = Vec::new();
    for number in 0..POOL {
        let at = secs(INTERVAL + 10 * number);
        for process in 0..connections.div_ceil(POOL) {
            let id = process * POOL + number;
            if id < connections {
                let mut usage = fleet.open(id, at);
                let stack = if is_leaky(process) { "leak" } else { "work" };
                fleet.use_it(id, &mut usage, at.after(Duration::from_millis(5)), stack);
                usages.push((id, usage));
            }
        }
    }
    let never = Duration::MAX;
    let mut cost =
        Cost { events: cpu_time() - begun, refresh: never, judge: never, publish: never };
    let (address, interval) = ("0".parse().expect("a port"), Duration::from_secs(INTERVAL));
    let settings = MetricsSettings { address, labels: Vec::new(), interval };
    let mut exporter = Exporter::start(&settings).expect("a port");
    for interval in 0..3 {
        let now = secs(INTERVAL + 10 * POOL + INTERVAL * (interval + 1));
        for (id, usage) in &mut usages {
            if !is_leaky(*id / POOL) {
                let busy = Duration::from_millis(*id % 10_000);
                usage.last_send = Some(now.before(busy));
                usage.last_receive = usage.last_send;
            }
        }
        let sockets = usages.iter().map(|(id, usage)| listed(*id, usage)).collect();
        let begun = cpu_time();
        for (id, usage) in &usages {
            fleet.count(*id, usage, now);
        }
        fleet.list(now, sockets);
        cost.refresh = cost.refresh.min(cpu_time() - begun);
        let begun = cpu_time();
        fleet.judge(now);
        cost.judge = cost.judge.min(cpu_time() - begun);
        let begun = cpu_time();
        let snapshot = fleet.engine().snapshot(now, false);
        exporter.interval(&snapshot, &[]).expect("a board takes everything");
        cost.publish = cost.publish.min(cpu_time() - begun);
    }
    (cost, fleet)
}

/// A month, judged every hour: that many processes, one after the other, a tenth of them at a time,
/// each with a hundred connections in its life. The healthy ones rotate a pool of five that is
/// always in use; the others lose a connection every hour until they are replaced.
///
/// `look` is called at the end of every day.
pub(crate) fn month(processes: u64, sinks: Sinks, mut look: impl FnMut(u64, &Fleet)) -> Fleet {
    const HOUR: u64 = 3600;
    const HOURS: u64 = 30 * 24;
    const HEALTHY_POOL: usize = 5;
    let mut fleet = Fleet::new(Duration::from_secs(HOUR), sinks);
    let mut open: BTreeMap<u64, Vec<(u64, Usage)>> = BTreeMap::new();
    let life = HOURS / 10;
    for hour in 0..HOURS {
        let begun = secs(HOUR * hour + 1);
        // Those whose life is over are replaced, a share of all every hour.
        let alive = |process: u64| {
            let born = process * (HOURS - life) / processes;
            (born..born + life).contains(&hour)
        };
        let over: Vec<u64> = open.keys().copied().filter(|&process| !alive(process)).collect();
        for process in over {
            fleet.tell(begun, &Fact::Exited(process_of(process * POOL)));
            for (id, usage) in open.remove(&process).unwrap_or_default() {
                fleet.close(id, usage, begun);
            }
        }
        for process in (0..processes).filter(|&process| alive(process)) {
            let born = process * (HOURS - life) / processes;
            let connections = open.entry(process).or_default();
            // Two an hour for the healthy, one for the leaky.
            let age = hour - born;
            let fresh = if is_leaky(process) { age..age + 1 } else { 2 * age..2 * age + 2 };
            for number in fresh.filter(|&number| number < POOL) {
                let id = process * POOL + number;
                let mut usage = fleet.open(id, begun);
                let stack = if is_leaky(process) { "leak" } else { "work" };
                fleet.use_it(id, &mut usage, begun.after(Duration::from_secs(1)), stack);
                connections.push((id, usage));
            }
            if is_leaky(process) {
                continue;
            }
            while connections.len() > HEALTHY_POOL {
                let (id, usage) = connections.remove(0);
                fleet.close(id, usage, begun.after(Duration::from_secs(2)));
            }
            for (id, usage) in connections {
                let at = secs(HOUR * hour + 3000 + *id % 600);
                fleet.use_it(*id, usage, at, "work");
            }
        }
        let now = secs(HOUR * (hour + 1));
        let sockets =
            open.values().flatten().map(|(id, usage)| listed(*id, usage)).collect::<Vec<_>>();
        for (id, usage) in open.values().flatten() {
            fleet.count(*id, usage, now);
        }
        fleet.list(now, sockets);
        fleet.judge(now);
        if hour % 24 == 23 {
            look(hour / 24 + 1, &fleet);
        }
    }
    fleet
}
