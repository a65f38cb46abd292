//! Where each release of PHP keeps what is read of it: the offsets that a compiler gives to
//! `zend_executor_globals` (Zend/zend_globals.h) and `zend_op_array` (Zend/zend_compile.h) of that
//! release, for x86-64.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::raw::{InterpreterProfile, PROFILE_PARAMETERS, walker};

/// A release: 8 and 2 for 8.2.
pub(crate) type Version = (u8, u8);

/// In a `zend_execute_data` of every release since 7.0: the opcode, the function, the caller.
pub(crate) const OPCODE: u64 = 0;
pub(crate) const FUNCTION: u64 = 24;
pub(crate) const PREVIOUS: u64 = 48;
/// In an opcode: its line.
pub(crate) const LINE: u64 = 24;
/// Marks a parameter that does not apply.
const ABSENT: u32 = u32::MAX;

/// Offsets of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Layout {
    /// In the globals: the current frame.
    pub(crate) current: u64,
    /// In the function of a script: its file's name. Its first and last line follow.
    pub(crate) file: u64,
}

impl Layout {
    /// The layout of a release, if it is known without asking the process.
    pub(crate) fn of(version: Version) -> Option<Self> {
        let (current, file) = match version {
            (7, 4) => (488, 136),
            (8, 0 | 1 | 3) => (488, 144),
            (8, 2) => (488, 152),
            (8, 4) => (488, 168),
            (8, 5) => (512, 168),
            _ => return None,
        };
        Some(Self { current, file })
    }
}

/// Where the pointer to the current frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Current {
    /// At this address: the process has only one.
    OfProcess(u64),
    /// Each thread has its own: `slot` is from the thread register to the address of its globals,
    /// and `offset` from there.
    OfThread { slot: i32, offset: u64 },
}

/// What the kernel programs need.
pub(crate) fn profile(current: Current, file: u64) -> InterpreterProfile {
    let (address, slot) = match current {
        Current::OfProcess(address) => (address, ABSENT),
        Current::OfThread { slot, offset } => (offset, slot.cast_unsigned()),
    };
    let (low, high) = (address as u32, (address >> 32) as u32);
    let mut parameters = [0; PROFILE_PARAMETERS];
    for (parameter, value) in parameters.iter_mut().zip([low, high, slot, file as u32]) {
        *parameter = value;
    }
    let mut hasher = DefaultHasher::new();
    (current, file).hash(&mut hasher);
    let hash = hasher.finish();
    InterpreterProfile { kind: walker::PHP, tag: (hash ^ (hash >> 32)) as u32, parameters }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_releases_and_others() {
        for minor in 0..=5 {
            assert!(Layout::of((8, minor)).is_some());
        }
        assert!(Layout::of((7, 4)).is_some());
        for unknown in [(5, 6), (7, 3), (8, 6), (9, 0)] {
            assert_eq!(Layout::of(unknown), None);
        }
    }

    #[test]
    fn profiles_of_different_places_have_different_tags() {
        let of = |current| profile(current, 152);
        let process = of(Current::OfProcess(0x5555_0000_1238));
        assert_eq!(process.parameters[..4], [0x1238, 0x5555, ABSENT, 152]);
        let thread = of(Current::OfThread { slot: -16, offset: 488 });
        assert_eq!(thread.parameters[..4], [488, 0, (-16_i32).cast_unsigned(), 152]);
        assert_ne!(process.tag, thread.tag);
        assert_ne!(process.tag, of(Current::OfProcess(0x5555_0000_1240)).tag);
    }
}
