//! Detects copies of a binary, as containers of the same image have them, so that its facts are
//! read once.
//!
//! A build id only finds a candidate, because a file can claim any. The files count as the same
//! when their bytes are equal: otherwise one container could put its names into another's stacks.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::rc::{Rc, Weak};

use crate::binary::elf::{Elf, read_exact};

/// Sections with build ids: the linker's and the Go toolchain's.
const NOTES: [&str; 2] = [".note.gnu.build-id", ".note.go.buildid"];
/// Longest build id, its note's head included.
const MAX_NOTE: u64 = 256;
/// Largest files that are compared.
const MAX_SIZE: u64 = 1 << 30;
/// Most build ids that are remembered.
const MAX_KNOWN: usize = 4096;
const CHUNK: usize = 1 << 20;

/// The first binary with each build id, as long as some process runs it.
#[derive(Debug)]
pub(crate) struct DuplicateBinaries<B>(RefCell<HashMap<Vec<u8>, Weak<B>>>);

impl<B> Default for DuplicateBinaries<B> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<B: AsRef<File>> DuplicateBinaries<B> {
    /// Another binary with the same content; without one, `binary` is what later copies find.
    pub(crate) fn original_of(&self, binary: &Rc<B>) -> Option<Rc<B>> {
        let file = (**binary).as_ref();
        let id = build_id(file)?;
        let mut known = self.0.try_borrow_mut().ok()?;
        if let Some(other) = known.get(&id).and_then(Weak::upgrade) {
            return is_copy((*other).as_ref(), file).then_some(other);
        }
        if known.len() >= MAX_KNOWN {
            known.retain(|_, binary| binary.strong_count() > 0);
        }
        if known.len() < MAX_KNOWN {
            known.insert(id, Rc::downgrade(binary));
        }
        None
    }
}

fn build_id(file: &File) -> Option<Vec<u8>> {
    let elf = Elf::read(file).ok()?;
    let note = NOTES.iter().find_map(|name| elf.section(name))?;
    let size = usize::try_from(note.size).ok().filter(|_| note.size <= MAX_NOTE)?;
    read_exact(file, note.offset, size).ok()
}

/// Whether two files have the same bytes.
fn is_copy(one: &File, other: &File) -> bool {
    let compare = || -> std::io::Result<bool> {
        let (this, that) = (one.metadata()?, other.metadata()?);
        if (this.dev(), this.ino()) == (that.dev(), that.ino()) {
            return Ok(true);
        }
        let size = this.len();
        if size > MAX_SIZE || size != that.len() {
            return Ok(false);
        }
        let (mut left, mut right) = (vec![0; CHUNK], vec![0; CHUNK]);
        let mut at = 0;
        while at < size {
            let length = usize::try_from(size - at).map_or(CHUNK, |rest| rest.min(CHUNK));
            one.read_exact_at(&mut left[..length], at)?;
            other.read_exact_at(&mut right[..length], at)?;
            if left[..length] != right[..length] {
                return Ok(false);
            }
            at += length as u64;
        }
        Ok(true)
    };
    compare().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::binary::store::{Binary, BinaryStore};
    use crate::process::file_id::FileId;

    /// A copy of the running program, changed at one place.
    fn copy(store: &mut BinaryStore, change: Option<u64>) -> Rc<Binary> {
        let file = tempfile::tempfile().unwrap();
        let bytes = fs::read("/proc/self/exe").unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        if let Some(at) = change {
            file.write_all_at(&[!bytes[usize::try_from(at).unwrap()]], at).unwrap();
        }
        store.pin(FileId::of(&file.metadata().unwrap()), None, || Some(file)).unwrap()
    }

    #[test]
    fn copies_share_what_is_loaded_and_forgeries_do_not() {
        let mut store = BinaryStore::default();
        let last = fs::metadata("/proc/self/exe").unwrap().len() - 1;
        let (one, same) = (copy(&mut store, None), copy(&mut store, None));
        let forged = copy(&mut store, Some(last));
        for binary in [&one, &same, &forged] {
            assert!(binary.elf().is_some());
        }
        assert!(Rc::ptr_eq(same.original().unwrap(), &one));
        assert!(one.original().is_none() && forged.original().is_none());
    }
}
