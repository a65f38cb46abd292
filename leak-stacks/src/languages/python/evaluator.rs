//! Finds the code that runs Python code in an interpreter that is stripped.
//!
//! Compilers put what seldom ran while they were trained apart from the function that it is of;
//! of Debian's builds since 3.13, that is most of the function. No exported symbol names this part,
//! and it has unwind rules of its own. But the function jumps into it, while jumps to functions
//! lead to their beginning.

use std::collections::BTreeSet;

use iced_x86::{Decoder, DecoderOptions, FlowControl};

use crate::binary::facts::{Facts, Source};
use crate::binary::store::Binary;
use crate::binary::symbol_table::addresses_of;
use crate::unwind::rules::{FrameRules, code_at};

/// The interpreter's function that runs Python code; compilers add suffixes for parts of it. Where
/// each instruction has a function of its own, they have names of their own.
pub(super) const NAMES: [&str; 2] = ["_PyEval_EvalFrameDefault", "_TAIL_CALL_"];

/// Longest function that is read.
const MAX_CODE: u64 = 512 << 10;

/// The first addresses of the function's parts but the first.
#[derive(Debug)]
struct Evaluator(BTreeSet<u64>);

/// Whether a part of the function that no symbol names is at an address of a binary.
pub(super) fn has_part_at(binary: &Binary, address: u64) -> bool {
    let Some(evaluator) = binary.facts::<Evaluator>() else { return false };
    let Some(rules) = binary.facts::<FrameRules>() else { return false };
    rules.beginning_of(address).is_some_and(|start| evaluator.0.contains(&start))
}

impl Facts for Evaluator {
    fn read(source: &Source<'_>) -> Self {
        let [address] = addresses_of(source, [NAMES[0]]);
        Self(address.map(|address| parts(address, source)).unwrap_or_default())
    }

    fn bytes(&self) -> u64 {
        0
    }
}

fn parts(address: u64, source: &Source<'_>) -> BTreeSet<u64> {
    let code = code_at(source.elf, source.file, address, MAX_CODE).unwrap_or_default();
    let rules = FrameRules::read(source);
    let is_own = |at| rules.beginning_of(at) == Some(address);
    let jumps = jumps_of(&code, address, is_own);
    let others = jumps.filter_map(|to| rules.beginning_of(to).filter(|&start| start != to));
    others.collect()
}

/// Where the jumps of the function at `address` lead to.
fn jumps_of(code: &[u8], address: u64, is_own: impl Fn(u64) -> bool) -> impl Iterator<Item = u64> {
    let decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    decoder
        .into_iter()
        .take_while(move |instruction| is_own(instruction.ip()))
        .filter(|instruction| {
            let kinds = [FlowControl::ConditionalBranch, FlowControl::UnconditionalBranch];
            kinds.contains(&instruction.flow_control())
        })
        .map(|instruction| instruction.near_branch_target())
}

#[cfg(test)]
mod tests {
    use super::jumps_of;

    #[test]
    fn jumps_of_one_function() {
        // test eax, eax; je +0x100; jmp -0x10; jmp [rax]; then another function's: je +0x200.
        let code =
            [0x85, 0xc0, 0x0f, 0x84, 0xf8, 0, 0, 0, 0xeb, 0xe6, 0xff, 0x20, 0x0f, 0x84, 0, 2, 0, 0];
        let jumps: Vec<_> = jumps_of(&code, 0x1000, |at| at < 0x100c).collect();
        assert_eq!(jumps, [0x1100, 0xff0]);
        assert_eq!(jumps_of(&[0xff; 64], 0x1000, |_| true).count(), 0);
    }
}
