//! Binaries held open from the moment a process is first seen, and what is read of them when a
//! stack needs it.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::fs::File;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use crate::binary::debug_file::DebugFile;
use crate::binary::duplicates::DuplicateBinaries;
use crate::binary::elf::Elf;
use crate::binary::facts::{AllFacts, Facts, Source};
use crate::guarded::guarded;
use crate::process::file_id::FileId;
use crate::process::root::Root;
use crate::process::vdso;
use crate::process::watchdog::{ReadWatchdog, Reading};

/// Most files that are held open; each takes a file descriptor.
const MAX_BINARIES: usize = 4096;
/// Most bytes of facts that are kept in memory, over all files.
const MAX_FACTS_BYTES: u64 = 384 << 20;

/// Where a process sees a file.
///
/// The same file may have another debug file elsewhere: whoever mounts or links it there chooses
/// that. So what is known of a file is kept by the place that it was learnt at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) root: Root,
    pub(crate) path: Rc<str>,
}

/// What a binary's contents depend on; no place: no debug file is looked for.
type Key = (FileId, Option<Place>);

/// A binary that some process runs, held open.
#[derive(Debug)]
pub(crate) struct Binary {
    id: FileId,
    pub(crate) file: File,
    /// The file with its symbols and lines, when they are not in its own.
    debug: OnceCell<Option<DebugFile>>,
    contents: RefCell<Contents>,
    last_used: Cell<u64>,
    /// The binary that this is a copy of, once it was looked for.
    original: OnceCell<Option<Rc<Self>>>,
    duplicates: Rc<DuplicateBinaries<Self>>,
    itself: Weak<Self>,
    watchdog: Arc<ReadWatchdog>,
}

impl AsRef<File> for Binary {
    fn as_ref(&self) -> &File {
        &self.file
    }
}

/// How far the reading of a binary has come.
#[derive(Debug)]
enum Contents {
    Unread,
    /// Not an ELF file, or one that made a parser fail; it is not tried again.
    Unusable,
    /// Its file system does not answer.
    Unresponsive,
    Read(Read),
}

#[derive(Debug)]
struct Read {
    elf: Rc<Elf>,
    /// Headers of its debug file.
    debug: Option<Rc<Elf>>,
    facts: AllFacts,
}

/// Whether a binary's file can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Usability {
    Usable,
    Unusable,
    Unresponsive,
}

impl Binary {
    fn new(
        id: FileId,
        file: File,
        clock: u64,
        duplicates: &Rc<DuplicateBinaries<Self>>,
        watchdog: &Arc<ReadWatchdog>,
    ) -> Rc<Self> {
        Rc::new_cyclic(|itself| Self {
            id,
            file,
            debug: OnceCell::new(),
            contents: RefCell::new(Contents::Unread),
            last_used: Cell::new(clock),
            original: OnceCell::new(),
            duplicates: Rc::clone(duplicates),
            itself: Weak::clone(itself),
            watchdog: Arc::clone(watchdog),
        })
    }

    /// Takes the first answer to where its debug file is; like the binary, that may be gone later.
    pub(crate) fn pin_debug_file(
        &self,
        find: impl FnOnce(&File, &ReadWatchdog) -> Option<DebugFile>,
    ) {
        let find = || guarded(|| find(&self.file, &self.watchdog)).flatten();
        self.debug.get_or_init(find);
    }

    fn debug_file(&self) -> Option<&DebugFile> {
        self.debug.get()?.as_ref()
    }

