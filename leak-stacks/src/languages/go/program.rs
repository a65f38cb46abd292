//! A running program in Go, read from outside: its functions, its memory, its goroutines.

use std::rc::Rc;

use crate::bytes::{u32_at, u64_at};
use crate::languages::go::binary::{GoBinary, MAX_GOROUTINE};
use crate::languages::go::descriptor::{self, Descriptor, creation_offset};
use crate::process::ProcessKey;
use crate::process::memory::Memory;
use crate::process::stat::Stat;
use crate::raw::{GOROUTINE_WINDOW, GOROUTINE_WINDOW_START, PRESERVED_REGISTERS, RawStack};
use crate::time::Timestamp;

/// Longest stack of a goroutine that is copied.
const MAX_STACK: u64 = 256 << 10;
/// Longest list of goroutines, those that have ended included: their places are used again.
const MAX_LIST: u64 = 4 << 20;
/// How often a list is read that changes meanwhile.
const ATTEMPTS: u32 = 3;

/// What a goroutine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoroutineState {
    /// It waits for a processor.
    Runnable,
    /// It runs, or its stack is being moved.
    Running,
    /// It is in a system call.
    Syscall,
    /// It is parked: it waits for a channel, a lock, a timer, the network.
    Waiting,
}

/// A goroutine as it was at one moment.
#[derive(Clone, Debug)]
pub struct Goroutine {
    /// Its number, as Go's own stack dumps show it.
    pub id: u64,
    /// What it does.
    pub state: GoroutineState,
    /// Why it is parked: the number in its release's list of reasons.
    pub wait_reason: u8,
    /// It has been parked since then or for longer; the garbage collector notes that at its next
    /// run, so it is often unknown.
    pub waiting_since: Option<Timestamp>,
    /// The address behind the `go` statement that started it; `None` when it is not known.
    pub created_at: Option<u64>,
    /// Address of its first function; for a statement with arguments, of a wrapper of it.
    pub starts_at: Option<u64>,
    /// Instruction pointer. This and what follows mean nothing while it runs.
    pub pc: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Frame pointer; 0 when it is not known.
    pub bp: u64,
    /// End of its stack, which grows down from here.
    pub stack_end: u64,
    /// Address of its descriptor, `runtime.g`.
    pub(crate) address: u64,
}

/// The goroutines of a program.
#[derive(Clone, Debug, Default)]
pub struct Goroutines {
    /// Those that were read, in the order of their descriptors' addresses.
    pub all: Vec<Goroutine>,
    /// There are more, but they were too many.
    pub are_cut: bool,
}

/// A running program in Go.
///
/// The process is neither stopped nor changed, so what is read may be in the middle of a change.
/// Whoever reads more than one word has to make sure that they belong together.
#[derive(Debug)]
pub struct GoProgram {
    process: ProcessKey,
    image: u64,
    go: Rc<GoBinary>,
    /// What has to be added to addresses in the file.
    shift: u64,
    memory: Memory,
}

impl GoProgram {
    /// The program that `process` runs, whose executable is loaded `shift` bytes above its own
    /// addresses; `None` when it cannot be read, or runs another program by now.
    pub(crate) fn open(
        process: ProcessKey,
        image: u64,
        go: Rc<GoBinary>,
        shift: u64,
    ) -> Option<Self> {
        let memory = Memory::open(process).ok()?;
        // Checked after opening: what is open stays with the program.
        let is_it = Stat::read(process.pid).is_ok_and(|stat| stat.image == image);
        is_it.then_some(Self { process, image, go, shift, memory })
    }

    /// The process.
    #[must_use]
    pub fn process(&self) -> ProcessKey {
        self.process
    }

    /// Fills `into` with the bytes at `address`.
    #[must_use]
    pub fn read(&self, address: u64, into: &mut [u8]) -> Option<()> {
        self.memory.read(address, into)
    }

    /// Name of the Go function that holds `address`, with its package's path.
    #[must_use]
    pub fn function(&self, address: u64) -> Option<String> {
        self.go.function(address.wrapping_sub(self.shift)).map(|(name, _)| name)
    }

    /// Name of the Go function that begins at `address`.
    #[must_use]
    pub fn function_from(&self, address: u64) -> Option<String> {
        let in_file = address.wrapping_sub(self.shift);
        self.go.function(in_file).filter(|(_, entry)| *entry == in_file).map(|(name, _)| name)
    }

    /// The goroutines, up to `most` of them; `None` when the runtime's list of them cannot be found
    /// or read. Those that have ended are left out.
    #[must_use]
    pub fn goroutines(&self, most: usize) -> Option<Goroutines> {
        let (mut addresses, are_cut) = (0..ATTEMPTS).find_map(|_| self.list(most))?;
        addresses.sort_unstable();
        let mut descriptors = Vec::with_capacity(addresses.len());
        descriptor::read_all(&addresses, |at, into| self.memory.read(at, into), &mut descriptors);
        let id_offset = self.go.goroutine_offset()?;
        let begins = |at: u64| self.go.is_function(at.wrapping_sub(self.shift));
        let live = descriptors.iter().filter(|one| one.state(id_offset).is_some());
        let creation = creation_offset(live, begins);
        let (mut all, mut unlike) = (Vec::new(), 0);
        for one in &descriptors {
            let Some(state) = one.state(id_offset) else { continue };
            match self.goroutine(one, state, id_offset, creation) {
                Some(goroutine) => all.push(goroutine),
                None => unlike += 1,
            }
        }
        // A few may be changing; where many are no goroutines, the layout is another one.
        (all.len() > unlike).then_some(Goroutines { all, are_cut })
    }

