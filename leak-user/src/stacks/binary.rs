//! Binaries held open from first sight, and what is loaded of them when a stack needs it.

use std::cell::{Cell, OnceCell, RefCell, RefMut};
use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::rc::Rc;

use super::elf::Elf;
use super::golang::GoBinary;
use super::symbolize::{Symbol, Symbols};
use super::unwind::FrameRules;
use super::vdso;

/// Most files that are held open; each takes a file descriptor.
const MAX_BINARIES: usize = 4096;
/// Most bytes of sections that are kept in memory, over all files.
const MAX_LOADED_BYTES: u64 = 384 << 20;

/// What tells one content of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
    modified: (i64, i64),
    size: u64,
}

impl FileId {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            size: metadata.size(),
        }
    }
}

/// A binary that some process runs, held open.
#[derive(Debug)]
pub(super) struct Binary {
    id: FileId,
    pub(super) file: File,
    /// The file with its symbols and lines, when they are not in its own.
    debug: OnceCell<Option<File>>,
    loaded: RefCell<State>,
    last_used: Cell<u64>,
}

#[derive(Debug)]
enum State {
    Unread,
    /// Not an ELF file, or one that made a parser fail; it is not tried again.
    Unusable,
    Loaded(Box<Loaded>),
}

/// What has been read of a binary.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) elf: Elf,
    /// Headers of its debug file.
    debug: Option<Elf>,
    rules: Option<FrameRules>,
    /// Present when the Go toolchain built it.
    pub(super) go: Option<GoBinary>,
    symbols: Option<Symbols>,
}

impl Loaded {
    fn read(file: &File, debug_file: Option<&File>) -> Result<Self, super::elf::ElfError> {
        let elf = Elf::read(file)?;
        let debug = debug_file.and_then(|file| Elf::read(file).ok());
        let go = GoBinary::read(&elf, file);
        Ok(Self { elf, debug, rules: None, go, symbols: None })
    }

    /// The unwind rules of `file`, read when they are first asked for: a Go program's own table takes
    /// their place.
    pub(super) fn rules(&mut self, file: &File, debug_file: Option<&File>) -> &mut FrameRules {
        let debug = self.debug.as_ref().zip(debug_file);
        self.rules.get_or_insert_with(|| FrameRules::read(&self.elf, file, debug))
    }

    fn bytes(&self) -> u64 {
        self.rules.as_ref().map_or(0, FrameRules::bytes)
            + self.go.as_ref().map_or(0, GoBinary::bytes)
            + self.symbols.as_ref().map_or(0, Symbols::bytes)
    }
}

impl Binary {
    fn new(id: FileId, file: File, clock: u64) -> Rc<Self> {
        Rc::new(Self {
            id,
            file,
            debug: OnceCell::new(),
            loaded: RefCell::new(State::Unread),
            last_used: Cell::new(clock),
        })
    }

    /// Takes the first answer to where its debug file is; like the binary, it may be gone later.
    pub(super) fn pin_debug_file(&self, find: impl FnOnce(&File) -> Option<File>) {
        self.debug.get_or_init(|| super::guarded(|| find(&self.file)).flatten());
    }

    pub(super) fn debug_file(&self) -> Option<&File> {
        self.debug.get()?.as_ref()
    }