    /// Watches a read of it and of its debug file. When those are on two file systems, that of the
    /// debug file is to blame: whoever runs the binary may have put that one there.
    fn begin_reading(&self) -> Option<Reading<'_>> {
        self.watchdog.begin(self.debug_file().map_or(self.id, |debug| debug.id))
    }

    /// Its headers, read now unless they were before; `None` for a file that is unusable.
    pub(crate) fn elf(&self) -> Option<Rc<Elf>> {
        self.owner().headers().map(|(elf, _)| elf)
    }

    /// Facts about it, read now unless they were before; `None` for a file that is unusable, or
    /// whose parser has failed.
    pub(crate) fn facts<T: Facts>(&self) -> Option<Rc<T>> {
        self.owner().own_facts()
    }

    /// The same if they were read before.
    pub(crate) fn known_facts<T: Facts>(&self) -> Option<Rc<T>> {
        match &*self.owner().contents.try_borrow().ok()? {
            Contents::Read(read) => read.facts.get(),
            Contents::Unread | Contents::Unusable | Contents::Unresponsive => None,
        }
    }

    /// The binary that holds what is read: the original, if this is a copy.
    fn owner(&self) -> &Self {
        self.original().map_or(self, |original| original)
    }

    /// The binary that this is a copy of, which is no copy itself. Binaries with a debug file keep
    /// to themselves: each may have its own.
    pub(crate) fn original(&self) -> Option<&Rc<Self>> {
        let look = || {
            if self.debug_file().is_some() {
                return None;
            }
            let _reading = self.watchdog.begin(self.id)?;
            guarded(|| self.duplicates.original_of(&self.itself.upgrade()?)).flatten()
        };
        self.original.get_or_init(look).as_ref()
    }

    fn headers(&self) -> Option<(Rc<Elf>, Option<Rc<Elf>>)> {
        let mut contents = self.contents.try_borrow_mut().ok()?;
        if matches!(*contents, Contents::Unread | Contents::Unresponsive) {
            *contents = match self.begin_reading() {
                Some(_reading) => guarded(|| self.read_headers())
                    .flatten()
                    .map_or(Contents::Unusable, Contents::Read),
                None => Contents::Unresponsive,
            };
        }
        match &*contents {
            Contents::Read(read) => Some((Rc::clone(&read.elf), read.debug.clone())),
            Contents::Unread | Contents::Unusable | Contents::Unresponsive => None,
        }
    }

    fn read_headers(&self) -> Option<Read> {
        let elf = Rc::new(Elf::read(&self.file).ok()?);
        let debug = self.debug_file().and_then(|debug| Elf::read(&debug.file).ok()).map(Rc::new);
        Some(Read { elf, debug, facts: AllFacts::default() })
    }

    fn own_facts<T: Facts>(&self) -> Option<Rc<T>> {
        self.headers()?;
        if let Contents::Read(read) = &*self.contents.try_borrow().ok()?
            && let Some(known) = read.facts.get()
        {
            return Some(known);
        }
        let facts = Rc::new(self.read_with(T::read)?);
        if let Contents::Read(read) = &mut *self.contents.try_borrow_mut().ok()? {
            read.facts.keep(&facts);
        }
        Some(facts)
    }

    /// What `read` makes of its files, which is not kept; `None` for a file that is unusable.
    pub(crate) fn read_with<R>(&self, read: impl FnOnce(&Source<'_>) -> R) -> Option<R> {
        let (elf, debug) = self.headers()?;
        let _reading = self.begin_reading()?;
        let debug = debug.as_deref().zip(self.debug_file().map(|debug| &debug.file));
        let source = Source { elf: &elf, file: &self.file, debug };
        guarded(|| read(&source))
    }

    /// Whether it can be used, as far as that was tried.
    pub(crate) fn usability(&self) -> Usability {
        match self.owner().contents.try_borrow().as_deref() {
            Ok(Contents::Read(_)) => Usability::Usable,
            Ok(Contents::Unresponsive) => Usability::Unresponsive,
            _ => Usability::Unusable,
        }
    }

    fn facts_bytes(&self) -> u64 {
        match self.contents.try_borrow().as_deref() {
            Ok(Contents::Read(read)) => read.facts.bytes(),
            _ => 0,
        }
    }
}

/// The binaries of all processes; one that several processes run is held once.
#[derive(Debug, Default)]
pub(crate) struct BinaryStore {
    binaries: HashMap<Key, Rc<Binary>>,
    duplicates: Rc<DuplicateBinaries<Binary>>,
    vdso: OnceCell<Option<Rc<Binary>>>,
    clock: u64,
    watchdog: Arc<ReadWatchdog>,
}

impl BinaryStore {
    /// An empty store, whose reads `watchdog` sees.
    pub(crate) fn new(watchdog: Arc<ReadWatchdog>) -> Self {
        Self { watchdog, ..Self::default() }
    }

