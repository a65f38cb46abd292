//! Loads and attaches the kernel programs, and reads their maps.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};

use aya::maps::{Array, HashMap as BpfHashMap, MapData, PerCpuArray, RingBuf, Stack};
use aya::{Btf, Ebpf};
use leak_common::connection::Uses;
use leak_common::event::{counter, kind};
use leak_common::interpreter::NONE;
use leak_common::stack::{ANY_PROCESS, MAX_STACK, StackHeader, StackProfile};

use crate::model::{ConnectionId, ProgramHealth, Sample, Timestamp};
use crate::sources::kernel::attach;
use crate::sources::kernel::attach::HookOutcome;
use crate::sources::kernel::btf;
use crate::sources::kernel::error::KernelError;
use crate::sources::kernel::hooks::Purpose;
use crate::sources::kernel::load::{load, mapped};
use crate::sources::kernel::mapped_slots::MappedSlots;
use crate::sources::kernel::obstacles;
use crate::sources::kernel::plain::MapValue;
use crate::sources::kernel::profile::for_kernel;
use crate::sources::kernel::records::Records;
use crate::sources::kernel::sampler::Sampler;
use crate::sources::kernel::settings::TracerSettings;
use crate::sources::kernel::slots::{Reading, Slots};
use crate::sources::kernel::statistics;

/// How far beyond the highest used slot to read: [`counter::SLOTS_USED`] may lag behind.
const SLACK: usize = 64;

/// Attempts to read a slot that is being written.
const ATTEMPTS: u32 = 8;

/// What the kernel programs have counted since they were loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Events sent, by kind.
    pub sent: [u64; kind::COUNT],
    /// Events lost because the ring buffer was full, by kind.
    pub lost: [u64; kind::COUNT],
    /// Connections not traced because the table was full.
    pub table_full: u64,
    /// Stacks copied.
    pub stacks_copied: u64,
    /// Stacks not copied because the time budget was used up.
    pub stacks_over_budget: u64,
    /// Stacks not copied because the flight recorder was full or could not get more memory.
    pub stacks_no_slot: u64,
    /// Stacks that could not be read at all.
    pub stacks_unreadable: u64,
    /// Sends and receives that could not be followed.
    pub unseen_calls: u64,
}

/// The attached kernel programs. Dropping it detaches them.
pub struct Tracer {
    ebpf: Ebpf,
    outcomes: Vec<HookOutcome>,
    ring: RingBuf<MapData>,
    counters: PerCpuArray<MapData, u64>,
    /// [`Counters::unseen_calls`] before [`Tracer::begin`].
    unseen_before: u64,
    slots: Slots,
    records: Records,
    /// `None` unless uses are kept.
    uses: Option<MappedSlots<Uses>>,
    pids: BpfHashMap<MapData, u32, u32>,
    profiles: BpfHashMap<MapData, u32, MapValue<StackProfile>>,
    sampler: Sampler,
}

impl Tracer {
    /// Loads the programs and attaches the best hook for each purpose.
    ///
    /// # Errors
    ///
    /// When this kernel or these privileges cannot run the main job; the error says what to do.
    pub fn start(settings: &TracerSettings) -> Result<Self, KernelError> {
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
        let records = Records::new(settings.uses, |name| take(&mut ebpf, name))?;
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

    /// For each purpose, the hook that was attached and those that were refused.
    #[must_use]
    pub fn outcomes(&self) -> &[HookOutcome] {
        &self.outcomes
    }

    /// Checks that every purpose that the main job needs has a hook.
    ///
    /// # Errors
    ///
    /// Names the first purpose without one, and why the kernel refused its hooks.
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
        let chosen = |o: &HookOutcome| Some((o.purpose.name().into(), o.chosen?.label.into()));
        self.outcomes.iter().filter_map(chosen).collect()
    }

