//! Numbers and text in another process's memory, none of which is believed to be there.

use crate::bytes::{u16_at, u32_at, u64_at};
use crate::process::memory::Memory;

/// Memory ends at borders of pages, and what is read may end just before one.
const PAGE: u64 = 4096;

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

    /// As many bytes at `address` as can be read, in whole pages, but no more than `most`.
    pub(crate) fn bytes_up_to(&self, address: u64, most: usize) -> Option<Vec<u8>> {
        let mut read = Vec::new();
        while read.len() < most {
            let at = address.checked_add(read.len() as u64)?;
            let part = usize::try_from(PAGE - at % PAGE).ok()?.min(most - read.len());
            let Some(bytes) = self.bytes(at, part) else { break };
            read.extend_from_slice(&bytes);
        }
        Some(read)
    }

    /// The zero-terminated text of at most `most` bytes at `address`, which must end within them.
    pub(crate) fn text(&self, address: u64, most: usize) -> Option<String> {
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

/// Memory that does not exist, for tests and fuzzing.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod made_up {
    use super::Target;

    /// Where the memory begins.
    pub(crate) const BASE: u64 = 0x10_0000;

    /// Memory from [`BASE`] on.
    pub(crate) struct Image<'a>(pub(crate) &'a [u8]);

    impl Target for Image<'_> {
        fn read(&self, address: u64, into: &mut [u8]) -> Option<()> {
            let start = usize::try_from(address.checked_sub(BASE)?).ok()?;
            into.copy_from_slice(self.0.get(start..start.checked_add(into.len())?)?);
            Some(())
        }
    }
}
