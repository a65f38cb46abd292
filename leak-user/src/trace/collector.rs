//! Hands what each turn of the event loop brings from one part to the next.

use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};

use crate::clock;
use crate::engine::Engine;
use crate::model::{Event, Fact, IntervalCost, ListedSocket, StackRole, WireState};
use crate::outputs::OutputError;
use crate::sources::elsewhere;
use crate::sources::inventory::{Inventory, InventoryError};
use crate::sources::kernel::decode::Decoded;
use crate::sources::kernel::{Reading, Tracer};
use crate::sources::postgres;
use crate::trace::enrichment::Enrichment;
use crate::trace::feedback;
use crate::trace::health::HealthMeter;
use crate::trace::intake::Intake;
use crate::trace::inventory::{Inventories, Taking, closed_but_held};
use crate::trace::looks::{LookCost, Looks};
use crate::trace::pools::Pools;
use crate::trace::resolver;
use crate::trace::session::Session;
use crate::trace::stack_requests::StackRequests;
use crate::trace::targets::Targets;
use crate::trace::{Ended, TraceError, servers};

/// Events taken at a stretch, so that a storm of them never keeps the clock waiting.
pub(super) const BATCH: usize = 1024;
/// More than fit into the ring buffer of the usual size.
const MAX_BATCHES: usize = 256;

/// The parts of a trace. Each does its work with what it is handed here.
pub(super) struct Collector {
    pub(super) session: Session,
    pub(super) tracer: Tracer,
    pub(super) targets: Targets,
    pub(super) intake: Intake,
    pub(super) stacks: StackRequests,
    pub(super) looks: Looks,
    pub(super) enrichment: Enrichment,
    pub(super) inventories: Inventories,
    pub(super) pools: Pools,
    pub(super) health: HealthMeter,
}

impl Collector {
    /// Lists what exists, and describes the processes that were asked for by PID if they are to be
    /// `met` now: not one that has not executed its program yet.
    ///
    /// A socket is known by its cookie, which a kprobe cannot give it, and one that was opened
    /// before the trace may have none until it is listed.
    pub(super) async fn begin(&mut self, met: bool) -> Result<(), TraceError> {
        let roots = if met { self.targets.roots().to_vec() } else { Vec::new() };
        for process in roots {
            self.enrichment.meet(process, None, &mut self.stacks, &mut self.session)?;
        }
        let first = self.start_inventory().await?;
        self.take_inventory(first)?;
        self.tracer.begin();
        Ok(())
    }

    /// Says once which connections look like PostgreSQL's and are not traced.
    pub(super) async fn tell_elsewhere(&mut self, ports: Vec<u16>) {
        /// Most lines.
        const MOST: usize = 5;
        let scope = self.targets.scope(|| self.tracer.pids());
        match spawn_blocking(move || elsewhere::look(&ports, &scope)).await {
            Ok(Ok(found)) => found
                .iter()
                .filter(|one| self.targets.wants(one.process, ""))
                .take(MOST)
                .for_each(|one| log::warn!("not traced: {one}")),
            Ok(Err(error)) => log::debug!("other ports cannot be looked at: {error}"),
            Err(error) => log::debug!("other ports were not looked at: {error}"),
        }
    }

    /// Twice a second. Returns whether a traced process still lives.
    pub(super) fn look_alive(&mut self) -> bool {
        let now = clock::now();
        self.session.alive(now);
        self.tracer.sample_cost(now);
        self.stacks.replace_stuck();
        self.targets.anyone_left(|| self.tracer.pids())
    }

    /// Takes up to one [`BATCH`] of events. Returns how many there were.
    pub(super) fn take_events(&mut self) -> Result<usize, OutputError> {
        let (count, decoded) = self.intake.events(&mut self.tracer, BATCH);
        for decoded in decoded {
            self.take_event(decoded)?;
        }
        self.session.flush()?;
        Ok(count)
    }

    /// Takes all events that have come. What comes meanwhile may have to wait: a storm never ends.
    fn take_all_events(&mut self) -> Result<(), OutputError> {
        for _ in 0..MAX_BATCHES {
            if self.take_events()? < BATCH {
                break;
            }
        }
        Ok(())
    }

    fn take_event(&mut self, Decoded { event, stack }: Decoded) -> Result<(), OutputError> {
        if !is_wanted(&event, &mut self.targets, self.session.engine()) {
            return Ok(());
        }
        if let Event::Opened { id, at, caller, .. } = &event {
            let comm = Some(caller.comm.as_str());
            self.enrichment.meet(caller.process, comm, &mut self.stacks, &mut self.session)?;
            if let Some(stack) = stack {
                self.stacks.request(*id, StackRole::OpenedBy, *at, stack);
            }
        }
        self.session.tell(clock::now(), &Fact::Event(event))
    }

