//! From a process's descriptors to the inodes of their sockets.

use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::model::ProcessKey;
use crate::sources::inventory::holders::socket_of;
use crate::sources::procfs;

/// The descriptors of a process, which stay its own when its PID is used again.
pub(in crate::sources) struct Descriptors(OwnedFd);

impl Descriptors {
    pub(in crate::sources) fn of(process: ProcessKey) -> Option<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let path = format!("/proc/{}/fd", process.pid);
        let directory = openat(CWD, path, flags, Mode::empty()).ok()?;
        // Checked after opening: what is open cannot change hands any more.
        procfs::is_running(process).then_some(Self(directory))
    }

    /// Inode of the socket that a descriptor is.
    pub(in crate::sources) fn socket(&self, descriptor: u64) -> Option<u64> {
        socket_of(&self.0, descriptor)
    }

    /// Inodes of the sockets among `descriptors`, with what is known of each.
    pub(super) fn sockets<T>(&self, descriptors: Vec<(u64, T)>) -> Vec<(u64, T)> {
        let socket = |(descriptor, known): (u64, T)| Some((self.socket(descriptor)?, known));
        descriptors.into_iter().filter_map(socket).collect()
    }
}