    /// A binary, as it is seen at a place; `None` when too many are held already.
    pub(crate) fn pin(
        &mut self,
        id: FileId,
        place: Option<Place>,
        open: impl FnOnce() -> Option<File>,
    ) -> Option<Rc<Binary>> {
        self.clock += 1;
        let key = (id, place);
        if let Some(binary) = self.binaries.get(&key) {
            binary.last_used.set(self.clock);
            return Some(Rc::clone(binary));
        }
        if self.binaries.len() >= MAX_BINARIES {
            self.close_unused();
        }
        if self.binaries.len() >= MAX_BINARIES {
            return None;
        }
        let reading = self.watchdog.begin(id)?;
        let file = open()?;
        drop(reading);
        let binary = self.binary(id, file);
        self.binaries.insert(key, Rc::clone(&binary));
        Some(binary)
    }

    fn binary(&self, id: FileId, file: File) -> Rc<Binary> {
        Binary::new(id, file, self.clock, &self.duplicates, &self.watchdog)
    }

    /// The code that the kernel maps into every process.
    pub(crate) fn vdso(&self) -> Option<Rc<Binary>> {
        let read = || {
            let file = vdso::image()?;
            Some(self.binary(FileId::of(&file.metadata().ok()?), file))
        };
        self.vdso.get_or_init(read).clone()
    }

    /// Notes that a stack needed `binary`.
    pub(crate) fn touch(&mut self, binary: &Binary) {
        self.clock += 1;
        binary.owner().last_used.set(self.clock);
    }

    /// Drops the least recently used contents while they take too much memory: they are read again
    /// when a stack needs them.
    pub(crate) fn trim(&mut self) {
        let mut total: u64 = self.binaries.values().map(|b| b.facts_bytes()).sum();
        if total <= MAX_FACTS_BYTES {
            return;
        }
        let mut oldest_first: Vec<_> = self.binaries.values().collect();
        oldest_first.sort_unstable_by_key(|binary| binary.last_used.get());
        for binary in oldest_first {
            if total <= MAX_FACTS_BYTES {
                break;
            }
            total = total.saturating_sub(binary.facts_bytes());
            if let Ok(mut contents) = binary.contents.try_borrow_mut()
                && matches!(*contents, Contents::Read(_))
            {
                *contents = Contents::Unread;
            }
        }
    }

    /// Closes what no process runs any more.
    pub(crate) fn close_unused(&mut self) {
        self.binaries.retain(|_, binary| Rc::strong_count(binary) > 1);
    }

    /// How many binaries are held.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.binaries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::ProcessKey;

    fn own() -> (FileId, File) {
        let file = File::open("/proc/self/exe").unwrap();
        (FileId::of(&file.metadata().unwrap()), file)
    }

    fn seen_at(path: &str) -> Option<Place> {
        Some(Place { root: Root::of(std::process::id()).unwrap(), path: path.into() })
    }

    #[test]
    fn a_debug_file_is_one_places_word() {
        let mut store = BinaryStore::default();
        let [here, there, again] = ["/here/shop", "/there/shop", "/here/shop"].map(|path| {
            let (id, file) = own();
            store.pin(id, seen_at(path), || Some(file)).unwrap()
        });
        assert!(Rc::ptr_eq(&here, &again));
        let (id, file) = own();
        there.pin_debug_file(|_, _| Some(DebugFile { id, file }));
        assert!(there.debug_file().is_some() && here.debug_file().is_none());
    }

    #[test]
    fn a_file_that_did_not_answer_is_read_once_it_does() {
        let watchdog = Arc::<ReadWatchdog>::default();
        let mut store = BinaryStore::new(Arc::clone(&watchdog));
        let (id, file) = own();
        let binary = store.pin(id, None, || Some(file)).unwrap();
        let hanging = watchdog.begin(id).unwrap();
        watchdog.give_up(ProcessKey { pid: 1, start_ticks: 1 });
        assert!(binary.headers().is_none());
        assert_eq!(binary.usability(), Usability::Unresponsive);
        drop(hanging);
        assert!(binary.headers().is_some());
        assert_eq!(binary.usability(), Usability::Usable);
    }
}
