//! Asks small functions of a library what they would return, without calling them.
//!
//! Whoever compiled a library decided where its structures have their fields. Its own accessors
//! know: a few instructions that load a field of their only argument. They are interpreted over a
//! copy of the structure, so there is no table of versions, and the answer is the library's own.
//! What is more than an accessor, as one that calls others or looks at variables, has no answer.

use iced_x86::{
    Code, ConditionCode, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register,
};

/// Most instructions that are interpreted.
const MAX_STEPS: usize = 64;
/// Where the object and the stack seem to be.
const OBJECT: u64 = 0x10_0000_0000;
const STACK: u64 = 0x20_0000_0000;
const STACK_SIZE: usize = 256;

/// What a function returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Returned {
    /// The value, as a 32-bit number.
    pub(super) value: u32,
    /// Offset and size of the field of the object that it read last.
    pub(super) last_read: Option<(usize, usize)>,
}

/// What the function with this code returns for `object`; `None` when it is no accessor, or looks
/// beyond the object.
pub(super) fn call(code: &[u8], object: &[u8]) -> Option<Returned> {
    let mut machine = Machine::new(object);
    let mut decoder = Decoder::with_ip(64, code, 0, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    for _ in 0..MAX_STEPS {
        if !decoder.can_decode() {
            return None;
        }
        decoder.decode_out(&mut instruction);
        match machine.step(&instruction)? {
            Next::Goes => {}
            Next::Jumps(to) => {
                decoder.set_position(usize::try_from(to).ok()?).ok()?;
                decoder.set_ip(to);
            }
            Next::Returns => {
                let value = (machine.registers.first()? & u64::from(u32::MAX)).try_into().ok()?;
                return Some(Returned { value, last_read: machine.last_read });
            }
        }
    }
    None
}

enum Next {
    Goes,
    Jumps(u64),
    Returns,
}

#[derive(Clone, Copy, Default)]
struct Flags {
    zero: bool,
    sign: bool,
    carry: bool,
    overflow: bool,
}

struct Machine<'a> {
    registers: [u64; 16],
    flags: Flags,
    object: &'a [u8],
    stack: [u8; STACK_SIZE],
    last_read: Option<(usize, usize)>,
}

impl<'a> Machine<'a> {
    fn new(object: &'a [u8]) -> Self {
        let mut registers = [0; 16];
        registers[Register::RDI.number()] = OBJECT;
        registers[Register::RSP.number()] = STACK + STACK_SIZE as u64 / 2;
        Self { registers, flags: Flags::default(), object, stack: [0; STACK_SIZE], last_read: None }
    }

    fn step(&mut self, one: &Instruction) -> Option<Next> {
        match one.mnemonic() {
            Mnemonic::Endbr64 | Mnemonic::Nop => {}
            Mnemonic::Ret => return Some(Next::Returns),
            Mnemonic::Jmp => return Some(Next::Jumps(target(one)?)),
            Mnemonic::Mov | Mnemonic::Movzx => {
                let value = self.operand(one, 1)?;
                self.set(one, value)?;
            }
            Mnemonic::Movsx | Mnemonic::Movsxd => {
                let value = extended(self.operand(one, 1)?, size_of_operand(one, 1)?);
                self.set(one, value)?;
            }
            Mnemonic::Lea => {
                let address = self.address(one)?;
                self.set(one, address)?;
            }
            Mnemonic::Push => {
                let value = self.operand(one, 0)?;
                self.move_stack(-8)?;
                self.write(self.registers[Register::RSP.number()], 8, value)?;
            }
            Mnemonic::Pop => {
                let value = self.pop()?;
                self.set(one, value)?;
            }
            Mnemonic::Leave => {
                self.registers[Register::RSP.number()] = self.registers[Register::RBP.number()];
                self.registers[Register::RBP.number()] = self.pop()?;
            }
            Mnemonic::Cmp | Mnemonic::Sub | Mnemonic::Add => {
                let result = self.sum(one)?;
                if one.mnemonic() != Mnemonic::Cmp {
                    self.set(one, result)?;
                }
            }
            Mnemonic::Test | Mnemonic::And | Mnemonic::Or | Mnemonic::Xor => {
                let (a, b) = (self.operand(one, 0)?, self.operand(one, 1)?);
                let result = match one.mnemonic() {
                    Mnemonic::Or => a | b,
                    Mnemonic::Xor => a ^ b,
                    _ => a & b,
                };
                self.note(result, size_of_operand(one, 0)?, false, false);
                if one.mnemonic() != Mnemonic::Test {
                    self.set(one, result)?;
                }
            }
            Mnemonic::Shr | Mnemonic::Shl => {
                let size = size_of_operand(one, 0)?;
                let by = u32::try_from(self.operand(one, 1)? & 0x1f).ok()?;
                let value = self.operand(one, 0)?;
                let shifted =
                    if one.mnemonic() == Mnemonic::Shr { value >> by } else { value << by };
                self.note(masked(shifted, size), size, false, false);
                self.set(one, shifted)?;
            }
            _ => return self.conditional(one),
        }
        Some(Next::Goes)
    }

