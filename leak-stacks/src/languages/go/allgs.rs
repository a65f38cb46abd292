//! Finds the runtime's list of goroutines, `runtime.allgs`, without symbols.
//!
//! `runtime.allgadd` appends to it, so its code loads the three words of that slice.

use std::collections::BTreeSet;

use iced_x86::{Decoder, DecoderOptions, Mnemonic, OpKind};

/// Most bytes of the function's code that are read; it has about 300.
pub(crate) const MAX_CODE: u64 = 2048;

/// The function whose code shows where the list is.
pub(crate) const APPENDS: &str = "runtime.allgadd";

/// Where the list's three words are, by the code of [`APPENDS`] at `address`: the only three words
/// in a row that it loads.
pub(crate) fn list(code: &[u8], address: u64) -> Option<u64> {
    let decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    let mut loaded = BTreeSet::new();
    for instruction in decoder {
        let is_load = instruction.mnemonic() == Mnemonic::Mov
            && instruction.op0_kind() == OpKind::Register
            && instruction.op0_register().size() == 8
            && instruction.op1_kind() == OpKind::Memory
            && instruction.is_ip_rel_memory_operand();
        if is_load {
            loaded.insert(instruction.ip_rel_memory_address());
        }
    }
    let mut lists = loaded.iter().copied().filter(|&first| {
        [8, 16].iter().all(|step| first.checked_add(*step).is_some_and(|at| loaded.contains(&at)))
    });
    let list = lists.next()?;
    lists.next().is_none().then_some(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `mov register, [rip + displacement]`, 7 bytes.
    fn load(displacement: i32) -> Vec<u8> {
        [&[0x48, 0x8b, 0x0d], &displacement.to_le_bytes()[..]].concat()
    }

    #[test]
    fn three_words_in_a_row_are_the_list() {
        // The words at 0x2010, 0x2008 and 0x2000, and another one.
        let code = [load(0x1009), load(0xffa), load(0xfeb), load(0x2000)].concat();
        assert_eq!(list(&code, 0x1000), Some(0x2000));
    }

    #[test]
    fn what_is_not_told_apart_is_unknown() {
        let two = [load(0x1009), load(0xffa)].concat();
        assert_eq!(list(&two, 0x1000), None);
        let four = [load(0x1009), load(0xffa), load(0xfeb), load(0xfdc)].concat();
        assert_eq!(list(&four, 0x1000), None, "which three?");
        for garbage in [&[][..], &[0x48], &[0xff; 300], &[0; 300]] {
            assert_eq!(list(garbage, 0x1000), None);
        }
    }
}
