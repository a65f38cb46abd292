//! The memory of a process, read through procfs.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::process::ProcessKey;
use crate::process::stat::start_ticks;

/// A process's memory. The descriptor stays bound to the program that ran when it was opened: once
/// the PID is reused or another program is executed, reads fail.
#[derive(Debug)]
pub struct Memory(File);

impl Memory {
    /// Opens the memory of `process`.
    ///
    /// # Errors
    /// When it is gone, or may not be read.
    pub fn open(process: ProcessKey) -> io::Result<Self> {
        let file = File::open(format!("/proc/{}/mem", process.pid))?;
        // Checked after opening: what is open cannot change hands any more.
        if start_ticks(process.pid)? != process.start_ticks {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Self(file))
    }

    /// Fills `into` with the bytes at `address`; `None` when not all of them can be read.
    #[must_use]
    pub fn read(&self, address: u64, into: &mut [u8]) -> Option<()> {
        // procfs takes addresses as signed numbers; user space ends below that.
        i64::try_from(address.checked_add(into.len() as u64)?).ok()?;
        self.0.read_exact_at(into, address).ok()
    }

    /// `length` bytes at `address`; the caller has checked the length.
    pub(crate) fn bytes(&self, address: u64, length: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.read(address, &mut bytes)?;
        Some(bytes)
    }

    /// The word at `address`.
    pub(crate) fn word(&self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)?;
        Some(u64::from_le_bytes(bytes))
    }

    /// The word at `offset` of the structure at `base`, which is not null.
    pub(crate) fn field(&self, base: u64, offset: u32) -> Option<u64> {
        if base == 0 {
            return None;
        }
        self.word(base.checked_add(offset.into())?)
    }
}
