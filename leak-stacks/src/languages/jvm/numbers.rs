//! HotSpot's compressed numbers (`UNSIGNED5`).

/// Bytes from here on are followed by another one.
const LONGER: u8 = 192;
/// Most bytes of a number.
const MOST: u32 = 5;

/// Compressed numbers, one after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers<'a> {
    rest: &'a [u8],
    /// What is added to each byte, so that 0 does not occur.
    excess: u8,
}

impl<'a> Numbers<'a> {
    pub(crate) fn new(bytes: &'a [u8], excess: u8) -> Self {
        Self { rest: bytes, excess }
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    /// The next number.
    pub(crate) fn unsigned(&mut self) -> Option<u32> {
        let mut sum = 0u32;
        for index in 0..MOST {
            let byte = self.byte()?;
            let digit = u32::from(byte.checked_sub(self.excess)?);
            sum = sum.wrapping_add(digit << (6 * index));
            if byte < LONGER {
                break;
            }
        }
        Some(sum)
    }

    /// The next number, whose lowest bit is its sign.
    pub(crate) fn signed(&mut self) -> Option<i32> {
        let number = self.unsigned()?;
        Some((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `UNSIGNED5::write_uint` does it.
    fn compressed(value: u32, excess: u8) -> Vec<u8> {
        let low = u32::from(LONGER - excess);
        let (mut sum, mut bytes) = (value, Vec::new());
        loop {
            if sum < low || bytes.len() + 1 == MOST as usize {
                bytes.push(u8::try_from(sum + u32::from(excess)).unwrap());
                return bytes;
            }
            sum -= low;
            bytes.push(u8::try_from(low + u32::from(excess) + sum % 64).unwrap());
            sum >>= 6;
        }
    }

    #[test]
    fn both_ways_of_writing() {
        for excess in [0, 1] {
            for value in [0, 1, 2, 189, 190, 191, 192, 193, 300, 12_479, 12_480, 1 << 20, u32::MAX]
            {
                let bytes = compressed(value, excess);
                let mut numbers = Numbers::new(&bytes, excess);
                assert_eq!(numbers.unsigned(), Some(value), "{bytes:?}");
                assert_eq!(numbers.byte(), None, "{value}");
                assert!(excess == 0 || !bytes.contains(&0), "{bytes:?}");
            }
        }
        for (number, value) in [(0, 0), (1, -1), (2, 1), (3, -2), (401, -201)] {
            assert_eq!(Numbers::new(&compressed(number, 0), 0).signed(), Some(value));
        }
        assert_eq!(Numbers::new(&[200], 0).unsigned(), None);
        assert_eq!(Numbers::new(&[0], 1).unsigned(), None);
    }
}
