//! Identity of a file's contents.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use serde::{Deserialize, Serialize};

/// Tells one content of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
    modified: (i64, i64),
    size: u64,
}

impl FileId {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            size: metadata.size(),
        }
    }

    /// The device that its file system is on.
    pub(crate) fn device(self) -> u64 {
        self.device
    }

    /// That of a made-up file.
    #[cfg(test)]
    pub(crate) fn at(device: u64, inode: u64) -> Self {
        Self { device, inode, modified: (0, 0), size: 0 }
    }
}
