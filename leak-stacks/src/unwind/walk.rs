//! From registers and stack bytes to return addresses.

use std::cell::Cell;
use std::fs::File;
use std::sync::Arc;

use crate::binary::elf::{Elf, read_exact};
use crate::guarded;
use crate::process::modules::{Mapping, Modules};
use crate::raw::RawStack;
use crate::unwind::cfi::{Cfi, Outward, Places};
use crate::unwind::emulate::{Ended, Surroundings, after_first_call, ends_with_call};
use crate::unwind::processor::{
    FRAME_POINTER, INTERRUPTED, INTERRUPTED_IP, SIGNAL_RETURN, STACK_POINTER,
};
use crate::unwind::registers::Registers;

/// Most calls of one stack that are followed.
pub(crate) const MAX_DEPTH: usize = 512;
/// How much code is read at once.
const CODE: u64 = 4096;
/// Bytes in which the first function of a program makes its only call.
const START: u64 = 64;

/// Section contents that several owners share.
pub(crate) type Bytes = Arc<[u8]>;

/// How a stack walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum End {
    /// At the thread's first function.
    Root,
    /// At a frame without a caller, in code that says nothing about unwinding; the name of the
    /// function decides whether it is the first.
    MaybeRoot,
    /// Above the copied bytes; a longer copy would have shown more.
    CopyTooShort,
    /// At an address outside of the known mappings: code that was loaded later, or no code at all.
    Unmapped,
    /// At something that cannot be followed.
    Lost,
}

/// The addresses of a stack.
#[derive(Debug)]
pub(crate) struct Walk {
    /// For every frame an address inside its current instruction, innermost first: the
    /// instruction pointer of the innermost and of those that a signal interrupted, and return
    /// addresses less one, because a call may be its function's last instruction.
    pub(crate) addresses: Vec<u64>,
    pub(crate) end: End,
}

/// What one step outward led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// To the frame with this return address.
    Caller(u64),
    /// To the frame that a signal interrupted at this address.
    Interrupted(u64),
    /// To the frame that goes on at this address, of which nothing says that a call precedes it.
    Suspended(u64),
    /// There is no caller.
    End(End),
}

/// A binary's unwind rules, in its own address numbering, so that all its processes share them.
#[derive(Debug)]
pub(crate) struct FrameRules {
    /// Both may be there, for different functions.
    sections: Vec<Cfi>,
    /// Where the first function of a program goes on after its call.
    start: Option<u64>,
}

impl FrameRules {
    /// Reads a binary's rules; those that its own file lacks may be in its debug file.
    pub(crate) fn read(elf: &Elf, file: &File, debug: Option<(&Elf, &File)>) -> Self {
        let data = |elf: &Elf, file: &File, name: &str| {
            let data = elf.data(file, elf.section(name)?).ok().filter(|d| !d.is_empty())?;
            Some(Bytes::from(data))
        };
        let address = |name: &str| elf.section(name).map_or(0, |section| section.address);
        let frames = data(elf, file, ".eh_frame").map(|frames| {
            let places = Places {
                frames: address(".eh_frame"),
                table: address(".eh_frame_hdr"),
                text: address(".text"),
                got: address(".got"),
            };
            Cfi::eh_frame(frames, data(elf, file, ".eh_frame_hdr"), places)
        });
        let more = data(elf, file, ".debug_frame")
            .or_else(|| debug.and_then(|(elf, file)| data(elf, file, ".debug_frame")))
            .map(Cfi::debug_frame);
        let start = || {
            let code = code_at(elf, file, elf.entry, START)?;
            after_first_call(elf.entry, &code)
        };
        Self { sections: frames.into_iter().chain(more).collect(), start: start() }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.sections.iter().map(Cfi::bytes).sum()
    }

    /// Whether the binary has any.
    pub(crate) fn is_present(&self) -> bool {
        !self.sections.is_empty()
    }

    /// Whether `address` lies in code to which signal handlers return.
    pub(crate) fn is_signal_return(&self, elf: &Elf, file: &File, address: u64) -> bool {
        self.sections.iter().any(|section| section.is_signal_return(address))
            || [Some(address), address.checked_add(1)]
                .into_iter()
                .flatten()
                .any(|at| is_signal_return(elf, file, at))
    }

