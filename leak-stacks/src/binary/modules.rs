//! A process's executable mappings, and the binaries behind them.

use std::rc::Rc;

use crate::binary::debug_file;
use crate::binary::store::{Binary, BinaryStore};
use crate::process::maps::{locate, locate_in_root, opened};
use crate::process::snapshot::{MappedFile, ProcessSnapshot, SnapshotData};
use crate::process::stat::executable_identity;
use crate::process::vdso;
use crate::time::Timestamp;

/// An executable mapping.
#[derive(Debug)]
pub(crate) struct Mapping {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) offset: u64,
    /// The file as the process sees it; `None` for memory that no file backs.
    pub(crate) path: Option<Rc<str>>,
    /// The file, when it could be opened and is the one that is mapped.
    pub(crate) binary: Option<Rc<Binary>>,
}

impl Mapping {
    /// The place in the file of the byte at `address`.
    pub(crate) fn offset_of(&self, address: u64) -> Option<u64> {
        address.checked_sub(self.start)?.checked_add(self.offset)
    }

    /// `address` in the binary's own numbering.
    pub(crate) fn address_in_file(&self, address: u64) -> Option<u64> {
        self.binary.as_ref()?.elf()?.address_of_offset(self.offset_of(address)?)
    }
}

/// The executable mappings of one process.
#[derive(Debug)]
pub(crate) struct Modules {
    /// Sorted by address.
    mappings: Vec<Mapping>,
    /// Which of the programs that the process executes:
    /// [`RawStack::image`](crate::raw::RawStack::image).
    pub(crate) image: u64,
    /// Device and inode behind `/proc/PID/exe`: they change when the process executes another
    /// program.
    executable: Option<(u64, u64)>,
    /// Path of the executable.
    pub(crate) executable_path: Option<String>,
    /// When this was read.
    pub(crate) read_at: Timestamp,
}

impl Modules {
    /// The mappings of a snapshot, with their binaries.
    pub(crate) fn new(snapshot: ProcessSnapshot, store: &mut BinaryStore) -> Self {
        let ProcessSnapshot { data, open_files } = snapshot;
        let SnapshotData { process, image, executable, executable_path, files, taken_at, .. } =
            data;
        let files: Vec<_> = files.into_iter().zip(open_files).collect();
        let binary_of = |path: Option<&str>, file: Option<usize>, store: &mut BinaryStore| {
            if path == Some(vdso::NAME) {
                return store.vdso();
            }
            let (id, place) = files.get(file?)?;
            let binary = store.pin(*id, || opened(place))?;
            if let Some(path) = path {
                pin_debug_file(&binary, process.pid, path);
            }
            Some(binary)
        };
        let mut mappings: Vec<_> = data
            .mappings
            .into_iter()
            .map(|MappedFile { start, end, offset, path, file }| {
                let path: Option<Rc<str>> = path.map(Rc::from);
                let binary = binary_of(path.as_deref(), file, store);
                Mapping { start, end, offset, path, binary }
            })
            .collect();
        mappings.sort_unstable_by_key(|m| m.start);
        Self { mappings, image, executable, executable_path, read_at: taken_at }
    }

    /// Mappings that no process has.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn made_up(mappings: Vec<Mapping>) -> Self {
        let read_at = Timestamp(0);
        Self { mappings, image: 0, executable: None, executable_path: None, read_at }
    }

    /// The mapping that holds `address`.
    pub(crate) fn find(&self, address: u64) -> Option<&Mapping> {
        let after = self.mappings.partition_point(|m| m.start <= address);
        self.mappings.get(after.checked_sub(1)?).filter(|m| address < m.end)
    }

    /// The binary that is mapped at `address`.
    pub(crate) fn binary_at(&self, address: u64) -> Option<&Rc<Binary>> {
        self.find(address)?.binary.as_ref()
    }

    /// All mappings, by address.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Mapping> {
        self.mappings.iter()
    }

    /// The executable's own binary.
    pub(crate) fn executable(&self) -> Option<&Rc<Binary>> {
        self.executable_mapping()?.binary.as_ref()
    }

    /// A mapping of the executable's code, with its binary.
    pub(crate) fn executable_mapping(&self) -> Option<&Mapping> {
        let path = self.executable_path.as_deref()?;
        self.mappings.iter().find(|m| m.path.as_deref() == Some(path) && m.binary.is_some())
    }

    /// Whether the process has executed another program since. A process that has exited has not.
    pub(crate) fn is_replaced(&self, pid: u32) -> bool {
        executable_identity(pid).is_some_and(|now| self.executable.is_some_and(|old| old != now))
    }
}

/// Looks for a binary's debug file, which may be gone later, as the binary itself.
fn pin_debug_file(binary: &Binary, pid: u32, path: &str) {
    binary.pin_debug_file(|file| {
        debug_file::find(file, path, |wanted| {
            let own = wanted.to_str().and_then(|wanted| locate_in_root(pid, wanted));
            let places = [own, locate(wanted)].into_iter().flatten();
            places.filter_map(|(place, _)| opened(&place)).collect()
        })
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::ProcessKey;
    use crate::process::snapshot::{MappingReader, ModulesError};
    use crate::process::stat::start_ticks;

    fn own_key() -> ProcessKey {
        let pid = std::process::id();
        ProcessKey { pid, start_ticks: start_ticks(pid).unwrap() }
    }

    #[test]
    fn finds_own_code_by_address_and_refuses_another_start_time() {
        let mut store = BinaryStore::default();
        let snapshot = MappingReader::default().look(own_key(), Timestamp(0)).unwrap();
        let modules = Modules::new(snapshot, &mut store);
        let here = finds_own_code_by_address_and_refuses_another_start_time as fn() as usize as u64;
        let mapping = modules.find(here).unwrap();
        assert!(mapping.path.as_deref().unwrap().contains("leak_stacks"));
        assert!(mapping.address_in_file(here).is_some());
        assert!(modules.executable().is_some());
        assert!(modules.find(0).is_none());
        assert!(!modules.is_replaced(std::process::id()));

        let other = ProcessKey { start_ticks: own_key().start_ticks + 1, ..own_key() };
        let refused = MappingReader::default().look(other, Timestamp(0));
        assert!(matches!(refused, Err(ModulesError::Reused(_))));
    }
}
