//! The compressed table of a method's lines.

use crate::languages::jvm::numbers::Numbers;

/// Announces two whole numbers instead of two small ones in a byte.
const WHOLE: u8 = 0xff;

/// The line of the instruction at `place`, by a table of pairs of differences.
///
/// The pairs need not be in the order of their places: the nearest one before counts.
pub(crate) fn line_at(table: &[u8], place: u32, excess: u8) -> Option<u32> {
    let mut numbers = Numbers::new(table, excess);
    let (mut at, mut line) = (0u32, 0u32);
    let mut nearest: Option<(u32, u32)> = None;
    loop {
        match numbers.byte()? {
            0 => break,
            WHOLE => {
                at = at.wrapping_add_signed(numbers.signed()?);
                line = line.wrapping_add_signed(numbers.signed()?);
            }
            both => {
                at = at.wrapping_add(u32::from(both >> 3));
                line = line.wrapping_add(u32::from(both & 7));
            }
        }
        if at == place {
            nearest = Some((at, line));
            break;
        }
        if at < place && nearest.is_none_or(|(best, _)| at > best) {
            nearest = Some((at, line));
        }
    }
    // Class files keep lines in 16 bits.
    nearest.map(|(_, line)| line).filter(|line| (1..=0xffff).contains(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_whole_pairs() {
        // 0: line 10, 3: 11, 11: 9 (a loop's end), 200: 300.
        let table = [WHOLE, 0, 20, 3 << 3 | 1, WHOLE, 16, 3, WHOLE, 192 + 58, 2, 192 + 6, 6, 0];
        let expected =
            [(0, 10), (2, 10), (3, 11), (10, 11), (11, 9), (199, 9), (200, 300), (9999, 300)];
        for (place, line) in expected {
            assert_eq!(line_at(&table, place, 0), Some(line), "{place}");
        }
    }

    #[test]
    fn the_nearest_before_counts_and_damage_is_no_line() {
        let unordered = [WHOLE, 40, 20, WHOLE, 39, 2, 0];
        assert_eq!(line_at(&unordered, 25, 0), Some(10));
        assert_eq!(line_at(&unordered, 5, 0), Some(11));
        assert_eq!(line_at(&[WHOLE, 0, 20], 0, 0), Some(10), "found before the end is missed");
        for damaged in [&[][..], &[WHOLE], &[WHOLE, 0], &[9], &[0]] {
            assert_eq!(line_at(damaged, 7, 0), None, "{damaged:?}");
        }
    }
}
