//! Reads PHP's strings.

use crate::languages::target::Target;

/// Longest name and path, in bytes, that are believed.
pub(crate) const MAX_NAME: u64 = 512;
pub(crate) const MAX_PATH: u64 = 4096;

/// In a string: its type, its hash, its length and its bytes.
const TYPE: u64 = 4;
const HASH: u64 = 8;
const LENGTH: u64 = 16;
const BYTES: u64 = 24;
const IS_STRING: u8 = 6;

/// A string's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Text {
    bytes: Vec<u8>,
    /// 0 until it is computed.
    pub(crate) hash: u64,
}

impl Text {
    /// As it is shown: names of anonymous classes go on with a place, after a zero.
    pub(crate) fn shown(&self) -> String {
        let end = self.bytes.iter().position(|&byte| byte == 0).unwrap_or(self.bytes.len());
        String::from_utf8_lossy(self.bytes.get(..end).unwrap_or_default()).into_owned()
    }

    /// Its length, and its first bytes as words.
    pub(crate) fn start(&self) -> [u64; 4] {
        let word = |index: usize| {
            let start = self.bytes.get(index * 8..).unwrap_or_default();
            start.iter().take(8).rev().fold(0, |word, &byte| word << 8 | u64::from(byte))
        };
        [self.length(), word(0), word(1), word(2)]
    }

    /// Its length.
    pub(crate) fn length(&self) -> u64 {
        self.bytes.len() as u64
    }
}

/// The text of a `zend_string` of at most `most` bytes.
pub(crate) fn string(address: u64, most: u64, target: &dyn Target) -> Option<Text> {
    let field = |offset| address.checked_add(offset);
    if target.u8(field(TYPE)?)? & 15 != IS_STRING {
        return None;
    }
    let (hash, length) = (target.u64(field(HASH)?)?, target.u64(field(LENGTH)?)?);
    if length == 0 || length > most {
        return None;
    }
    let mut bytes = target.bytes(field(BYTES)?, usize::try_from(length).ok()? + 1)?;
    (bytes.pop()? == 0).then_some(Text { bytes, hash })
}