    /// One step outward from a frame by the rules; `None` when there are none for its address.
    fn step(&self, address: u64, registers: &mut Registers, stack: &Stack<'_>) -> Option<Step> {
        let memory = |at| stack.word(at);
        let found = self.sections.iter().find_map(|s| s.step(address, registers, &memory))?;
        Some(match found {
            Outward::Caller(caller) => Step::Caller(caller),
            Outward::Interrupted(address) => Step::Interrupted(address),
            Outward::Root => Step::End(End::Root),
            Outward::Unknown => Step::End(stack.end()),
        })
    }
}

/// The code from `address` to at most `length` bytes further.
fn code_at(elf: &Elf, file: &File, address: u64, length: u64) -> Option<Vec<u8>> {
    let (offset, available) = elf.code_at(address)?;
    let length = usize::try_from(available.min(length)).ok()?;
    read_exact(file, offset, length).ok()
}

fn is_signal_return(elf: &Elf, file: &File, address: u64) -> bool {
    let code = code_at(elf, file, address, SIGNAL_RETURN.len() as u64);
    code.is_some_and(|code| code == SIGNAL_RETURN)
}

/// The copy of a stack, and what was missed in it.
struct Stack<'a> {
    raw: &'a RawStack,
    missing: Cell<Option<u64>>,
}

impl Stack<'_> {
    fn word(&self, at: u64) -> Option<u64> {
        let word = self.raw.word(at);
        if word.is_none() && self.missing.get().is_none() {
            self.missing.set(Some(at));
        }
        word
    }

    /// Why a step failed.
    fn end(&self) -> End {
        match self.missing.get() {
            Some(at) if self.raw.cut_before(at) => End::CopyTooShort,
            _ => End::Lost,
        }
    }
}

/// Follows a stack outward as far as it goes.
pub(crate) fn walk(raw: &RawStack, modules: &Modules) -> Walk {
    let mut registers = Registers::of(raw);
    let mut addresses = Vec::with_capacity(32);
    let mut frame = Place { address: raw.ip, next: raw.ip };
    let end = loop {
        let Some(mapping) = modules.find(frame.address) else {
            // A wrong guess may have led here, so what was found is no frame.
            break End::Unmapped;
        };
        if addresses.len() >= MAX_DEPTH {
            break End::Lost;
        }
        addresses.push(frame.address);
        let sp = registers.sp();
        let innermost = addresses.len() == 1;
        let stack = Stack { raw, missing: Cell::new(None) };
        let from = From { mapping, modules, frame, innermost, stack: &stack };
        match guarded(|| from.step(&mut registers)).unwrap_or(Step::End(End::Lost)) {
            Step::End(end) => break end,
            // Stacks grow downward: a caller's frame lies above, or the walk would not end. Only a
            // signal's handler may have another stack, of which there is no end of them either.
            Step::Caller(_) | Step::Suspended(_) if registers.sp() <= sp => break End::Lost,
            Step::Caller(caller) if is_made_up(modules, caller) => {
                addresses.push(caller);
                break End::Root;
            }
            Step::Caller(caller) => match caller.checked_sub(1) {
                Some(before) => frame = Place { address: before, next: caller },
                None => break End::MaybeRoot,
            },
            Step::Interrupted(at) | Step::Suspended(at) => frame = Place { address: at, next: at },
        }
    };
    Walk { addresses, end }
}

/// Whether `address` is where a function begins and follows no call: not a return address, but what
/// `makecontext` and its like put under a coroutine's first function, for when that returns.
fn is_made_up(modules: &Modules, address: u64) -> bool {
    let begins = || {
        let mapping = modules.find(address)?;
        let binary = mapping.binary.as_ref()?;
        let mut loaded = binary.loaded()?;
        if loaded.go.is_some() {
            // Nobody does that in Go, whose rules are in its own table.
            return None;
        }
        let in_file = loaded.elf.address_of_offset(mapping.offset_of(address)?)?;
        let rules = loaded.rules(&binary.file, binary.debug_file());
        Some(rules.sections.iter().any(|section| section.begins_at(in_file)))
    };
    begins().unwrap_or(false) && !follows_call(modules, address)
}

/// Where a frame is.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// Inside its current instruction.
    address: u64,
    /// Where it goes on.
    next: u64,
}

