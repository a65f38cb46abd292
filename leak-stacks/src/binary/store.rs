//! Binaries held open from first sight, and what is loaded of them when a stack needs it.

use std::cell::{Cell, OnceCell, RefCell, RefMut};
use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use crate::binary::duplicates::Twins;
use crate::binary::elf::Elf;
use crate::binary::symbols::{Symbol, Symbols};
use crate::languages::go::GoBinary;
use crate::process::vdso;
use crate::process::watchdog::Watch;
use crate::shortfall::Shortfall;
use crate::unwind::walk::FrameRules;

/// Most files that are held open; each takes a file descriptor.
const MAX_BINARIES: usize = 4096;
/// Most bytes of sections that are kept in memory, over all files.
const MAX_LOADED_BYTES: u64 = 384 << 20;

/// What tells one content of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
    modified: (i64, i64),
    size: u64,
}

impl FileId {
    pub(crate) fn of(metadata: &Metadata) -> Self {
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
pub(crate) struct Binary {
    id: FileId,
    pub(crate) file: File,
    /// The file with its symbols and lines, when they are not in its own.
    debug: OnceCell<Option<File>>,
    loaded: RefCell<State>,
    last_used: Cell<u64>,
    /// The binary that this is a copy of, once it was looked for.
    owner: OnceCell<Option<Rc<Self>>>,
    twins: Rc<Twins>,
    itself: Weak<Self>,
    watch: Arc<Watch>,
}

#[derive(Debug)]
enum State {
    Unread,
    /// Not an ELF file, or one that made a parser fail; it is not tried again.
    Unusable,
    /// It was tried by a resolver that never came back.
    Unresponsive,
    Loaded(Box<Loaded>),
}

/// What has been read of a binary.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) elf: Elf,
    /// Headers of its debug file.
    debug: Option<Elf>,
    rules: Option<FrameRules>,
    /// Present when the Go toolchain built it.
    pub(crate) go: Option<GoBinary>,
    symbols: Option<Symbols>,
}

impl Loaded {
    fn read(file: &File, debug_file: Option<&File>) -> Result<Self, crate::binary::elf::ElfError> {
        let elf = Elf::read(file)?;
        let debug = debug_file.and_then(|file| Elf::read(file).ok());
        let go = GoBinary::read(&elf, file);
        Ok(Self { elf, debug, rules: None, go, symbols: None })
    }

    /// The unwind rules of `file`, read when they are first asked for: a Go program's own table takes
    /// their place.
    pub(crate) fn rules(&mut self, file: &File, debug_file: Option<&File>) -> &mut FrameRules {
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
    fn new(id: FileId, file: File, clock: u64, twins: &Rc<Twins>, watch: &Arc<Watch>) -> Rc<Self> {
        Rc::new_cyclic(|itself| Self {
            id,
            file,
            debug: OnceCell::new(),
            loaded: RefCell::new(State::Unread),
            last_used: Cell::new(clock),
            owner: OnceCell::new(),
            twins: Rc::clone(twins),
            itself: Weak::clone(itself),
            watch: Arc::clone(watch),
        })
    }

    /// Takes the first answer to where its debug file is; like the binary, it may be gone later.
    pub(crate) fn pin_debug_file(&self, find: impl FnOnce(&File) -> Option<File>) {
        self.debug.get_or_init(|| {
            let _reading = self.watch.begin(self.id)?;
            crate::guarded(|| find(&self.file)).flatten()
        });
    }

    pub(crate) fn debug_file(&self) -> Option<&File> {
        self.debug.get()?.as_ref()
    }

    /// What is loaded of it, read now when it was not before; `None` for a file that is unusable.
    pub(crate) fn loaded(&self) -> Option<RefMut<'_, Loaded>> {
        if let Some(owner) = self.owner() {
            return owner.loaded_itself();
        }
        self.loaded_itself()
    }

    /// The binary that this is a copy of, which is no copy itself.
    pub(crate) fn owner(&self) -> Option<&Rc<Self>> {
        let look = || crate::guarded(|| self.twins.of(&self.itself.upgrade()?)).flatten();
        self.owner.get_or_init(look).as_ref()
    }

    fn loaded_itself(&self) -> Option<RefMut<'_, Loaded>> {
        let mut state = self.loaded.try_borrow_mut().ok()?;
        if matches!(*state, State::Unread) {
            *state = match self.watch.begin(self.id) {
                Some(_reading) => {
                    crate::guarded(|| Loaded::read(&self.file, self.debug_file()).ok())
                        .flatten()
                        .map_or(State::Unusable, |loaded| State::Loaded(Box::new(loaded)))
                }
                None => State::Unresponsive,
            };
        }
        RefMut::filter_map(state, |state| match state {
            State::Loaded(loaded) => Some(&mut **loaded),
            State::Unread | State::Unusable | State::Unresponsive => None,
        })
        .ok()
    }

    /// Whether `address` lies in code to which signal handlers return.
    pub(crate) fn is_signal_return(&self, address: u64) -> bool {
        // A walk that came through it has read the rules.
        self.loaded().is_some_and(|loaded| {
            let rules = loaded.rules.as_ref();
            rules.is_some_and(|rules| rules.is_signal_return(&loaded.elf, &self.file, address))
        })
    }

    /// Why a stack may end in its code.
    pub(crate) fn shortfall(&self) -> Shortfall {
        let owner = self.owner().map_or(self, |owner| owner);
        match owner.loaded.try_borrow().as_deref() {
            Ok(State::Unresponsive) => Shortfall::UnresponsiveFile,
            Ok(State::Loaded(loaded)) => {
                let has_rules = loaded.rules.as_ref().is_some_and(FrameRules::is_present);
                if has_rules || loaded.go.is_some() {
                    Shortfall::Unfollowable
                } else {
                    Shortfall::NoUnwindInformation
                }
            }
            _ => Shortfall::UnreadableFile,
        }
    }

    /// The functions at `address`, innermost first; see [`Symbols::at`].
    pub(crate) fn symbols_at(&self, address: u64) -> Rc<[Symbol]> {
        let Some(mut loaded) = self.loaded() else { return Rc::new([]) };
        let Some(_reading) = self.watch.begin(self.id) else { return Rc::new([]) };
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
pub(crate) struct BinaryStore {
    binaries: HashMap<FileId, Rc<Binary>>,
    twins: Rc<Twins>,
    vdso: OnceCell<Option<Rc<Binary>>>,
    clock: u64,
    watch: Arc<Watch>,
}

impl BinaryStore {
    /// An empty store, whose reads `watch` sees.
    pub(crate) fn new(watch: Arc<Watch>) -> Self {
        Self { watch, ..Self::default() }
    }

    /// The binary in `file`; `None` when too many are held already.
    pub(crate) fn pin(
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
            return None;
        }
        let reading = self.watch.begin(id)?;
        let file = open()?;
        drop(reading);
        let binary = self.binary(id, file);
        self.binaries.insert(id, Rc::clone(&binary));
        Some(binary)
    }

    fn binary(&self, id: FileId, file: File) -> Rc<Binary> {
        Binary::new(id, file, self.clock, &self.twins, &self.watch)
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
        binary.owner().map_or(binary, |owner| owner).last_used.set(self.clock);
    }

    /// Drops the least recently used contents while too many bytes are loaded: they are read again
    /// when a stack needs them.
    pub(crate) fn trim(&mut self) {
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
    pub(crate) fn close_unused(&mut self) {
        self.binaries.retain(|_, binary| Rc::strong_count(binary) > 1);
    }

    /// How many binaries are held.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.binaries.len()
    }
}
