//! The kernel programs at work: loaded, attached, read.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};

use aya::maps::{Array, HashMap as BpfHashMap, MapData, PerCpuArray, RingBuf, Stack};
use aya::{Btf, Ebpf};
use leak_common::connection::Uses;
use leak_common::event::{counter, kind};
use leak_common::stack::{ANY_PROCESS, MAX_STACK, StackHeader, StackProfile};

use crate::error::KernelError;
use crate::model::cost::Sample;
use crate::model::{ConnectionId, Timestamp};
use crate::sources::kernel::attach;
use crate::sources::kernel::attach::Outcome;
use crate::sources::kernel::btf;
use crate::sources::kernel::hooks::{Flavour, Purpose};
use crate::sources::kernel::load::{Value, load, mapped};
use crate::sources::kernel::mapped::MappedArray;
use crate::sources::kernel::obstacles;
use crate::sources::kernel::profile::for_kernel;
use crate::sources::kernel::records::Records;
use crate::sources::kernel::sampler::Sampler;
use crate::sources::kernel::slots::{Reading, Slots};
use crate::sources::kernel::statistics;
use crate::sources::kernel::statistics::ProgramRuns;

/// Slots beyond the highest one known to be used that are read all the same: see
/// [`counter::SLOTS_USED`].
const SLACK: usize = 64;

/// How often what is being written is read again.
const ATTEMPTS: u32 = 8;

/// What the kernel programs are told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Server ports, at least one.
    pub ports: Vec<u16>,
    /// Processes to trace; `None`: all.
    pub pids: Option<Vec<u32>>,
    /// Trace what traced processes fork.
    pub children: bool,
    /// Bytes of the ring buffer.
    pub ring_bytes: u32,
    /// Connections that can be traced at once.
    pub max_connections: u32,
    /// Connections whose latest request's stack is kept; half as many long ones.
    pub max_records: u32,
    /// How many uses of each connection are kept, each with a stack of its own.
    pub uses: u32,
    /// Bytes of stack copied at first.
    pub stack_bytes: u32,
    /// Nanoseconds a second that may be spent on copying stacks.
    pub stack_budget_ns: u64,
    /// Throw away one event in this many; 0: none. For tests.
    pub drop_one_in: u32,
    /// Use only hooks of this flavour where there is a choice. For tests.
    pub flavour: Option<Flavour>,
    /// Compile in the kernel programs' debug log.
    pub debug_log: bool,
}

/// What the kernel programs have counted since they were loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Events sent, by kind.
    pub sent: [u64; kind::COUNT],
    /// Events lost for want of room in the ring buffer, by kind.
    pub lost: [u64; kind::COUNT],
    /// Connections not traced because the table was full.
    pub table_full: u64,
    /// Stacks copied.
    pub stacks_copied: u64,
    /// Stacks not copied because the budget was used up.
    pub stacks_over_budget: u64,
    /// Stacks not copied because the flight recorder was full, or there was no memory for more of it.
    pub stacks_no_slot: u64,
    /// Stacks of which nothing could be read.
    pub stacks_unreadable: u64,
    /// Calls that sent or received something and could not be followed.
    pub unseen_calls: u64,
}

/// The attached kernel programs. Dropping it detaches them.
pub struct Tracer {
    ebpf: Ebpf,
    outcomes: Vec<Outcome>,
    ring: RingBuf<MapData>,
    counters: PerCpuArray<MapData, u64>,
    /// Calls that could not be followed before [`Tracer::begin`].
    unseen_before: u64,
    slots: Slots,
    records: Records,
    /// When uses are kept.
    uses: Option<MappedArray<Uses>>,
    pids: BpfHashMap<MapData, u32, u32>,
    profiles: BpfHashMap<MapData, u32, Value<StackProfile>>,
    sampler: Sampler,
}

