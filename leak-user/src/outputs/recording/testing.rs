//! A made-up run, as a recording holds it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use leak_stacks::{Frame, Language, Quality, Stack, StackCounts, TruncationReason};

use crate::engine::Beginning;
use crate::engine::detect::Thresholds;
use crate::engine::snapshot::RunInfo;
use crate::engine::testing::{APP, caller, endpoints, listed, secs, usage};
use crate::model::time::Clock;
use crate::model::{
    ConnectionId, Cost, Destination, DestinationKind, Event, Fact, Health, Pod, ProcessInfo,
    Sample, StackCopies, StackId, StackRole, TcpState, Timestamp, WireState,
};

/// Facts, each with its moment.
pub(crate) type Told = Vec<(Timestamp, Fact)>;

pub(crate) fn beginning() -> Beginning {
    Beginning {
        run: RunInfo {
            version: "0.1.0".into(),
            host: "db-client".into(),
            kernel: "6.18.0".into(),
            hooks: BTreeMap::from([("connect".into(), "tp_btf/inet_sock_set_state".into())]),
            ports: vec![5432],
            started_at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
        },
        clock: Clock::new(secs(0.5), SystemTime::UNIX_EPOCH + Duration::from_nanos(987_654_321)),
        thresholds: Thresholds {
            silent_after: Duration::from_secs(60),
            interval: Duration::from_secs(10),
            limit: Some(100),
            fail_on_leak: false,
        },
        capacity: 1000,
    }
}

/// A pool that loses a connection every 10 s, told as a trace tells it.
pub(crate) fn story() -> Told {
    let mut told = Told::new();
    let frame = Frame {
        function: Some("app::report".into()),
        module: None,
        file: Some("src/ünïcode \"quoted\".rs".into()),
        line: Some(41),
        address: u64::MAX,
    };
    let stack = Arc::new(Stack {
        id: StackId::from("leak"),
        quality: Quality::Complete,
        truncation: None,
        language: Language::Native,
        frames: vec![frame],
        culprit: Some(0),
        callers: Vec::new(),
    });
    let info = ProcessInfo {
        key: APP,
        comm: "shop".into(),
        exe: Some("/srv/shop".into()),
        container_id: None,
        container_pid: None,
        pod_uid: None,
        pod: Some(Pod {
            namespace: "shop".into(),
            name: "orders-7d9f".into(),
            container: "app".into(),
            labels: BTreeMap::from([("app".into(), "orders".into())]),
        }),
        started_at: Some(SystemTime::UNIX_EPOCH + Duration::from_nanos(1)),
        program: None,
    };
    told.push((secs(1.0), Fact::Process(info)));
    let (kind, namespace) = (DestinationKind::Pod, "db".to_owned());
    let name = Destination { kind, namespace, name: "postgres-0".to_owned() };
    let address = endpoints(1).remote.ip();
    told.push((secs(1.0), Fact::Destination { address, name }));
    told.push((secs(1.0), Fact::Stack(stack)));
    let mut open = Vec::new();
    for number in 1..=14 {
        let (id, at) = (ConnectionId(number), 10.0 * number as f64);
        let opened =
            Event::Opened { id, at: secs(at), caller: caller(APP), endpoints: endpoints(number) };
        told.push((secs(at), Fact::Event(opened)));
        let mut counters = usage(number, secs(at));
        counters.tcp_state = TcpState::Established;
        counters.state_changed_at = secs(at + 0.001);
        counters.requests = 2;
        counters.request_at = Some(secs(at + 0.1));
        counters.request_by = Some((APP.pid, APP.pid));
        counters.last_send = counters.request_at;
        counters.last_receive = Some(secs(at + 0.2));
        counters.wire.state = WireState::Idle;
        counters.wire.user = Some("shop".into());
        let used = Event::Used { id, usage: Box::new(counters.clone()) };
        told.push((secs(at + 1.0), Fact::Event(used)));
        let ids: Vec<_> = open.iter().map(|(id, _)| *id).collect();
        if !ids.is_empty() {
            told.push((secs(at + 1.0), Fact::Event(Event::Unchanged { ids })));
        }
        open.push((id, counters));
        let sockets = open.iter().map(|(id, _)| listed(id.0, 10.0 * id.0 as f64)).collect();
        let began = secs(at + 0.9);
        let inventory = Event::Inventory { began, sockets, complete: true };
        told.push((secs(at + 1.1), Fact::Event(inventory)));
        let (role, stack) = (StackRole::LastUsedBy { request: 2 }, Some(StackId::from("leak")));
        let resolved = Event::StackResolved { id, role, stack, goroutine: None };
        told.push((secs(at + 1.2), Fact::Event(resolved)));
        let health = Health {
            received: number,
            lost: 0,
            stacks_skipped: 0,
            stacks: StackCounts::default(),
            copies: StackCopies { recorded: number, ..StackCopies::default() },
            skipped_runs: number,
            cost: Cost { collector: Duration::from_millis(number), ..Cost::default() },
            ..Health::default()
        };
        told.push((secs(at + 2.0), Fact::Judge(health)));
    }
    let (id, usage) = open.swap_remove(3);
    let closed = Event::Closed { id, at: secs(150.0), usage: Box::new(usage) };
    told.push((secs(150.0), Fact::Event(closed)));
    told.push((secs(151.0), Fact::Exited(APP)));
    let mut stacks = StackCounts::default();
    stacks.add(Quality::None, Some(TruncationReason::NotRecorded));
    let kernel = Sample { busy: Duration::from_nanos(7), watched: Duration::from_secs(1) };
    let cost = Cost { kernel: Some(kernel), ..Cost::default() };
    let copies = StackCopies::default();
    let (received, lost, stacks_skipped, skipped_runs) = (15, 1, 2, 3);
    let health = Health {
        received,
        lost,
        stacks_skipped,
        stacks,
        copies,
        skipped_runs,
        cost,
        ..Health::default()
    };
    told.push((secs(152.0), Fact::End(health)));
    told
}