    /// Takes the counters of every connection. Returns the connections that are closed but not
    /// destroyed, which sock_diag does not list.
    fn take_counters(&mut self, reading: Reading) -> Result<Vec<ListedSocket>, OutputError> {
        let Reading { mut unchanged, changed } = reading;
        let now = clock::now();
        let mut changed_ids = Vec::new();
        for event in self.intake.counters(changed) {
            if !is_wanted(&event, &mut self.targets, self.session.engine()) {
                continue;
            }
            if let Event::Used { id, usage } = &event {
                changed_ids.push(*id);
                let (process, comm) = (usage.opener.process, Some(usage.opener.comm.as_str()));
                self.enrichment.meet(process, comm, &mut self.stacks, &mut self.session)?;
            }
            self.session.tell(now, &Fact::Event(event))?;
        }
        let engine = self.session.engine();
        feedback::keep_known(engine, &mut self.tracer, &mut unchanged);
        let known = changed_ids.iter().chain(&unchanged).filter_map(|&id| engine.table().get(id));
        let undestroyed = known.filter_map(|known| closed_but_held(engine, known)).collect();
        if !unchanged.is_empty() {
            self.session.tell(now, &Fact::Event(Event::Unchanged { ids: unchanged }))?;
        }
        Ok(undestroyed)
    }

    /// Begins to list what exists.
    pub(super) fn start_inventory(&self) -> Taking {
        let scope = self.targets.scope(|| self.tracer.pids());
        self.inventories.start(scope, self.session.engine())
    }

    /// Corrects the table by what exists, and requests the stacks of what has fallen silent.
    pub(super) fn take_inventory(
        &mut self,
        inventory: Result<Inventory, InventoryError>,
    ) -> Result<(), OutputError> {
        let begun = clock::thread_cpu_time();
        let counters = self.tracer.connections();
        let (connections, read) = (counters.count(), clock::thread_cpu_time());
        // Whatever ended until now is told before the counters and the list say that it is gone.
        self.take_all_events()?;
        let undestroyed = self.take_counters(counters)?;
        let stacks = self.stacks.take_times();
        let LookCost { threads, took } = self.looks.take_cost();
        let mut cost = IntervalCost {
            connections,
            stacks,
            looked_at: threads,
            looks: took,
            ..IntervalCost::default()
        };
        match inventory {
            Ok(mut inventory) => {
                self.inventories.warn_of_gaps(&inventory, self.tracer.counters().table_full);
                cost.listed = Some(inventory.sockets.len());
                (cost.list, cost.holders) = (Some(inventory.listing), Some(inventory.holding));
                self.pools.set_inodes(std::mem::take(&mut inventory.by_inode));
                inventory.sockets.extend(undestroyed);
                self.keep_wanted(&mut inventory.sockets)?;
                self.session.tell(clock::now(), &Fact::Event(inventory.into_event()))?;
            }
            Err(error) => log::warn!("the connections that exist cannot be listed: {error}"),
        }
        cost.read = Some(read.saturating_sub(begun));
        cost.taken_in = Some(clock::thread_cpu_time().saturating_sub(read));
        self.session.interval_cost(clock::now(), &cost)?;
        self.enrichment.name_addresses(self.session.engine());
        self.find_senders();
        self.stacks.read_pools(feedback::processes_with_pools(self.session.engine()));
        self.stacks.read_states(feedback::states_to_read(self.session.engine(), clock::now()));
        let wanted = feedback::stacks_to_fetch(self.session.engine(), clock::now());
        self.stacks.fetch(wanted, &self.tracer, &mut self.session)?;
        self.looks.begin(self.session.engine(), clock::now(), &mut self.stacks);
        Ok(())
    }

    /// Leaves out sockets that only processes of other names hold.
    fn keep_wanted(&mut self, sockets: &mut Vec<ListedSocket>) -> Result<(), OutputError> {
        for holder in sockets.iter().flat_map(|socket| &socket.held_by) {
            self.enrichment.meet(*holder, None, &mut self.stacks, &mut self.session)?;
        }
        let (table, targets) = (self.session.engine().table(), &mut self.targets);
        sockets.retain(|socket| {
            table.get(socket.id).is_some()
                || socket.held_by.iter().any(|&holder| targets.wants(holder, ""))
        });
        Ok(())
    }

    /// Takes an answer of the resolver: a stack, and how to copy its process's stacks.
    pub(super) fn take_stack(
        &mut self,
        answer: Option<resolver::Answer>,
    ) -> Result<(), TraceError> {
        let answer = answer.ok_or(TraceError::Resolver)?;
        let learnt = self.stacks.take(answer, self.session.engine());
        if let Some(pools) = learnt.pools {
            let table = self.session.engine().table();
            let is_wanted =
                |id| table.get(id).is_some_and(|one| one.dialogue() == WireState::Unknown);
            let states = self.pools.sessions_event(learnt.process, &pools, is_wanted);
            let event = self.pools.event(learnt.process, pools);
            self.session.tell(clock::now(), &Fact::Event(event))?;
            if let Some(states) = states {
                self.session.tell(clock::now(), &Fact::Event(states))?;
            }
        }
        if let Some(states) = learnt.states {
            let event = self.pools.states_event(learnt.process, states);
            self.session.tell(clock::now(), &Fact::Event(event))?;
        }
        if let Some(profile) = learnt.profile {
            feedback::set_profile(&mut self.tracer, learnt.process, profile);
        }
        if let Some(wanted) = learnt.too_short {
            feedback::copy_more(&mut self.tracer, learnt.process, wanted);
        }
        let mut facts = learnt.facts;
        if let Some(looked) = learnt.threads {
            facts.extend(self.looks.take(learnt.process, looked, self.session.engine()));
        }
        for fact in facts {
            self.session.tell(clock::now(), &fact)?;
        }
        Ok(())
    }

