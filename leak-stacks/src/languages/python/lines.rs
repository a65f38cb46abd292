//! From a place in a function's bytecode to a line of its source.
//!
//! The formats are described in CPython's Objects/lnotab_notes.txt (to 3.10) and
//! Objects/locations.md (since 3.11; InternalDocs/code_objects.md later).

/// How a release writes the lines of a code object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum LineFormat {
    /// `co_lnotab`, to 3.9: steps of the bytecode's offset and of the line.
    Steps,
    /// `co_linetable` of 3.10: lengths of ranges and steps of the line, some ranges without any.
    Ranges,
    /// `co_linetable` since 3.11: also columns, in entries of different forms.
    Locations,
}

/// Bytes that an instruction, or a part of one, takes.
pub(crate) const UNIT: u64 = 2;
/// 3.10: the range has no line.
const NO_LINE: i8 = -128;

/// Line of the instruction at `offset`, in bytes, of a function that begins at line `first`.
pub(crate) fn line_at(format: LineFormat, table: &[u8], first: u32, offset: u64) -> Option<u32> {
    let line = match format {
        LineFormat::Steps => by_steps(table, first.into(), offset),
        LineFormat::Ranges => by_ranges(table, first.into(), offset),
        LineFormat::Locations => by_locations(table, first.into(), offset),
    }?;
    u32::try_from(line).ok().filter(|&line| line > 0)
}

fn by_steps(table: &[u8], first: i64, offset: u64) -> Option<i64> {
    let (mut line, mut start) = (first, 0u64);
    for pair in table.chunks_exact(2) {
        let &[step, lines] = pair else { break };
        start += u64::from(step);
        if start > offset {
            break;
        }
        line += i64::from(lines.cast_signed());
    }
    Some(line)
}

fn by_ranges(table: &[u8], first: i64, offset: u64) -> Option<i64> {
    let (mut line, mut end) = (first, 0u64);
    for pair in table.chunks_exact(2) {
        let &[length, lines] = pair else { break };
        let lines = lines.cast_signed();
        if lines != NO_LINE {
            line += i64::from(lines);
        }
        end += u64::from(length);
        if offset < end {
            return (lines != NO_LINE).then_some(line);
        }
    }
    None
}

fn by_locations(table: &[u8], first: i64, offset: u64) -> Option<i64> {
    let (mut line, mut end) = (first, 0u64);
    let mut bytes = table.iter().copied();
    while let Some(head) = bytes.next() {
        // Only the first byte of an entry has the highest bit.
        if head & 0x80 == 0 {
            return None;
        }
        let form = (head >> 3) & 15;
        match form {
            0..=9 => skip(&mut bytes, 1)?,
            10..=12 => {
                line += i64::from(form - 10);
                skip(&mut bytes, 2)?;
            }
            13 => line = line.checked_add(signed(&mut bytes)?)?,
            14 => {
                line = line.checked_add(signed(&mut bytes)?)?;
                // Last line and both columns.
                for _ in 0..3 {
                    unsigned(&mut bytes)?;
                }
            }
            _ => {}
        }
        end += (u64::from(head & 7) + 1) * UNIT;
        if offset < end {
            return (form != 15).then_some(line);
        }
    }
    None
}

fn skip(bytes: &mut impl Iterator<Item = u8>, count: usize) -> Option<()> {
    (0..count).try_for_each(|_| bytes.next().map(|_| ()))
}

/// A number in groups of six bits, lowest first; the seventh bit says that more follow.
fn unsigned(bytes: &mut impl Iterator<Item = u8>) -> Option<u64> {
    let mut number = 0;
    for group in 0..8 {
        let byte = bytes.next()?;
        number |= u64::from(byte & 0x3f) << (6 * group);
        if byte & 0x40 == 0 {
            return Some(number);
        }
    }
    None
}

/// The same with the sign in the lowest bit.
fn signed(bytes: &mut impl Iterator<Item = u8>) -> Option<i64> {
    let number = unsigned(bytes)?;
    let size = i64::try_from(number >> 1).ok()?;
    Some(if number & 1 == 0 { size } else { -size })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_a_function() {
        // def f(): / a() / (300 bytes later) / b(), then back to line 2.
        let table = [0, 1, 6, 2, 255, 0, 45, 1, 4, 0xfe];
        let at = |offset| line_at(LineFormat::Steps, &table, 1, offset);
        assert_eq!([at(0), at(5), at(6), at(305), at(306), at(310)], [2, 2, 4, 4, 5, 3].map(Some));
    }

    #[test]
    fn ranges_with_a_gap() {
        let table = [0, 1, 6, 0, 4, 0x80, 2, 0xff];
        let at = |offset| line_at(LineFormat::Ranges, &table, 10, offset);
        assert_eq!(
            [at(0), at(5), at(6), at(10), at(12)],
            [Some(11), Some(11), None, Some(10), None]
        );
    }

    #[test]
    fn locations_of_all_forms() {
        let table = [
            0x80 | 1, // short, 2 units, line as before
            7,
            0x80 | 11 << 3, // one line further, 1 unit
            1,
            2,
            0x80 | 13 << 3 | 7, // 8 units, line + 70 = 140 = 12 | 2 << 6
            0x4c,
            2,
            0x80 | 15 << 3, // 1 unit without a line
            0x80 | 14 << 3, // 1 unit, line - 1
            3,
            0,
            1,
            1,
        ];
        let at = |unit: u64| line_at(LineFormat::Locations, &table, 5, unit * 2);
        assert_eq!([at(0), at(1), at(2), at(3), at(10)], [5, 5, 6, 76, 76].map(Some));
        assert_eq!([at(11), at(12), at(13)], [None, Some(75), None]);
    }

    #[test]
    fn garbage_has_no_line_and_ends() {
        for format in [LineFormat::Steps, LineFormat::Ranges, LineFormat::Locations] {
            for byte in 0..=255 {
                let _ = line_at(format, &[byte; 4096], u32::MAX, u64::MAX);
                let _ = line_at(format, &[byte; 3], 0, 3);
            }
        }
        assert_eq!(line_at(LineFormat::Locations, &[0], 1, 0), None);
        assert_eq!(line_at(LineFormat::Steps, &[0, 0x80], 1, 0), None, "a negative line");
    }
}
