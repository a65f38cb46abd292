//! Go's maps whose keys are interfaces and whose elements are one word.
//!
//! Before Go 1.24 a map is an array of buckets (`src/runtime/map.go`); since then it is one group
//! of eight slots or a directory of tables of such groups (`src/internal/runtime/maps`), and a
//! build may still choose the former. Which it is, the map itself shows: only one way of reading
//! finds as many keys as the map says that it has, each of them a key.

use crate::sources::pools::go_values::GoValues;

/// Slots of a bucket or a group.
const SLOTS: usize = 8;
/// Words of a bucket: a byte a slot, the keys, the elements, the address of the next bucket.
const BUCKET: usize = 1 + 2 * SLOTS + SLOTS + 1;
/// Words of a group: a byte a slot, and the slots.
const GROUP: usize = 1 + 3 * SLOTS;
/// Largest exponent of a number of buckets or tables.
const MAX_EXPONENT: u64 = 16;

/// An interface in a map: table and value.
pub(super) type Key = (u64, u64);

/// The keys of the map at `address`, at most `most`; `None` when it has more, or when it was not
/// understood, as in the middle of a change.
pub(super) fn keys(
    values: &GoValues<'_>,
    address: u64,
    most: usize,
    is_key: impl Fn(Key) -> bool,
) -> Option<Vec<Key>> {
    let count = values.word(address).and_then(|count| usize::try_from(count).ok());
    let count = count.filter(|count| *count <= most)?;
    let fits = |keys: &Vec<Key>| keys.len() == count && keys.iter().all(|key| is_key(*key));
    let split = |slot: usize| 1 + 2 * slot;
    let interleaved = |slot: usize| 1 + 3 * slot;
    in_groups(values, address, count, interleaved)
        .filter(fits)
        .or_else(|| in_groups(values, address, count, split).filter(fits))
        .or_else(|| in_buckets(values, address, count).filter(fits))
}

/// The keys of a map of groups; `place` says where in a group each slot's key is.
fn in_groups(
    values: &GoValues<'_>,
    address: u64,
    count: usize,
    place: impl Fn(usize) -> usize + Copy,
) -> Option<Vec<Key>> {
    let [_, _, directory, length, numbers] = values.array::<5>(address)?;
    let mut found = Vec::new();
    if count == 0 {
        return Some(found);
    }
    if length == 0 {
        take_groups(values, directory, 1, place, &mut found)?;
        return Some(found);
    }
    let depth = numbers & 0xff;
    if depth > MAX_EXPONENT || length != 1 << depth || (numbers >> 8) & 0xff != 64 - depth {
        return None;
    }
    let mut tables = values.words(directory, usize::try_from(length).ok()?)?;
    // The directory has a table as often as it needs.
    tables.dedup();
    for table in tables {
        let [_, _, groups, mask] = values.array::<4>(table)?;
        let count = mask.checked_add(1).filter(|count| count.is_power_of_two())?;
        take_groups(values, groups, count.min(1 << MAX_EXPONENT), place, &mut found)?;
    }
    Some(found)
}

fn take_groups(
    values: &GoValues<'_>,
    address: u64,
    count: u64,
    place: impl Fn(usize) -> usize,
    found: &mut Vec<Key>,
) -> Option<()> {
    for index in 0..count {
        let group = values.array::<GROUP>(address.checked_add(index * 8 * GROUP as u64)?)?;
        for (slot, control) in group[0].to_le_bytes().into_iter().enumerate() {
            // The highest bit marks slots that are empty.
            if control & 0x80 == 0 {
                found.push((group[place(slot)], group[place(slot) + 1]));
            }
        }
    }
    Some(())
}

/// The keys of a map of buckets.
fn in_buckets(values: &GoValues<'_>, address: u64, count: usize) -> Option<Vec<Key>> {
    let [_, numbers, buckets, old, moved] = values.array::<5>(address)?;
    let exponent = (numbers >> 8) & 0xff;
    if exponent > MAX_EXPONENT {
        return None;
    }
    let mut found = Vec::new();
    if count == 0 {
        return Some(found);
    }
    // While a map grows, its old buckets are moved one by one: half as many, unless only their
    // overflow was too long.
    const SAME_SIZE: u64 = 8;
    let halved = exponent - u64::from(numbers & SAME_SIZE == 0 && exponent > 0);
    let old_buckets = if old == 0 { 0 } else { 1 << halved };
    for index in moved.min(old_buckets)..old_buckets {
        take_chain(values, old, index, count, &mut found)?;
    }
    for index in 0..1 << exponent {
        take_chain(values, buckets, index, count, &mut found)?;
    }
    Some(found)
}