    /// An instruction that depends on flags.
    fn conditional(&mut self, one: &Instruction) -> Option<Next> {
        let holds = self.holds(one.condition_code())?;
        if one.is_jcc_short_or_near() {
            return Some(if holds { Next::Jumps(target(one)?) } else { Next::Goes });
        }
        if one.op_count() == 1 {
            // `set…`: of one byte.
            self.set(one, u64::from(holds))?;
        } else {
            // `cmov…`: reads its source in any case, and clears the upper half of its target.
            let (moved, kept) = (self.operand(one, 1)?, self.operand(one, 0)?);
            self.set(one, if holds { moved } else { kept })?;
        }
        Some(Next::Goes)
    }

    fn holds(&self, condition: ConditionCode) -> Option<bool> {
        let Flags { zero, sign, carry, overflow } = self.flags;
        Some(match condition {
            ConditionCode::e => zero,
            ConditionCode::ne => !zero,
            ConditionCode::s => sign,
            ConditionCode::ns => !sign,
            ConditionCode::b => carry,
            ConditionCode::ae => !carry,
            ConditionCode::be => carry || zero,
            ConditionCode::a => !carry && !zero,
            ConditionCode::l => sign != overflow,
            ConditionCode::ge => sign == overflow,
            ConditionCode::le => zero || sign != overflow,
            ConditionCode::g => !zero && sign == overflow,
            _ => return None,
        })
    }

    /// The sum or difference of both operands, with its flags.
    fn sum(&mut self, one: &Instruction) -> Option<u64> {
        let size = size_of_operand(one, 0)?;
        let (a, b) = (self.operand(one, 0)?, masked(self.operand(one, 1)?, size));
        let is_sum = one.mnemonic() == Mnemonic::Add;
        let result = masked(if is_sum { a.wrapping_add(b) } else { a.wrapping_sub(b) }, size);
        let carry = if is_sum { result < a } else { a < b };
        let signs = [a, b, result].map(|value| is_negative(value, size));
        let [a, b, sum] = signs;
        let overflow = if is_sum { a == b && sum != a } else { a != b && sum != a };
        self.note(result, size, carry, overflow);
        Some(result)
    }

    fn note(&mut self, result: u64, size: usize, carry: bool, overflow: bool) {
        let sign = is_negative(result, size);
        self.flags = Flags { zero: masked(result, size) == 0, sign, carry, overflow };
    }

    fn pop(&mut self) -> Option<u64> {
        let value = self.read(self.registers[Register::RSP.number()], 8)?;
        self.move_stack(8)?;
        Some(value)
    }

    fn move_stack(&mut self, by: i64) -> Option<()> {
        let pointer = self.registers.get_mut(Register::RSP.number())?;
        *pointer = pointer.checked_add_signed(by)?;
        Some(())
    }