    /// The stack of a goroutine that does not run, whole, as the resolver takes it; `None` when it
    /// has run meanwhile.
    #[must_use]
    pub fn stack(&self, goroutine: &Goroutine) -> Option<RawStack> {
        if goroutine.state == GoroutineState::Running {
            return None;
        }
        let length = goroutine.stack_end.checked_sub(goroutine.sp)?.min(MAX_STACK);
        let bytes = self.memory.bytes(goroutine.sp, usize::try_from(length).ok()?)?;
        let now = self.again(goroutine)?;
        let is_same = (now.id, now.state, now.pc, now.sp, now.stack_end)
            == (goroutine.id, goroutine.state, goroutine.pc, goroutine.sp, goroutine.stack_end);
        let window = goroutine.address.checked_add(GOROUTINE_WINDOW_START as u64)?;
        is_same.then_some(RawStack {
            process: self.process,
            tid: 0,
            image: self.image,
            ip: goroutine.pc,
            sp: goroutine.sp,
            bp: goroutine.bp,
            preserved: [0; PRESERVED_REGISTERS],
            registers_known: true,
            entry: None,
            wanted: u32::try_from(MAX_STACK).unwrap_or(u32::MAX),
            wanted_most: true,
            goroutine_window: self.memory.bytes(window, GOROUTINE_WINDOW)?,
            interpreter_frames: Vec::new(),
            interpreter_whole: false,
            interpreter_tag: 0,
            bytes,
        })
    }

    /// The same goroutine as it is now; `None` when it has ended.
    #[must_use]
    pub fn again(&self, goroutine: &Goroutine) -> Option<Goroutine> {
        let one = Descriptor::read(goroutine.address, |at, into| self.memory.read(at, into))?;
        let id_offset = self.go.goroutine_offset()?;
        let now = self.goroutine(&one, one.state(id_offset)?, id_offset, None)?;
        let Goroutine { created_at, starts_at, .. } = *goroutine;
        (now.id == goroutine.id).then_some(Goroutine { created_at, starts_at, ..now })
    }

    /// Addresses of the descriptors, and whether there are more.
    fn list(&self, most: usize) -> Option<(Vec<u64>, bool)> {
        let list = self.go.goroutine_list()?.wrapping_add(self.shift);
        let read = || {
            let words = self.memory.bytes(list, 24)?;
            Some((u64_at(&words, 0)?, u64_at(&words, 8)?, u64_at(&words, 16)?))
        };
        let (first, length, capacity) = read()?;
        if first % 8 != 0 || length == 0 || length > capacity || length > MAX_LIST {
            return None;
        }
        let taken = length.min(most as u64);
        let bytes = self.memory.bytes(first, usize::try_from(taken.checked_mul(8)?).ok()?)?;
        // Until the runtime moves the list to another place, what was read is it.
        let is_same = read()?.0 == first;
        let addresses = bytes.chunks_exact(8).filter_map(|word| u64_at(word, 0)).collect();
        is_same.then_some((addresses, taken < length))
    }

    fn goroutine(
        &self,
        one: &Descriptor,
        state: GoroutineState,
        id_offset: usize,
        creation: Option<usize>,
    ) -> Option<Goroutine> {
        let (bytes, address) = (&one.bytes[..], one.address);
        let word = |offset| u64_at(bytes, offset);
        let id = word(id_offset).filter(|id| (1..MAX_GOROUTINE).contains(id))?;
        let (stack, stack_end) = (word(0)?, word(8)?);
        let (sp, pc) = (word(descriptor::SP)?, word(descriptor::PC)?);
        let is_on_stack = |at: u64| at >= sp && at < stack_end && at.is_multiple_of(8);
        let is_whole = stack < stack_end
            && word(descriptor::ITSELF)? == address
            && (state == GoroutineState::Running
                || (sp > stack
                    && is_on_stack(sp)
                    && self.go.has_code_at(pc.wrapping_sub(self.shift))));
        let waiting_since = word(id_offset + descriptor::SINCE)?;
        let frame_pointers = descriptor::FRAME_POINTERS.iter().filter_map(|&offset| word(offset));
        is_whole.then(|| Goroutine {
            id,
            state,
            wait_reason: bytes.get(id_offset + descriptor::REASON).copied().unwrap_or_default(),
            waiting_since: (state == GoroutineState::Waiting && waiting_since != 0)
                .then_some(Timestamp(waiting_since)),
            created_at: creation.and_then(word).filter(|at| *at != 0),
            starts_at: creation.and_then(|offset| word(offset + descriptor::START)),
            pc,
            sp,
            bp: frame_pointers.into_iter().find(|at| is_on_stack(*at)).unwrap_or(0),
            stack_end,
            address,
        })
    }
}

impl Descriptor {
    /// What the goroutine does; `None` when it has ended or there is no such state. The states are
    /// those of `src/runtime/runtime2.go`; the garbage collector's mark is left out.
    fn state(&self, id_offset: usize) -> Option<GoroutineState> {
        const MARK: u32 = 0x1000;
        match u32_at(&self.bytes, id_offset.checked_sub(descriptor::STATE)?)? & !MARK {
            1 | 9 => Some(GoroutineState::Runnable),
            2 | 8 => Some(GoroutineState::Running),
            3 => Some(GoroutineState::Syscall),
            // The tenth, since Go 1.26: nobody can wake it any more.
            4 | 10 => Some(GoroutineState::Waiting),
            _ => None,
        }
    }
}
