//! Which program a process runs.

use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::io::Read;
use std::os::unix::fs::MetadataExt;

use crate::model::ProgramId;

/// Most bytes of a command line that are looked at.
const MAX_ARGUMENTS: u64 = 64 << 10;

/// Identifies the program of a process by its executable's path, size and time of change, which are
/// the same in all containers of an image.
pub(super) fn identify(pid: u32, container: Option<&str>) -> Option<ProgramId> {
    let link = format!("/proc/{pid}/exe");
    let file = fs::metadata(&link).ok()?;
    let mut hash = StableHasher::new();
    fs::read_link(&link).ok()?.hash(&mut hash);
    (file.size(), file.mtime(), file.mtime_nsec()).hash(&mut hash);
    let binary = hash.finish();
    let mut arguments = Vec::new();
    let command = File::open(format!("/proc/{pid}/cmdline")).ok()?;
    command.take(MAX_ARGUMENTS).read_to_end(&mut arguments).ok()?;
    arguments.hash(&mut hash);
    container.hash(&mut hash);
    fs::read_link(format!("/proc/{pid}/cwd")).ok().hash(&mut hash);
    Some(ProgramId { binary, command: hash.finish() })
}

/// FNV-1a with 64 bits (Fowler, Noll, Vo): the same in every run.
struct StableHasher(u64);

impl StableHasher {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for StableHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_program_has_the_same_identity() {
        let own = identify(std::process::id(), None).unwrap();
        assert_eq!(identify(std::process::id(), None), Some(own));
        let contained = identify(std::process::id(), Some("abc")).unwrap();
        assert_eq!(contained.binary, own.binary);
        assert_ne!(contained.command, own.command);
    }
}
