//! A made-up run for the writers' tests.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::engine::detect::Thresholds;
use crate::engine::detect::testing::judge_again;
use crate::engine::findings::{Change, Ledger};
use crate::engine::senders::Senders;
use crate::engine::snapshot::{RunInfo, Snapshot};
use crate::engine::testing::{APP, World, secs};
use crate::model::time::Clock;
use crate::model::{
    Cost, Health, Pod, ProcessInfo, Sample, StackCopies, StackId, Timestamp, WireState,
};
use leak_stacks::{Frame, Language, Quality, Stack, StackCounts, TruncationReason};

/// A pool that lost connections 1 to 12, one every 10 s, beside one at work.
pub(crate) struct Run {
    pub(crate) world: World,
    pub(crate) ledger: Ledger,
    thresholds: Thresholds,
    stacks: HashMap<StackId, Arc<Stack>>,
    pub(crate) processes: HashMap<crate::model::ProcessKey, ProcessInfo>,
    info: RunInfo,
    pub(crate) health: Health,
    pub(crate) suppressed: Vec<crate::engine::findings::Suppressed>,
    pub(crate) senders: Senders,
    pub(crate) exited: HashSet<crate::model::ProcessKey>,
    pub(crate) destinations: HashMap<std::net::IpAddr, crate::model::Destination>,
}

impl Run {
    pub(crate) fn new() -> Self {
        let mut world = World::new();
        world.open(0, 1.0);
        for number in 1..=12 {
            let at = 10.0 * number as f64;
            world.open(number, at);
            world.request(number, at + 0.1, "leak", WireState::Idle);
            world.request(0, at + 0.2, "work", WireState::Idle);
        }
        let silent_after = Duration::from_secs(60);
        let interval = Duration::from_secs(10);
        let process = ProcessInfo {
            key: APP,
            comm: "shop\x1b[2J".into(),
            exe: Some("/srv/shop".into()),
            container_id: Some("3f4f6c1c0a3f".repeat(5)),
            container_pid: Some(7),
            pod_uid: Some("4a6f8bd5-03bf-4ca4-8d5f-5c1c2a3e7a01".into()),
            pod: Some(Pod {
                namespace: "shop".into(),
                name: "orders-7d9f".into(),
                container: "app".into(),
                labels: BTreeMap::from([("app".into(), "orders".into())]),
            }),
            started_at: Some(SystemTime::UNIX_EPOCH),
            program: None,
        };
        Self {
            world,
            ledger: Ledger::default(),
            thresholds: Thresholds { silent_after, interval, limit: None, fail_on_leak: false },
            stacks: HashMap::from([(StackId::from("leak"), Arc::new(stack()))]),
            processes: HashMap::from([(APP, process)]),
            exited: HashSet::new(),
            destinations: HashMap::new(),
            info: RunInfo {
                version: "0.1.0".into(),
                host: "db-client".into(),
                kernel: "6.18.0".into(),
                hooks: BTreeMap::from([("connect".into(), "tp_btf/inet_sock_set_state".into())]),
                ports: vec![5432],
                started_at: SystemTime::UNIX_EPOCH,
            },
            suppressed: Vec::new(),
            senders: Senders::default(),
            health: Health {
                received: 40,
                lost: 0,
                stacks_skipped: 1,
                stacks: counts(),
                copies: StackCopies { recorded: 99, over_budget: 1, ..StackCopies::default() },
                skipped_runs: 1,
                cost: cost(),
                ..Health::default()
            },
        }
    }

    /// Judges at second `at`.
    pub(crate) fn turn(&mut self, at: f64) -> Vec<Change> {
        let accusations = self.ledger.accusations();
        let verdicts = judge_again(&self.world, &self.stacks, &self.thresholds, &accusations, at);
        self.ledger.update(verdicts, &self.world.table, secs(at))
    }

    pub(crate) fn snapshot(&self, at: f64) -> Snapshot<'_> {
        Snapshot {
            table: &self.world.table,
            ledger: &self.ledger,
            thresholds: &self.thresholds,
            stacks: &self.stacks,
            processes: &self.processes,
            exited: &self.exited,
            destinations: &self.destinations,
            run: &self.info,
            health: &self.health,
            suppressed: &self.suppressed,
            senders: &self.senders,
            now: secs(at),
            ended: true,
            clock: Clock::new(Timestamp(0), SystemTime::UNIX_EPOCH),
        }
    }
}

fn cost() -> Cost {
    let kernel = Sample { busy: Duration::from_micros(500), watched: Duration::from_secs(1) };
    let (lasted, collector) = (Duration::from_secs(60), Duration::from_millis(18));
    Cost { lasted, collector, kernel: Some(kernel) }
}

fn counts() -> StackCounts {
    let mut counts = StackCounts::default();
    for _ in 0..20 {
        counts.add(Quality::Complete, None);
    }
    counts.add(Quality::Truncated, Some(TruncationReason::CopyLimit));
    counts.add(Quality::Truncated, Some(TruncationReason::CopyLimit));
    counts.add(Quality::None, Some(TruncationReason::ProcessGone));
    counts
}

fn stack() -> Stack {
    let frame = |function: &str, file: Option<&str>, line| Frame {
        function: Some(function.into()),
        module: Some("/srv/shop".into()),
        file: file.map(str::to_owned),
        line,
        address: 0x40_1000,
    };
    Stack {
        id: StackId::from("leak"),
        quality: Quality::Complete,
        truncation: None,
        language: Language::Go,
        frames: vec![
            frame("write", None, None),
            frame("app::report", Some("src/report.go"), Some(41)),
            frame("main", Some("src/main.go"), Some(7)),
        ],
        culprit: Some(1),
        callers: Vec::new(),
    }
}
