//! Made-up memory.

use std::collections::BTreeMap;

use crate::sources::pools::memory::Memory;

/// Memory whose words are listed. Functions begin at listed addresses.
#[derive(Clone, Debug, Default)]
pub(super) struct MadeUp {
    words: BTreeMap<u64, u64>,
    functions: BTreeMap<u64, &'static str>,
}

impl MadeUp {
    pub(super) fn put(&mut self, address: u64, words: &[u64]) {
        self.words.extend((address..).step_by(8).zip(words.iter().copied()));
    }

    /// A table of methods at `address`, the first of which has this name.
    pub(super) fn put_table(&mut self, address: u64, method: &'static str) {
        self.put(address, &[0, 0, 0, address + 0x10_0000]);
        self.functions.insert(address + 0x10_0000, method);
    }

    /// A function value at `address`, of the function with this name.
    pub(super) fn put_function(&mut self, address: u64, name: &'static str) {
        self.put(address, &[address + 0x10_0000]);
        self.functions.insert(address + 0x10_0000, name);
    }

    /// Where words are listed.
    pub(super) fn addresses(&self) -> Vec<u64> {
        self.words.keys().copied().collect()
    }
}

impl Memory for MadeUp {
    fn read(&self, address: u64, into: &mut [u8]) -> Option<()> {
        for (index, word) in into.chunks_exact_mut(8).enumerate() {
            let at = address.checked_add(8 * index as u64)?;
            word.copy_from_slice(&self.words.get(&at)?.to_le_bytes());
        }
        Some(())
    }

    fn function_from(&self, address: u64) -> Option<String> {
        self.functions.get(&address).map(|&name| name.to_owned())
    }

    fn function(&self, address: u64) -> Option<String> {
        self.function_from(address)
    }
}