impl Tracer {
    /// Loads the programs and attaches the best hook for each purpose.
    ///
    /// # Errors
    ///
    /// When this kernel or these privileges cannot run the main job; the error says what to do.
    pub fn start(settings: &Settings) -> Result<Self, KernelError> {
        let types = btf::read_kernel()?;
        let types = btf::Btf::parse(&types)?;
        let layout = types.layout()?;
        let mut ebpf = load(settings, &layout)?;

        let take = |ebpf: &mut Ebpf, name: &'static str| {
            ebpf.take_map(name).ok_or(KernelError::MissingMap { name })
        };
        let ring = RingBuf::try_from(take(&mut ebpf, "EVENTS")?)?;
        let counters = PerCpuArray::try_from(take(&mut ebpf, "COUNTERS")?)?;
        let mut pids = BpfHashMap::try_from(take(&mut ebpf, "PIDS")?)?;
        let profiles = BpfHashMap::try_from(take(&mut ebpf, "PROFILES")?)?;
        let slots = Slots::new(
            mapped(&mut ebpf, "CONNECTIONS", settings.max_connections)?,
            Array::try_from(take(&mut ebpf, "FIRST_BYTES")?)?,
        );
        let records = Records::new(settings.uses + 1, |name| take(&mut ebpf, name))?;
        let uses = (settings.uses > 0)
            .then(|| mapped(&mut ebpf, "USES", settings.max_connections))
            .transpose()?;
        let mut free: Stack<_, u32> = Stack::try_from(take(&mut ebpf, "FREE_SLOTS")?)?;
        for slot in (0..settings.max_connections).rev() {
            free.push(slot, 0)?;
        }
        for &pid in settings.pids.iter().flatten() {
            pids.insert(pid, 1, 0)?;
        }