    /// What is loaded of it, read now when it was not before; `None` for a file that is unusable.
    pub(super) fn loaded(&self) -> Option<RefMut<'_, Loaded>> {
        let mut state = self.loaded.try_borrow_mut().ok()?;
        if matches!(*state, State::Unread) {
            *state = super::guarded(|| Loaded::read(&self.file, self.debug_file()).ok())
                .flatten()
                .map_or(State::Unusable, |loaded| State::Loaded(Box::new(loaded)));
        }
        RefMut::filter_map(state, |state| match state {
            State::Loaded(loaded) => Some(&mut **loaded),
            State::Unread | State::Unusable => None,
        })
        .ok()
    }

    /// Whether `address` lies in code to which signal handlers return.
    pub(super) fn is_signal_return(&self, address: u64) -> bool {
        // A walk that came through it has read the rules.
        self.loaded().is_some_and(|loaded| {
            let rules = loaded.rules.as_ref();
            rules.is_some_and(|rules| rules.is_signal_return(&loaded.elf, &self.file, address))
        })
    }

    /// The functions at `address`, innermost first; see [`Symbols::at`].
    pub(super) fn symbols_at(&self, address: u64) -> Rc<[Symbol]> {
        let Some(mut loaded) = self.loaded() else { return Rc::new([]) };
        let Loaded { elf, debug, go, symbols, .. } = &mut *loaded;
        let debug = debug.as_ref().zip(self.debug_file());
        let from_table = || go.as_ref()?.symbols(&self.file, address).map(Rc::<[Symbol]>::from);
        // Go's own table knows all that its debug information does, and is much smaller.
        if go.as_ref().is_some_and(GoBinary::tells_inlined)
            && let Some(found) = from_table()
        {
            return found;
        }
        let symbols = symbols.get_or_insert_with(|| Symbols::read(elf, &self.file, debug));
        if !symbols.has_debug
            && let Some(found) = from_table()
        {
            return found;
        }
        let found = symbols.at(address);
        if found.is_empty() { from_table().unwrap_or(found) } else { found }
    }

    fn loaded_bytes(&self) -> u64 {
        match self.loaded.try_borrow().as_deref() {
            Ok(State::Loaded(loaded)) => loaded.bytes(),
            _ => 0,
        }
    }
}

/// The binaries of all processes; one that several processes run is held once.
#[derive(Debug, Default)]
pub(super) struct BinaryStore {
    binaries: HashMap<FileId, Rc<Binary>>,
    vdso: OnceCell<Option<Rc<Binary>>>,
    clock: u64,
    /// How many files were not pinned because the store was full.
    pub(super) refused: u64,
}

impl BinaryStore {
    /// The binary in `file`; `None` when too many are held already.
    pub(super) fn pin(
        &mut self,
        id: FileId,
        open: impl FnOnce() -> Option<File>,
    ) -> Option<Rc<Binary>> {
        self.clock += 1;
        if let Some(binary) = self.binaries.get(&id) {
            binary.last_used.set(self.clock);
            return Some(Rc::clone(binary));
        }
        if self.binaries.len() >= MAX_BINARIES {
            self.close_unused();
        }
        if self.binaries.len() >= MAX_BINARIES {
            self.refused += 1;
            return None;
        }
        let binary = Binary::new(id, open()?, self.clock);
        self.binaries.insert(id, Rc::clone(&binary));
        Some(binary)
    }

    /// The code that the kernel maps into every process.
    pub(super) fn vdso(&self) -> Option<Rc<Binary>> {
        let read = || {
            let file = vdso::image()?;
            Some(Binary::new(FileId::of(&file.metadata().ok()?), file, self.clock))
        };
        self.vdso.get_or_init(read).clone()
    }

    /// Notes that a stack needed `binary`.
    pub(super) fn touch(&mut self, binary: &Binary) {
        self.clock += 1;
        binary.last_used.set(self.clock);
    }

    /// Drops the least recently used contents while too many bytes are loaded: they are read again
    /// when a stack needs them.
    pub(super) fn trim(&mut self) {
        let mut total: u64 = self.binaries.values().map(|b| b.loaded_bytes()).sum();
        if total <= MAX_LOADED_BYTES {
            return;
        }
        let mut loaded: Vec<_> =
            self.binaries.values().map(|b| (b.last_used.get(), b.loaded_bytes(), b.id)).collect();
        loaded.sort_unstable_by_key(|(used, ..)| *used);
        for (_, bytes, id) in loaded {
            if total <= MAX_LOADED_BYTES {
                break;
            }
            if let Some(binary) = self.binaries.get(&id)
                && let Ok(mut state) = binary.loaded.try_borrow_mut()
                && matches!(*state, State::Loaded(_))
            {
                *state = State::Unread;
            }
            total = total.saturating_sub(bytes);
        }
    }

    /// Closes what no process runs any more.
    pub(super) fn close_unused(&mut self) {
        self.binaries.retain(|_, binary| Rc::strong_count(binary) > 1);
    }

    /// How many of the held files turned out to be unusable.
    pub(super) fn unusable(&self) -> usize {
        let unusable = |b: &&Rc<Binary>| {
            b.loaded.try_borrow().is_ok_and(|state| matches!(*state, State::Unusable))
        };
        self.binaries.values().filter(unusable).count()
    }

    /// How many binaries are held.
    pub(super) fn len(&self) -> usize {
        self.binaries.len()
    }
}