/// A frame and all that helps to find its caller.
struct From<'a> {
    mapping: &'a Mapping,
    modules: &'a Modules,
    frame: Place,
    innermost: bool,
    stack: &'a Stack<'a>,
}

impl From<'_> {
    fn step(&self, registers: &mut Registers) -> Step {
        let loaded = self.mapping.binary.as_ref().and_then(|binary| {
            let loaded = binary.loaded()?;
            let offset = self.mapping.offset_of(self.frame.address)?;
            let address = loaded.elf.address_of_offset(offset)?;
            Some((binary, loaded, address))
        });
        let Some((binary, mut loaded, address)) = loaded else {
            return self.by_frame_pointer(registers, false);
        };
        let file = &binary.file;
        if let Some(step) =
            loaded.go.as_ref().and_then(|go| go.step(address, registers, self.stack.raw))
        {
            return step;
        }
        let next = address.wrapping_add(self.frame.next.wrapping_sub(self.frame.address));
        let rules = loaded.rules(file, binary.debug_file());
        if let Some(step) = rules.step(address, registers, self.stack) {
            return step;
        }
        let is_start = rules.start == Some(next);
        if is_signal_return(&loaded.elf, file, next) {
            return self.interrupted(registers).unwrap_or_else(|| Step::End(self.stack.end()));
        }
        if is_start {
            return Step::End(End::Root);
        }
        let surroundings = Surroundings {
            code: &|at| code_at(&loaded.elf, file, at, CODE),
            memory: &|at| self.stack.word(at),
            follows_call: &|at| follows_call(self.modules, at),
        };
        match surroundings.run(next, registers) {
            Some(Ended::Returned(caller)) => Step::Caller(caller),
            Some(Ended::Halted) => Step::End(End::Root),
            None => self.by_frame_pointer(registers, true),
        }
    }

    /// To the frame that a signal interrupted, by the registers that the kernel saved.
    fn interrupted(&self, registers: &mut Registers) -> Option<Step> {
        let saved = registers.sp();
        let word = |offset: u64| self.stack.word(saved.wrapping_add(offset));
        let ip = word(INTERRUPTED_IP)?;
        let mut before = Registers::new(ip, saved, 0);
        for (register, offset) in INTERRUPTED {
            match register {
                STACK_POINTER => before.set_sp(word(offset)?),
                other => before.set(other, word(offset)),
            }
        }
        *registers = before;
        Some(Step::Interrupted(ip))
    }

    /// To the caller of code that says nothing: the innermost function has just been called, others
    /// keep a frame pointer.
    fn by_frame_pointer(&self, registers: &mut Registers, is_checked: bool) -> Step {
        let sp = registers.sp();
        let (caller, above, bp) = if self.innermost {
            (self.stack.word(sp), sp.wrapping_add(8), registers.get(FRAME_POINTER))
        } else {
            let Some(bp) = registers.get(FRAME_POINTER) else { return Step::End(End::Lost) };
            if bp == 0 {
                return Step::End(End::MaybeRoot);
            }
            if bp < sp || bp % 8 != 0 {
                return Step::End(End::Lost);
            }
            let caller = self.stack.word(bp.wrapping_add(8));
            (caller, bp.wrapping_add(16), self.stack.word(bp))
        };
        let Some(caller) = caller else { return Step::End(self.stack.end()) };
        if caller == 0 {
            return Step::End(End::MaybeRoot);
        }
        if is_checked && self.modules.find(caller.wrapping_sub(1)).is_none() {
            return Step::End(End::MaybeRoot);
        }
        registers.leave(caller, above, bp);
        Step::Caller(caller)
    }
}

/// Whether code that goes on at `address` has just made a call, as far as its bytes are known.
fn follows_call(modules: &Modules, address: u64) -> bool {
    const LONGEST: u64 = 7;
    let Some(last) = address.checked_sub(1) else { return false };
    let Some(mapping) = modules.find(last) else { return false };
    let Some(binary) = &mapping.binary else { return mapping.path.is_none() };
    let before = || {
        let end = mapping.offset_of(last)?.checked_add(1)?;
        read_exact(&binary.file, end.checked_sub(LONGEST)?, LONGEST as usize).ok()
    };
    before().is_some_and(|bytes| ends_with_call(&bytes))
}
