//! Builds for threads: where each thread has the address of its globals.

use iced_x86::{Decoder, DecoderOptions, Mnemonic, OpKind, Register};

/// Most instructions that are looked at.
const MAX_INSTRUCTIONS: usize = 6;

/// A thread-local variable's distance from the thread register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// Known.
    At(i32),
    /// The dynamic linker has written it to this address of the binary.
    WrittenAt(u64),
}

/// The variable that a function at `address` returns, by its code: `tsrm_get_ls_cache`, which does
/// nothing else.
pub(crate) fn returned_slot(code: &[u8], address: u64) -> Option<Slot> {
    let mut slot = None;
    let decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    for instruction in decoder.into_iter().take(MAX_INSTRUCTIONS) {
        if instruction.mnemonic() != Mnemonic::Mov || instruction.op0_register() != Register::RAX {
            // Such as the mark of a place that may be called, and what keeps a frame pointer.
            continue;
        }
        let displacement = instruction.memory_displacement64();
        match instruction.op1_kind() {
            OpKind::Immediate32to64 => {
                slot = Some(Slot::At(i32::try_from(instruction.immediate32to64()).ok()?));
            }
            OpKind::Memory if instruction.segment_prefix() == Register::FS => {
                return match instruction.memory_base() {
                    Register::None => {
                        let known = i32::try_from(displacement.cast_signed()).ok();
                        Some(Slot::At(
                            known.or_else(|| {
                                u32::try_from(displacement).ok().map(u32::cast_signed)
                            })?,
                        ))
                    }
                    Register::RAX if displacement == 0 => slot,
                    _ => None,
                };
            }
            OpKind::Memory if instruction.is_ip_rel_memory_operand() => {
                slot = Some(Slot::WrittenAt(instruction.ip_rel_memory_address()));
            }
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_ways_to_read_the_variable() {
        let of = |code: &[u8]| returned_slot(code, 0x1000);
        let direct = [0x64, 0x48, 0x8b, 0x04, 0x25, 0xf0, 0xff, 0xff, 0xff, 0xc3];
        assert_eq!(of(&direct), Some(Slot::At(-16)));
        let relaxed = [
            0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0xc7, 0xc0, 0xf8, 0xff, 0xff, 0xff, 0x64, 0x48, 0x8b,
            0x00, 0xc3,
        ];
        assert_eq!(of(&relaxed), Some(Slot::At(-8)));
        let linked = [0x48, 0x8b, 0x05, 0x10, 0, 0, 0, 0x64, 0x48, 0x8b, 0x00, 0xc3];
        assert_eq!(of(&linked), Some(Slot::WrittenAt(0x1017)));
        let by_call = [0x66, 0x48, 0x8d, 0x3d, 0, 0, 0, 0, 0x66, 0x66, 0x48, 0xe8, 0, 0, 0, 0];
        assert_eq!(of(&by_call), None);
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[0x64, 0x48]), None);
    }
}
