//! The memory of a program, as the readers of pools see it.

use leak_stacks::GoProgram;

/// Memory, and the functions in it.
pub(super) trait Memory {
    /// Fills `into` with the bytes at `address`.
    fn read(&self, address: u64, into: &mut [u8]) -> Option<()>;

    /// Name of the function that begins at `address`.
    fn function_from(&self, address: u64) -> Option<String>;

    /// Name of the function that holds `address`.
    fn function(&self, address: u64) -> Option<String>;
}

impl Memory for GoProgram {
    fn read(&self, address: u64, into: &mut [u8]) -> Option<()> {
        Self::read(self, address, into)
    }

    fn function_from(&self, address: u64) -> Option<String> {
        Self::function_from(self, address)
    }

    fn function(&self, address: u64) -> Option<String> {
        Self::function(self, address)
    }
}

/// The words in `bytes`.
pub(super) fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    let (words, _) = bytes.as_chunks();
    words.iter().map(|word| u64::from_le_bytes(*word))
}