    /// The programs' debug log, if it is on. The caller polls it and flushes it when readable.
    pub fn debug_log(&mut self) -> Option<aya_log::EbpfLogger<&'static dyn log::Log>> {
        match aya_log::EbpfLogger::init(&mut self.ebpf) {
            Ok(logger) => Some(logger),
            Err(error) => {
                log::warn!("the kernel programs' debug log cannot be read: {error}");
                None
            }
        }
    }

    /// Readable when there are events.
    #[must_use]
    pub fn ring_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }

    /// Passes at most `limit` events to `receive`, oldest first, and returns how many there were.
    pub fn drain(&mut self, limit: usize, mut receive: impl FnMut(&[u8])) -> usize {
        let mut count = 0;
        while count < limit {
            let Some(event) = self.ring.next() else { break };
            receive(&event);
            count += 1;
        }
        count
    }

    /// Reads the live connections.
    pub fn connections(&mut self) -> Reading {
        let used = self.per_cpu(counter::SLOTS_USED).into_iter().max().unwrap_or(0);
        let end = usize::try_from(used).unwrap_or(usize::MAX).saturating_add(SLACK);
        let uses = self.uses.as_mut().map_or(Ok(()), |uses| uses.reach(end));
        if let Err(error) = self.slots.reach(end).and(uses) {
            log::warn!("not all of the {used} connections can be read: {error}");
        }
        self.slots.read()
    }

    /// Marks a connection dirty: the next reading lists it as changed.
    pub fn forget_connection(&mut self, id: ConnectionId) {
        self.slots.forget(id);
    }

    /// A connection's latest uses, as many as are kept.
    #[must_use]
    pub fn uses(&self, id: ConnectionId) -> Option<Uses> {
        let (uses, place) = (self.uses.as_ref()?, self.slots.place(id)?);
        (0..ATTEMPTS).find_map(|_| uses.snapshot(place)).filter(|uses| uses.cookie == id.0)
    }

    /// The stack that the flight recorder has for this request of a connection; `None` when there
    /// is none or the kernel is busy writing it.
    #[must_use]
    pub fn recorded_stack(&self, id: ConnectionId, request: u64) -> Option<(StackHeader, Vec<u8>)> {
        self.records.stack(self.slots.place(id)?, id, request)
    }

    /// Counts calls that cannot be followed as losses from now on. Call this once every socket has
    /// been listed: until then kprobes cannot tell sockets opened before the trace from others.
    pub fn begin(&mut self) {
        self.unseen_before = self.sum(counter::UNSEEN_CALLS);
    }

    /// The counters, summed over all processors.
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

    /// The runs of each program, as far as the kernel counts them.
    #[must_use]
    pub fn programs(&self) -> Vec<ProgramHealth> {
        statistics::programs(&self.ebpf)
    }

    /// Turns the kernel's run-time statistics on and off, to sample the programs' cost. Call this
    /// about twice a second.
    pub fn sample_cost(&mut self, now: Timestamp) {
        self.sampler.tick(&self.ebpf, now);
    }

    /// The sampled cost of the programs; `None` where the kernel does not count it.
    #[must_use]
    pub fn cost(&self, now: Timestamp) -> Option<Sample> {
        self.sampler.sample(&self.ebpf, now)
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

    /// Starts tracing a process.
    pub fn add_pid(&mut self, pid: u32) {
        if let Err(error) = self.pids.insert(pid, 1, 0) {
            log::warn!("process {pid} cannot be traced: {error}");
        }
    }

    /// The traced processes, if only some are: those given, and with children what they forked.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.pids.keys().filter_map(Result::ok).collect()
    }

    /// Forgets a process that has exited: its PID may be reused.
    pub fn forget_process(&mut self, pid: u32) {
        // It is fine if there was nothing to remove.
        let _ = self.pids.remove(&pid);
        let _ = self.profiles.remove(&pid);
    }

    /// Tells the programs what was learnt about a process. Fields of `profile` that are zero keep
    /// their value. Its interpreter is also tried in processes without a profile.
    pub fn set_profile(&mut self, pid: u32, profile: leak_stacks::StackProfile) {
        let profile = for_kernel(profile);
        self.merge_profile(pid, profile);
        let interpreter = profile.interpreter;
        if interpreter.kind != NONE {
            let profile = StackProfile { interpreter, ..StackProfile::default() };
            self.merge_profile(ANY_PROCESS, profile);
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
        if profile.interpreter.kind != NONE {
            known.interpreter = profile.interpreter;
        }
        if known != before
            && let Err(error) = self.profiles.insert(pid, MapValue(known), 0)
        {
            log::debug!("the profile of process {pid} cannot be updated: {error}");
        }
    }

    /// Sets how many bytes to copy of the process's stacks, up to the maximum.
    pub fn set_stack_bytes(&mut self, pid: u32, bytes: u32) {
        self.merge_profile(pid, StackProfile { stack_bytes: bytes, ..StackProfile::default() });
    }
}
