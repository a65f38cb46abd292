//! V8's tables of source positions, and of baseline code's places in the bytecode
//! (`src/codegen/source-position-table.cc`, `src/baseline/bytecode-offset-iterator.h`).

/// A place in a script, and in which of the calls that were compiled into one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SourcePosition {
    /// Characters before it.
    pub(crate) offset: u32,
    /// Which of the inlined calls it is in; `None`: in the outermost function.
    pub(crate) inlined: Option<u32>,
}

impl SourcePosition {
    /// What is written as this number; `None` for positions in V8's own sources, and for none.
    pub(crate) fn of(number: i64) -> Option<Self> {
        let number = number.cast_unsigned();
        let is_elsewhere = number & 1 != 0;
        // One more than the offset, and than the number of the call.
        let offset = (number >> 1 & 0x3fff_ffff).checked_sub(1)?;
        let inlined = (number >> 31 & 0xffff).checked_sub(1);
        let inlined = inlined.and_then(|inlined| u32::try_from(inlined).ok());
        (!is_elsewhere).then_some(Self { offset: u32::try_from(offset).ok()?, inlined })
    }
}

/// The position at a place in code: the last one before it.
pub(crate) fn position_at(table: &[u8], place: u32) -> Option<SourcePosition> {
    let mut bytes = table.iter().copied();
    let (mut at, mut number, mut found) = (0_i64, 0_i64, None);
    while let Some(step) = signed(&mut bytes) {
        // A step's sign tells statements from expressions.
        at = at.checked_add(if step < 0 { !step } else { step })?;
        number = number.checked_add(signed(&mut bytes)?)?;
        if at > place.into() {
            break;
        }
        found = Some(number);
    }
    SourcePosition::of(found?)
}

/// Where in the bytecode the baseline code is that goes on at `place`, given how long the
/// bytecode's instructions are, in their order.
pub(crate) fn bytecode_offset_at(
    table: &[u8],
    place: u32,
    lengths: impl Iterator<Item = u32>,
) -> Option<u32> {
    let mut bytes = table.iter().copied();
    let mut end = u64::from(unsigned(&mut bytes)?);
    if u64::from(place) <= end {
        return None;
    }
    let mut offset = 0_u32;
    for length in lengths {
        end = end.checked_add(unsigned(&mut bytes)?.into())?;
        if u64::from(place) <= end {
            return Some(offset);
        }
        offset = offset.checked_add(length)?;
    }
    None
}

/// Seven bits in each byte, the lowest first; all but the last have the eighth set.
fn variable(bytes: &mut impl Iterator<Item = u8>) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..63).step_by(7) {
        let byte = bytes.next()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn unsigned(bytes: &mut impl Iterator<Item = u8>) -> Option<u32> {
    u32::try_from(variable(bytes)?).ok()
}

/// With the sign in the lowest bit.
fn signed(bytes: &mut impl Iterator<Item = u8>) -> Option<i64> {
    let value = variable(bytes)?;
    Some((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_those_before_a_place() {
        // 0: character 20, 4 (an expression): 27, 200: 3.
        let table = [0, 84, 9, 28, 0x88, 3, 95];
        for (place, offset) in [(0, 20), (3, 20), (4, 27), (199, 27), (200, 3), (9999, 3)] {
            let found = position_at(&table, place);
            assert_eq!(found, Some(SourcePosition { offset, inlined: None }), "{place}");
        }
        for damaged in [&[][..], &[0], &[0, 0x80], &[0, 1], &[0xff; 30]] {
            assert_eq!(position_at(damaged, 7), None, "{damaged:?}");
        }
    }

    #[test]
    fn baseline_code_is_in_the_bytecode_that_it_was_made_from() {
        let at = |place| bytecode_offset_at(&[8, 0x90, 1, 4], place, [3, 1, 2].into_iter());
        assert_eq!(
            [at(8), at(9), at(152), at(153), at(156)],
            [None, Some(0), Some(0), Some(3), Some(3)]
        );
        assert_eq!(at(157), None, "the table ends before");
    }
}
