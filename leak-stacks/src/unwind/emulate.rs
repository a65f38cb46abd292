//! Finds a frame's caller by emulating the rest of its function. It is the last resort, for code
//! that has neither unwind rules nor a frame pointer: musl's, and hand-written assembly.
//!
//! Only what moves the stack pointer is followed, from where the frame goes on to the function's
//! return instruction. Conditional jumps may be taken either way, because compilers keep the depth
//! of the stack the same at each place, whichever way leads there.

use std::collections::HashSet;

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register,
};

use crate::processor::FRAME_POINTER;
use crate::unwind::registers::Registers;

/// Most instructions of a function that are followed.
const MAX_INSTRUCTIONS: usize = 4096;
/// Longest instruction of x86.
const MAX_LENGTH: usize = 15;

/// How a function ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// To the caller at this address.
    Returned(u64),
    /// To the processor's halt, which a program reaches only where it must not: behind the call
    /// of what never returns, in a process's or thread's first function.
    Halted,
}

/// Reads code and stack for the emulation.
pub(crate) struct CodeReader<'a> {
    /// The code at an address of the file; at least one instruction, or nothing.
    pub(crate) code: &'a dyn Fn(u64) -> Option<Vec<u8>>,
    /// A word of the stack.
    pub(crate) memory: &'a dyn Fn(u64) -> Option<u64>,
    /// Whether code may go on at this address of the process after a call.
    pub(crate) follows_call: &'a dyn Fn(u64) -> bool,
}

/// A way through the function that has not been followed.
#[derive(Clone, Debug)]
struct Path {
    at: u64,
    sp: u64,
    bp: Option<u64>,
}

impl CodeReader<'_> {
    /// Runs the function from the instruction at `start` of its file to its end. The registers
    /// change only when it returns.
    pub(crate) fn run(&self, start: u64, registers: &mut Registers) -> Option<Ended> {
        let first = Path { at: start, sp: registers.sp(), bp: registers.get(FRAME_POINTER) };
        let mut paths = vec![first];
        let mut seen = HashSet::new();
        let mut fetched = Fetched::default();
        while let Some(mut path) = paths.pop() {
            while seen.len() < MAX_INSTRUCTIONS && seen.insert(path.at) {
                let Some(instruction) = fetched.decode(path.at, self.code) else { break };
                match instruction.flow_control() {
                    FlowControl::Return => {
                        let Some(caller) =
                            (self.memory)(path.sp).filter(|a| (self.follows_call)(*a))
                        else {
                            break;
                        };
                        registers.leave(caller, path.sp.wrapping_add(8), path.bp);
                        return Some(Ended::Returned(caller));
                    }
                    FlowControl::UnconditionalBranch => path.at = instruction.near_branch_target(),
                    FlowControl::ConditionalBranch => {
                        paths.push(Path { at: instruction.near_branch_target(), ..path });
                        path.at = instruction.next_ip();
                    }
                    FlowControl::IndirectBranch
                    | FlowControl::Exception
                    | FlowControl::XbeginXabortXend => break,
                    FlowControl::Next
                    | FlowControl::Call
                    | FlowControl::IndirectCall
                    | FlowControl::Interrupt => {
                        if instruction.code() == Code::Hlt {
                            return Some(Ended::Halted);
                        }
                        if path.execute(&instruction, self.memory).is_none() {
                            break;
                        }
                        path.at = instruction.next_ip();
                    }
                }
            }
        }
        None
    }
}

impl Path {
    /// Does to stack and frame pointer what the instruction does; `None` when that cannot be told.
    fn execute(
        &mut self,
        instruction: &Instruction,
        memory: &dyn Fn(u64) -> Option<u64>,
    ) -> Option<()> {
        let target = if instruction.op_count() > 0 && instruction.op0_kind() == OpKind::Register {
            instruction.op0_register()
        } else {
            Register::None
        };
        match instruction.mnemonic() {
            Mnemonic::Call => {}
            Mnemonic::Push => self.sp = self.sp.wrapping_sub(8),
            Mnemonic::Pop => {
                let value = memory(self.sp);
                self.sp = self.sp.wrapping_add(8);
                match target {
                    Register::RBP => self.bp = value,
                    Register::RSP => return None,
                    _ => {}
                }
            }
            Mnemonic::Leave => {
                let bp = self.bp?;
                self.bp = memory(bp);
                self.sp = bp.wrapping_add(8);
            }
            // These read their first operand only.
            Mnemonic::Cmp | Mnemonic::Test => {}
            mnemonic if target == Register::RSP => {
                self.sp = match (mnemonic, instruction.op1_kind()) {
                    (Mnemonic::Mov, OpKind::Register) => self.value(instruction.op1_register())?,
                    (Mnemonic::Lea, _) if instruction.memory_index() == Register::None => {
                        let displacement = instruction.memory_displacement64();
                        self.value(instruction.memory_base())?.wrapping_add(displacement)
                    }
                    (Mnemonic::Add, OpKind::Register | OpKind::Memory)
                    | (Mnemonic::Sub, OpKind::Register | OpKind::Memory) => return None,
                    (Mnemonic::Add, _) => self.sp.wrapping_add(instruction.immediate(1)),
                    (Mnemonic::Sub, _) => self.sp.wrapping_sub(instruction.immediate(1)),
                    _ => return None,
                };
            }
            Mnemonic::Mov
                if target == Register::RBP && instruction.op1_register() == Register::RSP =>
            {
                self.bp = Some(self.sp);
            }
            _ if matches!(target, Register::RBP | Register::EBP) => self.bp = None,
            _ => {
                let moved = i64::from(instruction.stack_pointer_increment());
                self.sp = self.sp.wrapping_add_signed(moved);
            }
        }
        Some(())
    }

