//! From registers and stack bytes to the frames of a stack.

use crate::binary::elf::read_exact;
use crate::binary::modules::{Mapping, Modules};
use crate::guarded::guarded;
use crate::processor::{FRAME_POINTER, INTERRUPTED, INTERRUPTED_IP, STACK_POINTER};
use crate::raw::{InterpreterFrame, RawStack, RuntimeEntry};
use crate::unwind::cfi::Outward;
use crate::unwind::emulate::{CodeReader, Ended, ends_with_call};
use crate::unwind::registers::Registers;
use crate::unwind::rules::{FrameRules, code_at, holds_signal_return};
use crate::unwind::step::{End, Position, RuntimeUnwinder, StackCopy, Step};

/// Most calls of one stack that are followed.
pub(crate) const MAX_DEPTH: usize = 512;
/// How much code is read at once.
const CODE: u64 = 4096;

/// The frames of a stack, innermost first.
#[derive(Debug)]
pub(crate) struct Walk {
    pub(crate) frames: Vec<WalkedFrame>,
    pub(crate) end: End,
}

/// One frame of a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct WalkedFrame {
    /// An address inside its current instruction: the instruction pointer of the innermost frame
    /// and of those that a signal interrupted; otherwise the return address less one, because a
    /// call may be its function's last instruction.
    pub(crate) address: u64,
    /// The runtime that left the frame, if one did.
    pub(crate) left_by: Option<LeftBy>,
}

/// The runtime that left a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LeftBy {
    /// Which of the process's runtimes.
    pub(crate) runtime: usize,
    /// What the frame is named by; `None`: its address.
    pub(crate) frame: Option<InterpreterFrame>,
}

/// Follows a stack outward as far as it goes.
///
/// Each frame is left by the first of these that knows how: a language's runtime, the binary's
/// unwind rules, the end of its function's code, the frame pointer. Where none knows before a
/// runtime's code was reached, the walk goes on where the runtime says that its code was left.
pub(crate) fn walk(raw: &RawStack, modules: &Modules, runtimes: &mut dyn RuntimeUnwinder) -> Walk {
    let mut walk = Walk { frames: Vec::with_capacity(32), end: End::Lost };
    let innermost = Position { address: raw.ip, next: raw.ip, innermost: true };
    let mut registers = Registers::of(raw);
    walk.end = follow(raw, innermost, &mut registers, modules, runtimes, &mut walk.frames);
    let Some(RuntimeEntry { returns_to, sp, bp }) = raw.entry else { return walk };
    let was_met = walk.frames.iter().any(|frame| frame.left_by.is_some());
    if walk.end != End::Root
        && !was_met
        && registers.sp() < sp
        && let Some(address) = returns_to.checked_sub(1)
    {
        registers.leave(returns_to, sp, Some(bp));
        let position = Position { address, next: returns_to, innermost: false };
        walk.end = follow(raw, position, &mut registers, modules, runtimes, &mut walk.frames);
    }
    walk
}

/// Adds the frame at `position` and those further out; says how that ended.
fn follow(
    raw: &RawStack,
    mut position: Position,
    registers: &mut Registers,
    modules: &Modules,
    runtimes: &mut dyn RuntimeUnwinder,
    frames: &mut Vec<WalkedFrame>,
) -> End {
    loop {
        if frames.len() >= MAX_DEPTH {
            return End::Lost;
        }
        let sp = registers.sp();
        let stack = StackCopy::new(raw);
        let mut changed = registers.clone();
        // Before the mappings are asked: a compiler may have made the code since they were read.
        let by_runtime = guarded(|| runtimes.step(position, &mut changed, &stack)).flatten();
        let left_by = by_runtime.map(|by| LeftBy { runtime: by.runtime, frame: by.frame });
        let step = match (by_runtime, modules.find(position.address)) {
            (Some(by), _) => {
                *registers = changed;
                by.step
            }
            (None, Some(mapping)) => {
                let native = NativeFrame { mapping, modules, position, stack: &stack };
                guarded(|| native.step(registers)).unwrap_or(Step::End(End::Lost))
            }
            // A wrong guess may have led here, so what was found is no frame.
            (None, None) => return End::Unmapped,
        };
        frames.push(WalkedFrame { address: position.address, left_by });
        match step {
            Step::End(end) => return end,
            // Stacks grow downward: a caller's frame is above, or the walk would not end. Only a
            // signal's handler may have another stack, and the walk ends there as well.
            Step::Caller(_) | Step::Suspended(_) if registers.sp() <= sp => return End::Lost,
            Step::Caller(caller) if left_by.is_none() && is_made_up(modules, caller) => {
                frames.push(WalkedFrame { address: caller, left_by: None });
                return End::Root;
            }
            Step::Caller(caller) => match caller.checked_sub(1) {
                Some(address) => position = Position { address, next: caller, innermost: false },
                None => return End::MaybeRoot,
            },
            Step::Interrupted(at) | Step::Suspended(at) => {
                position = Position { address: at, next: at, innermost: false };
            }
        }
    }
}

/// Whether `address` is where a function begins and follows no call: not a return address, but what
/// `makecontext` and its like put under a coroutine's first function, for when that returns.
fn is_made_up(modules: &Modules, address: u64) -> bool {
    let begins = || {
        let mapping = modules.find(address)?;
        let binary = mapping.binary.as_ref()?;
        let in_file = binary.elf()?.address_of_offset(mapping.offset_of(address)?)?;
        Some(binary.facts::<FrameRules>()?.begin_at(in_file))
    };
    begins().unwrap_or(false) && !follows_call(modules, address)
}

/// A frame that no runtime leaves, and all that helps to find its caller.
struct NativeFrame<'a> {
    mapping: &'a Mapping,
    modules: &'a Modules,
    position: Position,
    stack: &'a StackCopy<'a>,
}

impl NativeFrame<'_> {
    fn step(&self, registers: &mut Registers) -> Step {
        let in_file = || {
            let binary = self.mapping.binary.as_ref()?;
            let elf = binary.elf()?;
            let address = elf.address_of_offset(self.mapping.offset_of(self.position.address)?)?;
            Some((&binary.file, elf, binary.facts::<FrameRules>()?, address))
        };
        let Some((file, elf, rules, address)) = in_file() else {
            return self.by_frame_pointer(registers, false);
        };
        if let Some(outward) = rules.step(address, registers, &|at| self.stack.word(at)) {
            return match outward {
                Outward::Caller(caller) => Step::Caller(caller),
                Outward::Interrupted(address) => Step::Interrupted(address),
                Outward::Root => Step::End(End::Root),
                Outward::Unknown => Step::End(self.stack.end()),
            };
        }
        let next = address.wrapping_add(self.position.next.wrapping_sub(self.position.address));
        if holds_signal_return(&elf, file, next) {
            return self.interrupted(registers).unwrap_or_else(|| Step::End(self.stack.end()));
        }
        if rules.is_start(next) {
            return Step::End(End::Root);
        }
        let reader = CodeReader {
            code: &|at| code_at(&elf, file, at, CODE),
            memory: &|at| self.stack.word(at),
            follows_call: &|at| follows_call(self.modules, at),
        };
        match reader.run(next, registers) {
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

    /// To the caller of code without rules: the innermost function has just been called, others
    /// keep a frame pointer.
    fn by_frame_pointer(&self, registers: &mut Registers, is_checked: bool) -> Step {
        let sp = registers.sp();
        let (caller, above, bp) = if self.position.innermost {
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