    fn operand(&mut self, one: &Instruction, number: u32) -> Option<u64> {
        let size = size_of_operand(one, number)?;
        match one.op_kind(number) {
            OpKind::Register => {
                let value = *self.registers.get(index(one.op_register(number))?)?;
                Some(masked(value, size))
            }
            OpKind::Memory => {
                let address = self.address(one)?;
                self.read(address, size)
            }
            _ => Some(masked(one.immediate(number), size)),
        }
    }

    /// Sets the first operand.
    fn set(&mut self, one: &Instruction, value: u64) -> Option<()> {
        let size = size_of_operand(one, 0)?;
        if one.op0_kind() == OpKind::Memory {
            let address = self.address(one)?;
            return self.write(address, size, value);
        }
        let register = self.registers.get_mut(index(one.op0_register())?)?;
        // Of 32 bits, the others become 0; of fewer, they stay.
        *register = match size {
            4 | 8 => masked(value, size),
            _ => (*register & !masked(u64::MAX, size)) | masked(value, size),
        };
        Some(())
    }

    fn address(&self, one: &Instruction) -> Option<u64> {
        if one.segment_prefix() != Register::None {
            return None;
        }
        let part = |register: Register| match register {
            Register::None => Some(0),
            register => self.registers.get(index(register)?).copied(),
        };
        let scaled = part(one.memory_index())?.wrapping_mul(u64::from(one.memory_index_scale()));
        let base = part(one.memory_base())?;
        Some(base.wrapping_add(scaled).wrapping_add(one.memory_displacement64()))
    }

    fn read(&mut self, address: u64, size: usize) -> Option<u64> {
        let (bytes, at) = match within(address, OBJECT, size, self.object.len()) {
            Some(at) => {
                self.last_read = Some((at, size));
                (self.object, at)
            }
            None => (&self.stack[..], within(address, STACK, size, STACK_SIZE)?),
        };
        let mut word = [0; 8];
        word.get_mut(..size)?.copy_from_slice(bytes.get(at..at.checked_add(size)?)?);
        Some(u64::from_le_bytes(word))
    }

    /// Writes to the stack: an accessor changes nothing else.
    fn write(&mut self, address: u64, size: usize, value: u64) -> Option<()> {
        let at = within(address, STACK, size, STACK_SIZE)?;
        let bytes = self.stack.get_mut(at..at.checked_add(size)?)?;
        bytes.copy_from_slice(value.to_le_bytes().get(..size)?);
        Some(())
    }
}

/// Where in an area of `length` bytes at `start` the `size` bytes at `address` are.
fn within(address: u64, start: u64, size: usize, length: usize) -> Option<usize> {
    let at = usize::try_from(address.checked_sub(start)?).ok()?;
    (at.checked_add(size)? <= length).then_some(at)
}

fn target(one: &Instruction) -> Option<u64> {
    matches!(one.op0_kind(), OpKind::NearBranch64).then(|| one.near_branch64())
}

/// Number of the register that a part belongs to; not for the second byte of one.
fn index(register: Register) -> Option<usize> {
    let second = [Register::AH, Register::BH, Register::CH, Register::DH];
    let full = register.full_register();
    (full.is_gpr64() && !second.contains(&register)).then(|| full.number())
}

fn size_of_operand(one: &Instruction, number: u32) -> Option<usize> {
    let size = match one.op_kind(number) {
        OpKind::Register => one.op_register(number).size(),
        OpKind::Memory => one.memory_size().size(),
        // As wide as what it is combined with.
        _ if number > 0 => return size_of_operand(one, 0),
        _ if one.code() == Code::INVALID => return None,
        _ => 8,
    };
    matches!(size, 1 | 2 | 4 | 8).then_some(size)
}

fn masked(value: u64, size: usize) -> u64 {
    if size >= 8 { value } else { value & ((1 << (8 * size)) - 1) }
}

fn is_negative(value: u64, size: usize) -> bool {
    value >> (8 * size - 1) & 1 == 1
}

fn extended(value: u64, size: usize) -> u64 {
    if is_negative(value, size) { value | !masked(u64::MAX, size) } else { value }
}

#[cfg(test)]
mod tests;
