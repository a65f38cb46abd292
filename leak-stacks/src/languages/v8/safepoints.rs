//! V8's tables of the calls in optimised code, which are read to tell where code was that is no
//! longer valid: its callees return to one of its exits instead (`src/codegen/safepoint-table.h`).

use crate::bytes::u32_at;

/// Where a table has how many entries there are, where these begin, and how many bytes of each are
/// behind its addresses: of the two compilers, in older releases and in newer ones.
const FORMS: [(usize, usize, usize); 4] = [(0, 8, 0), (0, 16, 1), (4, 12, 0), (4, 20, 1)];
/// Most entries.
const MAX_ENTRIES: usize = 64 << 10;

/// Where the call was made whose callee returns to an exit, given where the exits begin.
///
/// Which form the table has it does not say: in the right one all calls are in their order and
/// before the exits, and their exits are behind.
pub(crate) fn call_of_exit(table: &[u8], exit: u32, exits: u32) -> Option<u32> {
    FORMS.into_iter().find_map(|form| {
        let mut found = None;
        let mut before = None;
        for (call, its_exit) in entries(table, form)? {
            let is_after = before.is_none_or(|before| before < call);
            let is_placed = call <= exits && its_exit.is_none_or(|its_exit| its_exit >= exits);
            (is_after && is_placed).then_some(())?;
            before = Some(call);
            if its_exit == Some(exit) {
                found = Some(call);
            }
        }
        found
    })
}

/// Calls and their exits.
fn entries(
    table: &[u8],
    (count_at, first, behind): (usize, usize, usize),
) -> Option<impl Iterator<Item = (u32, Option<u32>)>> {
    let count = u32_at(table, count_at)? as usize;
    let sizes = u32_at(table, count_at + 4)?;
    let size = |shift: u32| (sizes >> shift & 7) as usize;
    let (has_exits, registers, address, index) = (sizes & 1 != 0, size(1), size(4), size(7));
    let length = address * 2 + index + behind + registers;
    let is_credible = has_exits && (1..=4).contains(&address) && (1..=4).contains(&index);
    if !is_credible || count > MAX_ENTRIES {
        return None;
    }
    let end = first.checked_add(count.checked_mul(length)?)?;
    let entries = table.get(first..end)?.chunks_exact(length);
    let number =
        |bytes: &[u8]| bytes.iter().rev().fold(0, |number, &byte| number << 8 | u32::from(byte));
    let part = move |entry: &[u8], from: usize| entry.get(from..from + address).map(number);
    Some(entries.filter_map(move |entry| {
        // One more than the exit; zero: it has none.
        let exit = part(entry, address + index)?.checked_sub(1);
        Some((part(entry, 0)?, exit))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two calls: at 16 with the exit at 96, at 32 with that at 104; nothing, or a byte, behind.
    fn table(before: &[u32], header: &[u32], behind: &[u8]) -> Vec<u8> {
        // Both have exits; one byte for addresses and for indices.
        let words = [before, &[2, 0x91], header].concat();
        let head = words.into_iter().flat_map(u32::to_le_bytes);
        let entries = [[16, 1, 97], [32, 2, 105]].map(|entry| [&entry, behind].concat());
        head.chain(entries.concat()).collect()
    }

    #[test]
    fn calls_are_found_in_each_form() {
        for table in [
            table(&[], &[], &[]),
            table(&[], &[7, 3], &[0]),
            table(&[9], &[], &[]),
            table(&[9], &[7, 3], &[0]),
        ] {
            assert_eq!(call_of_exit(&table, 96, 90), Some(16), "{table:?}");
            assert_eq!(call_of_exit(&table, 104, 90), Some(32), "{table:?}");
            assert_eq!(call_of_exit(&table, 97, 90), None, "no call has this exit");
            assert_eq!(call_of_exit(&table, 96, 24), None, "a call behind the exits");
            assert_eq!(call_of_exit(&table[..table.len() - 1], 96, 90), None, "cut");
        }
        assert_eq!(call_of_exit(&[0xff; 64], 96, 90), None);
    }
}
