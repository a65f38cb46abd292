//! Builds for threads: where each thread has the address of its globals.

use iced_x86::{Decoder, DecoderOptions, Mnemonic, OpKind, Register};

/// Most instructions that are looked at.
const MAX_INSTRUCTIONS: usize = 4;

/// A thread-local variable's distance from the thread register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// Known.
    At(i32),
    /// The dynamic linker has written it to this address of the binary.
    WrittenAt(u64),
}

/// What a function at `address` returns, by its code: `tsrm_get_ls_cache_tcb_offset`, which returns
/// nothing but the variable's distance.
pub(crate) fn returned_slot(code: &[u8], address: u64) -> Option<Slot> {
    let decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    let mut slot = None;
    for instruction in decoder.into_iter().take(MAX_INSTRUCTIONS) {
        match (instruction.mnemonic(), instruction.op1_kind()) {
            // The mark of a place that may be called.
            (Mnemonic::Endbr64, _) => {}
            (Mnemonic::Mov, kind) if instruction.op0_register() == Register::RAX => {
                slot = Some(match kind {
                    OpKind::Immediate32to64 => {
                        Slot::At(i32::try_from(instruction.immediate32to64()).ok()?)
                    }
                    OpKind::Memory if instruction.is_ip_rel_memory_operand() => {
                        Slot::WrittenAt(instruction.ip_rel_memory_address())
                    }
                    _ => return None,
                });
            }
            (Mnemonic::Ret, _) => return slot,
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_to_know_the_distance() {
        let of = |code: &[u8]| returned_slot(code, 0x1000);
        let linked_into_the_program = [0x48, 0xc7, 0xc0, 0xe8, 0xff, 0xff, 0xff, 0xc3];
        assert_eq!(of(&linked_into_the_program), Some(Slot::At(-24)));
        let in_a_library = [0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x8b, 0x05, 0x10, 0, 0, 0, 0xc3];
        assert_eq!(of(&in_a_library), Some(Slot::WrittenAt(0x101b)));
        let by_call = [0x8b, 0x3d, 0, 0, 0, 0, 0xe9, 0, 0, 0, 0];
        assert_eq!(of(&by_call), None);
        assert_eq!((of(&[]), of(&[0xc3]), of(&linked_into_the_program[..7])), (None, None, None));
    }
}
