//! Keeps unwind rules from running for ever.
//!
//! Unwind rules may hold small programs, DWARF expressions, which framehop runs to their end. One
//! that jumps in a circle would hold up the resolver for good. No compiler emits jumps there, so
//! rules with any are not used.

use framehop::ExplicitModuleSectionInfo;
use gimli::{
    BaseAddresses, CallFrameInstruction, CallFrameInstructionIter, CieOrFde, DebugFrame, EhFrame,
    EhFrameHdr, Encoding, EndianSlice, FrameDescriptionEntry, LittleEndian, Operation,
    UnwindExpression, UnwindSection,
};

use super::unwind::Bytes;

type Slice<'a> = EndianSlice<'a, LittleEndian>;
/// x86-64's.
const ADDRESS_SIZE: u8 = 8;

/// The rules of a binary, as far as they have not been looked at when it was loaded.
#[derive(Debug, Default)]
pub(super) struct Guard {
    /// `.eh_frame` and its search table: rules are looked at when they are used.
    searched: Option<(Bytes, Bytes, BaseAddresses)>,
}

impl Guard {
    /// A guard for rules that framehop reads in order, all of which are looked at now, or finds by
    /// a search table; `None` when they must not be used.
    pub(super) fn new(sections: &ExplicitModuleSectionInfo<Bytes>) -> Option<Self> {
        let start = |range: &Option<std::ops::Range<u64>>| range.as_ref().map_or(0, |r| r.start);
        let bases = BaseAddresses::default()
            .set_eh_frame(start(&sections.eh_frame_svma))
            .set_eh_frame_hdr(start(&sections.eh_frame_hdr_svma))
            .set_text(start(&sections.text_svma))
            .set_got(start(&sections.got_svma));
        match (&sections.eh_frame, &sections.eh_frame_hdr, &sections.debug_frame) {
            (Some(frames), Some(table), _) => {
                Some(Self { searched: Some((frames.clone(), table.clone(), bases)) })
            }
            (Some(frames), None, _) => {
                all_end(&eh_frame(frames), &bases).then_some(Self { searched: None })
            }
            (None, _, Some(frames)) => {
                let mut section = DebugFrame::new(frames, LittleEndian);
                section.set_address_size(ADDRESS_SIZE);
                all_end(&section, &bases).then_some(Self { searched: None })
            }
            (None, _, None) => Some(Self { searched: None }),
        }
    }

    /// Whether the rules at `address` come to an end.
    pub(super) fn allows(&self, address: u64) -> bool {
        let Some((frames, table, bases)) = &self.searched else { return true };
        // What cannot be found or read here is not found or read by framehop either.
        found_ends(&eh_frame(frames), table, bases, address).unwrap_or(true)
    }
}

fn eh_frame(data: &[u8]) -> EhFrame<Slice<'_>> {
    let mut section = EhFrame::new(data, LittleEndian);
    section.set_address_size(ADDRESS_SIZE);
    section
}

fn found_ends(
    section: &EhFrame<Slice<'_>>,
    table: &[u8],
    bases: &BaseAddresses,
    address: u64,
) -> Option<bool> {
    let header = EhFrameHdr::new(table, LittleEndian).parse(bases, ADDRESS_SIZE).ok()?;
    let table = header.table()?;
    let offset = table.pointer_to_offset(table.lookup(address, bases).ok()?).ok()?;
    let entry = section.fde_from_offset(bases, offset, EhFrame::cie_from_offset).ok()?;
    Some(entry_ends(section, bases, &entry))
}

fn all_end<'a, S: UnwindSection<Slice<'a>>>(section: &S, bases: &BaseAddresses) -> bool {
    let mut entries = section.entries(bases);
    while let Ok(Some(entry)) = entries.next() {
        if let CieOrFde::Fde(entry) = entry
            && let Ok(entry) = entry.parse(S::cie_from_offset)
            && !entry_ends(section, bases, &entry)
        {
            return false;
        }
    }
    true
}

fn entry_ends<'a, S: UnwindSection<Slice<'a>>>(
    section: &S,
    bases: &BaseAddresses,
    entry: &FrameDescriptionEntry<Slice<'a>>,
) -> bool {
    let encoding = entry.cie().encoding();
    instructions_end(section, entry.cie().instructions(section, bases), encoding)
        && instructions_end(section, entry.instructions(section, bases), encoding)
}

fn instructions_end<'a, S: UnwindSection<Slice<'a>>>(
    section: &S,
    mut instructions: CallFrameInstructionIter<'_, Slice<'a>>,
    encoding: Encoding,
) -> bool {
    while let Ok(Some(instruction)) = instructions.next() {
        if let CallFrameInstruction::DefCfaExpression { expression }
        | CallFrameInstruction::Expression { expression, .. }
        | CallFrameInstruction::ValExpression { expression, .. } = instruction
            && jumps(section, expression, encoding)
        {
            return false;
        }
    }
    true
}

fn jumps<'a, S: UnwindSection<Slice<'a>>>(
    section: &S,
    expression: UnwindExpression<usize>,
    encoding: Encoding,
) -> bool {
    let Ok(expression) = expression.get(section) else { return false };
    let mut operations = expression.operations(encoding);
    while let Ok(Some(operation)) = operations.next() {
        // Forward jumps too: they may lead into what is read here as another operation's operand.
        if matches!(operation, Operation::Skip { .. } | Operation::Bra { .. }) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `.debug_frame` of one CIE, whose CFA is the value of `expression`, and one FDE.
    fn debug_frame(expression: &[u8]) -> Bytes {
        // DW_CFA_def_cfa_expression
        let mut rules = vec![0x0f, u8::try_from(expression.len()).unwrap()];
        rules.extend(expression);
        // Id of a CIE, version, augmentation, code and data alignment, return address register.
        let mut cie = vec![0xff, 0xff, 0xff, 0xff, 1, 0, 1, 0x78, 16];
        cie.extend(rules);
        let mut fde = 0u32.to_le_bytes().to_vec();
        fde.extend(0x1000u64.to_le_bytes());
        fde.extend(0x100u64.to_le_bytes());
        let mut section = Vec::new();
        for entry in [cie, fde] {
            section.extend(u32::try_from(entry.len()).unwrap().to_le_bytes());
            section.extend(entry);
        }
        section.into()
    }

    fn is_allowed(expression: &[u8]) -> bool {
        Guard::new(&ExplicitModuleSectionInfo {
            debug_frame: Some(debug_frame(expression)),
            ..ExplicitModuleSectionInfo::default()
        })
        .is_some()
    }

    #[test]
    fn rules_that_jump_are_refused() {
        // DW_OP_breg7 8
        assert!(is_allowed(&[0x77, 8]));
        // DW_OP_skip -3: itself, for ever.
        assert!(!is_allowed(&[0x2f, 0xfd, 0xff]));
        // DW_OP_lit1, DW_OP_bra -4
        assert!(!is_allowed(&[0x31, 0x28, 0xfc, 0xff]));
    }
}
