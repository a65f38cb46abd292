//! What V8 says of itself to debuggers: constants that its binary exports, `v8dbg_*`
//! (`tools/gen-postmortem-metadata.py`). Which there are differs from release to release.

use std::collections::HashMap;

use crate::binary::facts::{Facts, Source};
use crate::binary::symbol_table::{addresses_by_beginning, extents_of};
use crate::languages::target::Target;

/// How all names begin.
const BEGINNING: &str = "v8dbg_";
/// Longest name, and most constants that are read. Node.js 20 has 531.
const MAX_NAME: usize = 160;
const MAX_CONSTANTS: usize = 2048;
const BYTECODE_SIZES: &str = "_ZN2v88internal11interpreter9Bytecodes14kBytecodeSizesE";

/// Where a binary has its constants, in its own numbering; none if it is not V8.
#[derive(Debug)]
pub(crate) struct Exports {
    constants: HashMap<String, u64>,
    /// Where V8's table of its bytecodes' lengths is, and its own length.
    pub(crate) bytecode_sizes: Option<(u64, u64)>,
}

impl Facts for Exports {
    fn read(source: &Source<'_>) -> Self {
        let constants = addresses_by_beginning(source, BEGINNING, MAX_NAME, MAX_CONSTANTS);
        let [bytecode_sizes] = match constants.is_empty() {
            true => [None],
            false => extents_of(source, [BYTECODE_SIZES]),
        };
        Self { constants, bytecode_sizes }
    }

    fn bytes(&self) -> u64 {
        (self.constants.len() * (size_of::<(String, u64)>() + 48)) as u64
    }
}

impl Exports {
    /// Whether the binary is V8's.
    pub(crate) fn is_v8(&self) -> bool {
        !self.constants.is_empty()
    }
}

/// The constants of a process, by their names without the beginning.
#[derive(Debug, Default)]
pub(crate) struct Metadata(HashMap<String, i32>);

impl Metadata {
    /// Reads the constants of a binary that is loaded so far from where it says.
    pub(crate) fn read(exports: &Exports, bias: u64, target: &dyn Target) -> Self {
        let constants = exports.constants.iter().filter_map(|(name, address)| {
            let value = target.u32(address.wrapping_add(bias))?;
            Some((name.clone(), value.cast_signed()))
        });
        Self(constants.collect())
    }

    /// These constants.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn made_up(constants: &[(&str, i32)]) -> Self {
        Self(constants.iter().map(|&(name, value)| (name.to_owned(), value)).collect())
    }

    pub(crate) fn get(&self, name: &str) -> Option<i32> {
        self.0.get(name).copied()
    }

    /// The offset of a class's field, by the first of these names that there is.
    pub(crate) fn offset(&self, names: &[&str]) -> Option<u64> {
        let found = names.iter().find_map(|name| self.get(&format!("class_{name}")));
        // Objects with fields are small; what claims more would lead elsewhere.
        found.and_then(|offset| u64::try_from(offset).ok()).filter(|&offset| offset < 1 << 10)
    }

    /// The instance type of a class's objects.
    pub(crate) fn instance_type(&self, name: &str) -> Option<u16> {
        u16::try_from(self.get(&format!("type_{name}"))?).ok()
    }
}
