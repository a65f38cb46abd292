//! Numbers and text in another process's memory, none of which is believed to be there.

use crate::bytes::{u16_at, u32_at, u64_at};
use crate::process::memory::Memory;

/// Something that bytes can be read from by their address.
pub(crate) trait Target {
    /// Fills `into` with what lies at `address`; `None` when not all of it can be read.
    fn read(&self, address: u64, into: &mut [u8]) -> Option<()>;
}

impl Target for Memory {
    fn read(&self, address: u64, into: &mut [u8]) -> Option<()> {
        Memory::read(self, address, into)
    }
}

/// Reads numbers and text.
impl dyn Target + '_ {
    pub(crate) fn u8(&self, address: u64) -> Option<u8> {
        let mut byte = [0];
        self.read(address, &mut byte)?;
        byte.first().copied()
    }

    pub(crate) fn u16(&self, address: u64) -> Option<u16> {
        let mut bytes = [0; 2];
        self.read(address, &mut bytes)?;
        u16_at(&bytes, 0)
    }

    pub(crate) fn u32(&self, address: u64) -> Option<u32> {
        let mut bytes = [0; 4];
        self.read(address, &mut bytes)?;
        u32_at(&bytes, 0)
    }

    pub(crate) fn u64(&self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)?;
        u64_at(&bytes, 0)
    }

    /// `length` bytes; the caller has checked the length.
    pub(crate) fn bytes(&self, address: u64, length: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.read(address, &mut bytes)?;
        Some(bytes)
    }

    /// The zero-terminated text of at most `most` bytes at `address`, which must end within them.
    pub(crate) fn text(&self, address: u64, most: usize) -> Option<String> {
        /// Memory ends at borders of pages, and a text may end just before one.
        const PAGE: u64 = 4096;
        let mut text = Vec::new();
        let mut at = address;
        while text.len() < most {
            let left = PAGE - at % PAGE;
            let part = usize::try_from(left.min(64)).ok()?.min(most - text.len());
            let bytes = self.bytes(at, part)?;
            let end = bytes.iter().position(|&byte| byte == 0);
            text.extend_from_slice(bytes.get(..end.unwrap_or(part))?);
            if end.is_some() {
                return Some(String::from_utf8_lossy(&text).into_owned());
            }
            at = at.checked_add(part as u64)?;
        }
        None
    }
}