fn take_chain(
    values: &GoValues<'_>,
    buckets: u64,
    index: u64,
    most: usize,
    found: &mut Vec<Key>,
) -> Option<()> {
    /// Lower marks are of slots that are empty or were moved.
    const LEAST_MARK: u8 = 5;
    let mut address = buckets.checked_add(index.checked_mul(8 * BUCKET as u64)?)?;
    for _ in 0..=most {
        let bucket = values.array::<BUCKET>(address)?;
        for (slot, mark) in bucket[0].to_le_bytes().into_iter().enumerate() {
            if mark >= LEAST_MARK {
                found.push((bucket[1 + 2 * slot], bucket[2 + 2 * slot]));
            }
        }
        address = bucket[BUCKET - 1];
        if address == 0 {
            return Some(());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::pools::testing::MadeUp;

    const IS_KEY: fn(Key) -> bool = |(table, value)| table == 0x77 && value != 0;

    fn keys_at(memory: &MadeUp, address: u64) -> Option<Vec<Key>> {
        let found = keys(&GoValues::new(memory), address, 100, IS_KEY);
        found.map(|mut keys| {
            keys.sort_unstable();
            keys
        })
    }

    #[test]
    fn a_small_map_is_one_group() {
        let mut memory = MadeUp::default();
        // Slots 0 and 2 are full.
        let mut group = [0; GROUP];
        group[0] = 0x8080_8080_8001_8002;
        group[1..3].copy_from_slice(&[0x77, 1]);
        group[7..9].copy_from_slice(&[0x77, 2]);
        memory.put(0x2000, &group);
        memory.put(0x1000, &[2, 9, 0x2000, 0, 0]);
        assert_eq!(keys_at(&memory, 0x1000), Some(vec![(0x77, 1), (0x77, 2)]));
        memory.put(0x1000, &[3, 9, 0x2000, 0, 0]);
        assert_eq!(keys_at(&memory, 0x1000), None, "it says that it has three");
        memory.put(0x2008, &[0x78]);
        memory.put(0x1000, &[2, 9, 0x2000, 0, 0]);
        assert_eq!(keys_at(&memory, 0x1000), None, "one is no key");
    }

    #[test]
    fn a_larger_map_has_tables_and_names_some_twice() {
        let mut memory = MadeUp::default();
        let full = |value| {
            let mut group = [0; GROUP];
            group[0] = 0x8080_8080_8080_8001;
            group[1..3].copy_from_slice(&[0x77, value]);
            group
        };
        memory.put(0x2000, &[full(1), full(2)].concat());
        memory.put(0x4000, &full(3));
        memory.put(0x3000, &[0, 0, 0x2000, 1]);
        memory.put(0x3100, &[0, 0, 0x4000, 0]);
        memory.put(0x3200, &[0x3000, 0x3000, 0x3100, 0x3100]);
        memory.put(0x1000, &[3, 9, 0x3200, 4, 2 | (62 << 8)]);
        assert_eq!(keys_at(&memory, 0x1000), Some(vec![(0x77, 1), (0x77, 2), (0x77, 3)]));
        memory.put(0x1000, &[3, 9, 0x3200, 8, 2 | (62 << 8)]);
        assert_eq!(keys_at(&memory, 0x1000), None, "the directory is not that long");
    }

    #[test]
    fn an_old_map_has_buckets_with_overflow_and_some_yet_to_move() {
        let mut memory = MadeUp::default();
        let bucket = |value, next| {
            let mut bucket = [0; BUCKET];
            bucket[0] = 0x0100_0000_0000_00ff;
            bucket[1..3].copy_from_slice(&[0x77, value]);
            bucket[BUCKET - 1] = next;
            bucket
        };
        memory.put(0x2000, &[bucket(1, 0x4000), bucket(2, 0)].concat());
        memory.put(0x4000, &bucket(3, 0));
        memory.put(0x1000, &[3, 1 << 8, 0x2000, 0, 0]);
        assert_eq!(keys_at(&memory, 0x1000), Some(vec![(0x77, 1), (0x77, 2), (0x77, 3)]));
        memory.put(0x5000, &bucket(4, 0));
        memory.put(0x1000, &[4, 1 << 8, 0x2000, 0x5000, 0]);
        let all = vec![(0x77, 1), (0x77, 2), (0x77, 3), (0x77, 4)];
        assert_eq!(keys_at(&memory, 0x1000), Some(all));
    }

    #[test]
    fn nonsense_ends() {
        let mut memory = MadeUp::default();
        let mut circle = [0; BUCKET];
        circle[0] = 0xffff;
        circle[BUCKET - 1] = 0x2000;
        memory.put(0x2000, &circle);
        for numbers in [0, u64::MAX, 16 << 8, 255 << 8] {
            for place in [0, 8, 0x2000, u64::MAX] {
                memory.put(0x1000, &[2, numbers, place, place, place]);
                assert_eq!(keys_at(&memory, 0x1000), None);
            }
        }
        memory.put(0x1000, &[u64::MAX, 0, 0, 0, 0]);
        assert_eq!(keys_at(&memory, 0x1000), None);
        assert_eq!(keys_at(&memory, 0x1001), None);
        assert_eq!(keys_at(&memory, 0), None);
    }
}