    fn value(&self, register: Register) -> Option<u64> {
        match register {
            Register::RSP => Some(self.sp),
            Register::RBP => self.bp,
            _ => None,
        }
    }
}

/// A stretch of code.
#[derive(Debug, Default)]
struct Fetched {
    start: u64,
    bytes: Vec<u8>,
}

impl Fetched {
    fn decode(&mut self, at: u64, code: &dyn Fn(u64) -> Option<Vec<u8>>) -> Option<Instruction> {
        let rest = |fetched: &Self| {
            let offset = usize::try_from(at.checked_sub(fetched.start)?).ok()?;
            (fetched.bytes.len().checked_sub(offset)? >= MAX_LENGTH).then_some(offset)
        };
        let offset = match rest(self) {
            Some(offset) => offset,
            None => {
                *self = Self { start: at, bytes: code(at)? };
                0
            }
        };
        let bytes = self.bytes.get(offset..)?;
        let instruction = Decoder::with_ip(64, bytes, at, DecoderOptions::NONE).decode();
        (!instruction.is_invalid()).then_some(instruction)
    }
}

/// Where code goes on after the first call of a function of which these are the first bytes.
pub(crate) fn after_first_call(start: u64, code: &[u8]) -> Option<u64> {
    let mut decoder = Decoder::with_ip(64, code, start, DecoderOptions::NONE);
    let call = decoder.iter().find(|instruction| {
        matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall)
            || instruction.is_invalid()
    })?;
    (!call.is_invalid()).then(|| call.next_ip())
}

/// Whether these bytes, which lie before an address, end with a call.
pub(crate) fn ends_with_call(before: &[u8]) -> bool {
    let from_end = |distance: usize| Some(*before.get(before.len().checked_sub(distance)?)?);
    // E8 with a 32-bit distance; FF /2 with any operand, which takes two to seven bytes.
    from_end(5) == Some(0xe8)
        || (2..=7).any(|length| {
            from_end(length) == Some(0xff)
                && from_end(length - 1).is_some_and(|operand| operand >> 3 & 7 == 2)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs code at 0x1000 with a stack at 0x100, whose words are their own addresses plus 1.
    fn run(code: &[u8], bp: u64) -> (Option<Ended>, Registers) {
        let mut bytes = code.to_vec();
        bytes.resize(code.len() + MAX_LENGTH, 0xcc);
        let mut registers = Registers::new(0x1000, 0x100, bp);
        let reader = CodeReader {
            code: &|at| Some(bytes.get(usize::try_from(at.checked_sub(0x1000)?).ok()?..)?.to_vec()),
            memory: &|at| (0x100..0x1000).contains(&at).then_some(at + 1),
            follows_call: &|_| true,
        };
        let ended = reader.run(0x1000, &mut registers);
        (ended, registers)
    }

    #[test]
    fn the_stack_is_followed_to_the_return() {
        // add rsp, 0x18; pop rbx; pop rbp; ret
        let (ended, registers) = run(&[0x48, 0x83, 0xc4, 0x18, 0x5b, 0x5d, 0xc3], 0);
        assert_eq!(ended, Some(Ended::Returned(0x129)));
        assert_eq!((registers.sp(), registers.get(FRAME_POINTER)), (0x130, Some(0x121)));
        // leave; ret
        let (ended, registers) = run(&[0xc9, 0xc3], 0x200);
        assert_eq!((ended, registers.sp()), (Some(Ended::Returned(0x209)), 0x210));
    }

    #[test]
    fn either_way_of_a_jump_may_lead_to_the_return() {
        // je +1; ud2 is skipped by the jump only: je to the ret behind it
        assert_eq!(run(&[0x74, 2, 0x0f, 0x0b, 0xc3], 0).0, Some(Ended::Returned(0x101)));
        // A loop without an end: jmp to itself.
        assert_eq!(run(&[0xeb, 0xfe], 0).0, None);
        // xor edi, edi; hlt
        assert_eq!(run(&[0x31, 0xff, 0xf4], 0).0, Some(Ended::Halted));
        // mov rsp, rax; ret: nobody knows rax.
        assert_eq!(run(&[0x48, 0x89, 0xc4, 0xc3], 0).0, None);
    }

    #[test]
    fn calls_are_known_by_their_bytes() {
        assert!(ends_with_call(&[0xe8, 0, 0, 0, 0]));
        assert!(ends_with_call(&[0x90, 0xff, 0xd0]));
        assert!(ends_with_call(&[0xff, 0x15, 1, 2, 3, 4]));
        assert!(!ends_with_call(&[0x90; 8]) && !ends_with_call(&[]));
        assert_eq!(after_first_call(0x1000, &[0x31, 0xed, 0xe8, 0, 0, 0, 0, 0xf4]), Some(0x1007));
        assert_eq!(after_first_call(0x1000, &[0x31, 0xed]), None);
    }
}