    /// Takes a PostgreSQL server's answer.
    pub(super) fn take_sessions(
        &mut self,
        answer: postgres::PollAnswer,
    ) -> Result<(), OutputError> {
        servers::take(answer, &mut self.session)?;
        self.find_senders();
        Ok(())
    }

    /// Looks for the code of statements that servers show and nobody was seen to send.
    fn find_senders(&mut self) {
        self.stacks.find_senders(feedback::statements_to_find(self.session.engine()));
    }

    /// Takes the names that Kubernetes has changed.
    pub(super) fn take_names(&mut self) -> Result<(), OutputError> {
        let renamed = self.enrichment.renamed(self.session.engine());
        renamed.iter().try_for_each(|fact| self.session.tell(clock::now(), fact))
    }

    /// Lets the resolver answer all requests, but for no longer than `patience`.
    pub(super) async fn settle_stacks(&mut self, patience: Duration) -> Result<(), TraceError> {
        let deadline = Instant::now() + patience;
        while !self.stacks.are_answered() {
            tokio::select! {
                answer = self.stacks.answer() => self.take_stack(answer)?,
                () = sleep_until(deadline) => break,
            }
        }
        Ok(())
    }

    /// Has the table judged, and what has changed shown.
    pub(super) fn judge(&mut self) -> Result<(), OutputError> {
        self.look_for_exits()?;
        let health = self.health.read(&self.tracer, &self.intake, &self.stacks);
        self.session.tell(clock::now(), &Fact::Judge(health))
    }

    /// Takes a last look at everything, judges, and reports. `taking` is an inventory under way.
    pub(super) async fn finish(
        mut self,
        taking: Option<Taking>,
        mut servers: postgres::SessionPoller,
        patience: Duration,
    ) -> Result<Ended, TraceError> {
        servers.ask();
        if let Some(taking) = taking {
            // It looked too early for the last judgement, but it may hold what the kernel is about
            // to forget.
            self.take_inventory(taking.await?)?;
        }
        self.take_all_events()?;
        let last = self.start_inventory().await?;
        self.take_inventory(last)?;
        servers::settle(&mut servers, &mut self.session).await?;
        self.find_senders();
        self.stacks.fetch_uses(&self.tracer, &mut self.session)?;
        self.settle_stacks(patience).await?;
        self.stacks.give_up();
        self.look_for_exits()?;
        let health = self.health.read(&self.tracer, &self.intake, &self.stacks);
        for program in &health.programs {
            if let Some(count) = program.skipped.filter(|&count| count > 0) {
                let name = &program.program;
                log::info!(
                    "the kernel skipped {count} runs of {name}; what they missed is unknown"
                );
            }
        }
        // What waits for a reader is waited for, so that there is room for the report.
        self.session.printed().await?;
        let now = clock::now();
        self.session.tell(now, &Fact::End(health))?;
        self.session.printed().await?;
        let unanswered = servers::unanswered(&servers, self.session.engine());
        Ok(Ended { unanswered, ..self.session.ended(now) })
    }

    /// Tells which processes have exited, and which threads that connections may be bound to.
    fn look_for_exits(&mut self) -> Result<(), OutputError> {
        for process in self.enrichment.look_for_exits(&mut self.session)? {
            feedback::forget_process(&mut self.tracer, &mut self.stacks, process);
        }
        self.targets.prune();
        let now = clock::now();
        let gone: Vec<_> = feedback::threads_to_check(self.session.engine(), now)
            .filter(|&(_, _, (pid, tid))| !crate::sources::procfs::has_thread(pid, tid))
            .map(|(id, request, _)| Fact::Event(Event::UserGone { id, request }))
            .collect();
        gone.iter().try_for_each(|fact| self.session.tell(clock::now(), fact))
    }
}

/// Whether an event is about a process that was asked for. Events that do not say whose connection
/// they are about are wanted if the connection is known.
fn is_wanted(event: &Event, targets: &mut Targets, engine: &Engine) -> bool {
    match event {
        Event::Opened { caller, .. } => targets.wants(caller.process, &caller.comm),
        Event::Closed { usage, .. } | Event::Used { usage, .. } => {
            targets.wants(usage.opener.process, &usage.opener.comm)
        }
        Event::Established { id, .. } | Event::Failed { id, .. } => {
            engine.table().get(*id).is_some()
        }
        Event::Unchanged { .. }
        | Event::Inventory { .. }
        | Event::Uses { .. }
        | Event::StackResolved { .. }
        | Event::ServerSessions { .. }
        | Event::PoolsRead { .. }
        | Event::StatesRead { .. }
        | Event::UserGone { .. }
        | Event::Waiting { .. }
        | Event::UserSeen { .. } => true,
    }
}
