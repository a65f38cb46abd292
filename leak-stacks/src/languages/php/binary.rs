//! What a binary with PHP's engine tells: its release, and where it has its globals.

use crate::binary::facts::{Facts, Source};
use crate::binary::symbol_table::addresses_of;
use crate::bytes::base_name;
use crate::languages::php::layout::Version;
use crate::languages::php::thread::{Slot, returned_slot};

/// What every release has in its constants; its own number follows.
const VERSION_MARK: &[u8] = b"X-Powered-By: PHP/";
/// Longest code that is looked at, in bytes.
const MAX_CODE: usize = 48;

/// Whether a file may hold the engine: `php8.2`, `php-fpm`, `libphp.so`, `frankenphp`.
pub(crate) fn may_be_php(path: &str) -> bool {
    let name = base_name(path);
    ["php", "libphp", "mod_php", "frankenphp"].iter().any(|start| name.starts_with(start))
}

/// What is read of such a file. Addresses are in the file's own numbering.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EngineFile {
    /// The release, if the engine is in this file and says.
    pub(crate) version: Option<Version>,
    /// The globals of a build without threads.
    pub(crate) globals: Option<u64>,
    /// In a build for threads: a thread's slot, and where the offset of the globals is.
    pub(crate) of_threads: Option<(Slot, u64)>,
    /// Where the binary's variables begin, and how much of them the file holds.
    pub(crate) variables: Vec<(u64, u64)>,
}

impl Facts for EngineFile {
    fn read(source: &Source<'_>) -> Self {
        let names = ["executor_globals", "tsrm_get_ls_cache_tcb_offset", "executor_globals_offset"];
        let [globals, cache, offset] = addresses_of(source, names);
        let of_threads =
            cache.zip(offset).and_then(|(cache, offset)| Some((slot(cache, source)?, offset)));
        let segments = source.elf.segments.iter().filter(|segment| segment.writable);
        let variables = segments.map(|segment| (segment.address, segment.file_size)).collect();
        Self { version: version(source), globals, of_threads, variables }
    }

    fn bytes(&self) -> u64 {
        0
    }
}

fn slot(function: u64, source: &Source<'_>) -> Option<Slot> {
    let (offset, size) = source.elf.code_at(function)?;
    let length = usize::try_from(size).ok()?.min(MAX_CODE);
    let code = crate::binary::elf::read_exact(source.file, offset, length).ok()?;
    returned_slot(&code, function)
}

fn version(source: &Source<'_>) -> Option<Version> {
    let constants = source.elf.data(source.file, source.elf.section(".rodata")?).ok()?;
    version_in(&constants)
}

fn version_in(constants: &[u8]) -> Option<Version> {
    let at = constants.windows(VERSION_MARK.len()).position(|window| window == VERSION_MARK)?;
    let number = constants.get(at + VERSION_MARK.len()..)?;
    let number: String =
        number.iter().take(8).map(|&byte| char::from(byte)).take_while(|c| *c != '\0').collect();
    let mut parts = number.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files() {
        let engines =
            ["/usr/bin/php8.2", "/usr/sbin/php-fpm", "/x/libphp7.4.so", "/frankenphp", "/php"];
        assert!(engines.iter().all(|path| may_be_php(path)));
        assert!(!may_be_php("/usr/lib/php/20220829/pdo.so") && !may_be_php("/usr/bin/phd"));
    }

    #[test]
    fn releases() {
        let of = |text: &str| version_in(format!("\0x\0{text}").as_bytes());
        assert_eq!(of("X-Powered-By: PHP/8.2.36\0"), Some((8, 2)));
        assert_eq!(of("X-Powered-By: PHP/8.10.0-dev\0"), Some((8, 10)));
        assert_eq!(of("X-Powered-By: PHP/7.4"), Some((7, 4)));
        for none in ["X-Powered-By: PHP/", "X-Powered-By: PHP/x.y", "X-Powered-By: PHP/8", ""] {
            assert_eq!(of(none), None);
        }
    }
}