        let types_for_aya = Btf::from_sys_fs().map_err(KernelError::Btf)?;
        let purposes: Vec<_> = Purpose::ALL
            .into_iter()
            .filter(|&purpose| settings.children || purpose != Purpose::Children)
            .collect();
        let outcomes =
            attach::attach(&mut ebpf, &types_for_aya, &types, &purposes, settings.flavour);
        Ok(Self {
            ebpf,
            outcomes,
            ring,
            counters,
            unseen_before: 0,
            slots,
            records,
            uses,
            pids,
            profiles,
            sampler: Sampler::default(),
        })
    }

    /// How each purpose fared.
    #[must_use]
    pub fn outcomes(&self) -> &[Outcome] {
        &self.outcomes
    }

    /// Checks that every purpose that the main job needs has a hook.
    ///
    /// # Errors
    ///
    /// Names the first purpose without one and what the kernel said.
    pub fn require_main_job(&self) -> Result<(), KernelError> {
        for outcome in &self.outcomes {
            if outcome.chosen.is_none() && outcome.purpose.is_needed() {
                return Err(KernelError::NoHook {
                    purpose: outcome.purpose,
                    said: outcome.refused.clone(),
                    in_the_way: obstacles::in_the_way(),
                });
            }
        }
        Ok(())
    }

    /// The attached hook of each purpose.
    #[must_use]
    pub fn hooks(&self) -> BTreeMap<String, String> {
        let chosen = |o: &Outcome| Some((o.purpose.name().into(), o.chosen?.label.into()));
        self.outcomes.iter().filter_map(chosen).collect()
    }

    /// The programs' debug log, if it was compiled in: to be polled for readiness and flushed.
    pub fn debug_log(&mut self) -> Option<aya_log::EbpfLogger<&'static dyn log::Log>> {
        match aya_log::EbpfLogger::init(&mut self.ebpf) {
            Ok(logger) => Some(logger),
            Err(error) => {
                log::warn!("the kernel programs' debug log cannot be read: {error}");
                None
            }
        }
    }

    /// Becomes readable when there are events.
    #[must_use]
    pub fn ring_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }

    /// Hands over the events that have come, at most `limit`, oldest first, and says how many.
    pub fn drain(&mut self, limit: usize, mut receive: impl FnMut(&[u8])) -> usize {
        let mut count = 0;
        while count < limit {
            let Some(event) = self.ring.next() else { break };
            receive(&event);
            count += 1;
        }
        count
    }

    /// The live connections.
    pub fn connections(&mut self) -> Reading {
        let used = self.per_cpu(counter::SLOTS_USED).into_iter().max().unwrap_or(0);
        let end = usize::try_from(used).unwrap_or(usize::MAX).saturating_add(SLACK);
        let uses = self.uses.as_mut().map_or(Ok(()), |uses| uses.reach(end));
        if let Err(error) = self.slots.reach(end).and(uses) {
            log::warn!("of {used} connections only the first can be read: {error}");
        }
        self.slots.read()
    }

    /// Has a connection count as changed when they are next read.
    pub fn forget_connection(&mut self, id: ConnectionId) {
        self.slots.forget(id);
    }

    /// A connection's latest uses, as far as they are kept.
    #[must_use]
    pub fn uses(&self, id: ConnectionId) -> Option<Uses> {
        let (uses, place) = (self.uses.as_ref()?, self.slots.place(id)?);
        (0..ATTEMPTS).find_map(|_| uses.uses(place)).filter(|uses| uses.cookie == id.0)
    }

    /// The flight recorder's stack of this request of a connection; `None` when it has none or the
    /// kernel keeps writing it.
    #[must_use]
    pub fn recorded_stack(&self, id: ConnectionId, request: u64) -> Option<(StackHeader, Vec<u8>)> {
        self.records.stack(self.slots.place(id)?, id, request)
    }

    /// What is missed from now on is a loss. To be called once every socket has been listed: until then
    /// kprobes cannot tell one that was opened before from others.
    pub fn begin(&mut self) {
        self.unseen_before = self.sum(counter::UNSEEN_CALLS);
    }

    /// What was counted so far, over all processors.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let by_kind = |first: u32| {
            let mut values = [0; kind::COUNT];
            for (value, index) in values.iter_mut().zip(first..) {
                *value = self.sum(index);
            }
            values
        };
        Counters {
            sent: by_kind(counter::SENT),
            lost: by_kind(counter::LOST),
            table_full: self.sum(counter::TABLE_FULL),
            stacks_copied: self.sum(counter::STACKS),
            stacks_over_budget: self.sum(counter::STACKS_OVER_BUDGET),
            stacks_no_slot: self.sum(counter::STACKS_NO_SLOT),
            stacks_unreadable: self.sum(counter::STACKS_UNREADABLE),
            unseen_calls: self.sum(counter::UNSEEN_CALLS).saturating_sub(self.unseen_before),
        }
    }

    /// What the programs cost so far, where the kernel counts it.
    #[must_use]
    pub fn program_runs(&self) -> Vec<ProgramRuns> {
        statistics::program_runs(&self.ebpf)
    }

    /// Has the kernel count what the programs cost, for a moment now and then. To be called about
    /// twice a second.
    pub fn sample_cost(&mut self, now: Timestamp) {
        self.sampler.turn(&self.ebpf, now);
    }

    /// What the programs cost while the kernel counted; `None` when it does not tell.
    #[must_use]
    pub fn cost(&self, now: Timestamp) -> Option<Sample> {
        self.sampler.sample(&self.ebpf, now)
    }

    /// How many runs of each program the kernel has skipped, whatever socket they were about.
    #[must_use]
    pub fn skipped_runs(&self) -> Vec<(String, u64)> {
        statistics::skipped_runs(&self.ebpf)
    }

    fn sum(&self, index: u32) -> u64 {
        self.per_cpu(index).into_iter().sum()
    }

    fn per_cpu(&self, index: u32) -> Vec<u64> {
        match self.counters.get(&index, 0) {
            Ok(values) => values.iter().copied().collect(),
            Err(error) => {
                log::warn!("counter {index} of the kernel programs cannot be read: {error}");
                Vec::new()
            }
        }
    }

    /// Traces one more process.
    pub fn add_pid(&mut self, pid: u32) {
        if let Err(error) = self.pids.insert(pid, 1, 0) {
            log::warn!("process {pid} cannot be traced: {error}");
        }
    }

    /// The processes traced, when only some are: those given and what they forked.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.pids.keys().filter_map(Result::ok).collect()
    }

    /// Forgets what was kept of a process that is gone, so that its number can be used again.
    pub fn forget_process(&mut self, pid: u32) {
        // Absent is as good as removed.
        let _ = self.pids.remove(&pid);
        let _ = self.profiles.remove(&pid);
    }

    /// Tells the programs what was learnt about a process. What `profile` leaves open stays as it
    /// was. Its Python is also tried in processes about which nothing is known.
    pub fn set_profile(&mut self, pid: u32, profile: leak_stacks::StackProfile) {
        let profile = for_kernel(profile);
        self.merge_profile(pid, profile);
        if profile.python.present != 0 {
            let python = profile.python;
            self.merge_profile(ANY_PROCESS, StackProfile { python, ..StackProfile::default() });
        }
    }

    fn merge_profile(&mut self, pid: u32, profile: StackProfile) {
        let most = u32::try_from(MAX_STACK).unwrap_or(u32::MAX);
        let mut known = self.profiles.get(&pid, 0).map(|value| value.0).unwrap_or_default();
        let before = known;
        known.stack_bytes = known.stack_bytes.max(profile.stack_bytes.min(most));
        if profile.goroutines != 0 {
            known.goroutines = profile.goroutines;
        }
        if profile.python.present != 0 {
            known.python = profile.python;
        }
        if known != before
            && let Err(error) = self.profiles.insert(pid, Value(known), 0)
        {
            log::debug!("process {pid} keeps its profile: {error}");
        }
    }

    /// From now on copies `bytes` of the process's stacks, as far as the maximum allows.
    pub fn set_stack_bytes(&mut self, pid: u32, bytes: u32) {
        self.merge_profile(pid, StackProfile { stack_bytes: bytes, ..StackProfile::default() });
    }
}
