//! Goroutines' descriptors, `runtime.g`, as bytes.
//!
//! What is at the beginning has stayed where it is since Go 1.17; what is around the goroutine's
//! number moves with that (src/runtime/runtime2.go). What started a goroutine has been moved by
//! most releases, so it is found by what it has to look like.

use crate::bytes::u64_at;

/// As much of a descriptor as is read.
pub(crate) const LENGTH: usize = 384;
/// Where the saved stack pointer is, and so on.
pub(crate) const SP: usize = 56;
pub(crate) const PC: usize = 64;
/// The descriptor's own address, in what is saved of a goroutine that does not run.
pub(crate) const ITSELF: usize = 72;
/// Since Go 1.25, and before; there, the first is always 0.
pub(crate) const FRAME_POINTERS: [usize; 2] = [96, 104];
/// How far before the goroutine's number its state is.
pub(crate) const STATE: usize = 8;
/// How far behind it: since when it waits, and why.
pub(crate) const SINCE: usize = 16;
pub(crate) const REASON: usize = 24;
/// How far the first function is behind the place that started it.
pub(crate) const START: usize = 16;

/// Where the place that started a goroutine may be.
const CREATIONS: std::ops::Range<usize> = 200..LENGTH - START - 8;
/// How many descriptors must have a function there.
const MAX_LOOKED_AT: usize = 16;
/// Descriptors that lie closer than this are read together.
const MAX_GAP: u64 = 4096;
/// Most bytes that are read together.
const MAX_RUN: u64 = 64 << 10;

/// A descriptor's bytes.
#[derive(Clone, Debug)]
pub(crate) struct Descriptor {
    pub(crate) address: u64,
    pub(crate) bytes: [u8; LENGTH],
}

impl Descriptor {
    /// Reads the one at `address`.
    pub(crate) fn read(address: u64, read: impl Fn(u64, &mut [u8]) -> Option<()>) -> Option<Self> {
        let mut bytes = [0; LENGTH];
        read(address, &mut bytes)?;
        Some(Self { address, bytes })
    }
}

/// Reads those at the sorted `addresses`, neighbours together; what cannot be read is left out.
pub(crate) fn read_all(
    addresses: &[u64],
    read: impl Fn(u64, &mut [u8]) -> Option<()>,
    into: &mut Vec<Descriptor>,
) {
    let end = |address: u64| address.saturating_add(LENGTH as u64);
    let mut rest = addresses;
    let mut buffer = Vec::new();
    while let Some(&first) = rest.first() {
        let fits = |pair: &&[u64]| match pair {
            [one, next] => {
                next.saturating_sub(end(*one)) <= MAX_GAP && end(*next) - first <= MAX_RUN
            }
            _ => false,
        };
        let count = 1 + rest.windows(2).take_while(fits).count();
        let (run, others) = rest.split_at(count);
        rest = others;
        let last = run.last().map_or(first, |&last| last);
        buffer.resize(usize::try_from(end(last) - first).unwrap_or(LENGTH), 0);
        let are_read = read(first, &mut buffer).is_some();
        for &address in run {
            let within = usize::try_from(address - first).unwrap_or(usize::MAX);
            let bytes = buffer.get(within..).and_then(|rest| rest.first_chunk());
            let found = match bytes.filter(|_| are_read) {
                Some(bytes) => Some(Descriptor { address, bytes: *bytes }),
                None => Descriptor::read(address, &read),
            };
            into.extend(found);
        }
    }
}

/// Where descriptors keep the place that started the goroutine: the only place from which each has
/// a function's first address at the right distance. `begins` tells such addresses.
pub(crate) fn creation_offset<'a>(
    descriptors: impl Iterator<Item = &'a Descriptor>,
    begins: impl Fn(u64) -> bool,
) -> Option<usize> {
    let looked_at: Vec<_> = descriptors.take(MAX_LOOKED_AT).collect();
    let has = |offset: &usize| {
        let start = |one: &&Descriptor| u64_at(&one.bytes, offset + START);
        looked_at.iter().all(|one| start(one).is_some_and(&begins))
    };
    let mut found = CREATIONS.step_by(8).filter(has);
    let offset = found.next()?;
    (found.next().is_none() && !looked_at.is_empty()).then_some(offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory from 0x1000 on in which each word is its own address, with one page missing.
    fn read(address: u64, into: &mut [u8]) -> Option<()> {
        const MISSING: std::ops::Range<u64> = 0x5000..0x6000;
        let end = address.checked_add(into.len() as u64)?;
        if address < 0x1000 || (address < MISSING.end && end > MISSING.start) {
            return None;
        }
        for (index, word) in into.chunks_exact_mut(8).enumerate() {
            word.copy_from_slice(&(address + 8 * index as u64).to_le_bytes());
        }
        Some(())
    }

    #[test]
    fn neighbours_are_read_together_and_holes_cost_only_themselves() {
        let addresses = [0x0, 0x1000, 0x1200, 0x1f00, 0x4f00, 0x6000, 0x9_0000, u64::MAX - 7];
        let mut found = Vec::new();
        read_all(&addresses, read, &mut found);
        let at: Vec<_> = found.iter().map(|one| one.address).collect();
        assert_eq!(at, [0x1000, 0x1200, 0x1f00, 0x6000, 0x9_0000]);
        assert!(found.iter().all(|one| u64_at(&one.bytes, 8) == Some(one.address + 8)));
    }

    #[test]
    fn the_creator_is_where_all_have_a_function() {
        let with = |words: &[(usize, u64)]| {
            let mut bytes = [0; LENGTH];
            for (offset, word) in words {
                bytes[*offset..offset + 8].copy_from_slice(&word.to_le_bytes());
            }
            Descriptor { address: 0x1000, bytes }
        };
        let is_function = |at| at == 0x40 || at == 0x50;
        let of = |all: &[Descriptor]| creation_offset(all.iter(), is_function);
        let (one, other) = (with(&[(304, 0x40), (320, 0x40)]), with(&[(304, 0x50)]));
        assert_eq!(of(&[one.clone(), other.clone()]), Some(288));
        assert_eq!(of(&[one]), None, "two places");
        assert_eq!(of(&[other, with(&[])]), None, "no place");
        assert_eq!(of(&[]), None);
    }
}
