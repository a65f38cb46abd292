//! A process's executable mappings, with every file held open from first sight.
//!
//! Processes exit and binaries are replaced before anybody asks for their stacks; an open file
//! stays what it was.

use std::cell::LazyCell;
use std::collections::HashMap;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Weak};

use super::binary::{Binary, BinaryStore, FileId};
use super::{debug_file, vdso};
use crate::event::{ProcessKey, Timestamp};

/// Longest `/proc/PID/maps` that is read.
const MAX_MAPS: u64 = 16 << 20;
/// Most executable mappings of one process that are kept.
const MAX_MAPPINGS: usize = 8192;
/// How often a process is looked at that executes another program meanwhile.
const ATTEMPTS: u32 = 3;
/// Most different files of one process that are held open.
const MAX_FILES: usize = 1024;
/// `USER_HZ`: what `/proc/PID/stat` counts in, on every x86-64 kernel.
const TICKS_PER_SECOND: u64 = 100;
/// `OVERLAYFS_SUPER_MAGIC` and `BTRFS_SUPER_MAGIC` of the kernel's include/uapi/linux/magic.h.
const OVERLAYFS: i64 = 0x794c_7630;
const BTRFS: i64 = 0x9123_683e;
/// Page of an old way into the kernel, which nobody can read.
const VSYSCALL: &str = "[vsyscall]";

/// Why a process's mappings are not known.
#[derive(Debug, thiserror::Error)]
pub enum ModulesError {
    /// procfs refused or the process has exited.
    #[error("reading /proc/{pid} failed: {source}")]
    Read {
        /// The process.
        pid: u32,
        /// What procfs answered.
        source: io::Error,
    },
    /// The process has no executable memory: it is exiting, or a thread of the kernel.
    #[error("process {0} has no executable memory")]
    Empty(u32),
    /// The PID now belongs to another process.
    #[error("PID {0} was reused")]
    Reused(u32),
    /// It executed one program after the other while it was looked at.
    #[error("process {0} keeps executing other programs")]
    Executing(u32),
    /// Something about it took too long before.
    #[error("process {0} is left alone: looking at it takes too long")]
    Unresponsive(u32),
    /// Too many processes are known already.
    #[error("process {0} is left out: too many are known already")]
    TooMany(u32),
}

/// An executable mapping.
#[derive(Debug)]
pub(super) struct Mapping {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) offset: u64,
    /// The file as the process sees it; `None` for memory that no file backs.
    pub(super) path: Option<Rc<str>>,
    /// The file, when it could be opened and is the one that is mapped.
    pub(super) binary: Option<Rc<Binary>>,
}

impl Mapping {
    /// The place in the file of the byte at `address`.
    pub(super) fn offset_of(&self, address: u64) -> Option<u64> {
        address.checked_sub(self.start)?.checked_add(self.offset)
    }

    /// `address` in the binary's own numbering.
    pub(super) fn address_in_file(&self, address: u64) -> Option<u64> {
        self.binary.as_ref()?.loaded()?.elf.address_of_offset(self.offset_of(address)?)
    }
}

/// A process's executable mappings as they were at one moment, with their files held open.
///
/// Unlike `Modules` it can be taken on one thread and used on another: it is taken at once, whatever
/// the thread that reads binaries is doing, because the process may be about to exit.
#[derive(Debug)]
pub struct Sighting {
    pub(super) process: ProcessKey,
    image: u64,
    executable: Option<(u64, u64)>,
    executable_path: Option<String>,
    mappings: Vec<Seen>,
    taken_at: Timestamp,
}

/// A mapping's addresses and file.
#[derive(Debug)]
struct Seen {
    start: u64,
    end: u64,
    offset: u64,
    path: Option<Box<str>>,
    file: Option<(FileId, Arc<File>)>,
}

/// Looks at processes, and shares the files that it holds open for them.
#[derive(Debug, Default)]
pub struct Pinner {
    held: HashMap<FileId, Weak<File>>,
}

impl Pinner {
    /// Reads a process's mappings and opens their files.
    ///
    /// # Errors
    /// When procfs refuses, or the PID belongs to another process by now.
    pub fn look(&mut self, process: ProcessKey, now: Timestamp) -> Result<Sighting, ModulesError> {
        for _ in 1..ATTEMPTS {
            match self.look_once(process, now) {
                Err(ModulesError::Executing(_)) => {}
                outcome => return outcome,
            }
        }
        self.look_once(process, now)
    }

    fn look_once(&mut self, process: ProcessKey, now: Timestamp) -> Result<Sighting, ModulesError> {
        let pid = process.pid;
        let failed = |source| ModulesError::Read { pid, source };
        // The PID may pass to another process at any moment, and the process may execute another
        // program; only when it was this one with this program both before and after was everything
        // between read from it.
        let check = || match Identity::read(pid).map_err(failed)? {
            identity if identity.start_ticks == process.start_ticks => Ok(identity.image),
            _ => Err(ModulesError::Reused(pid)),
        };
        let image = check()?;
        let executable = executable_identity(pid);
        let executable_path = fs::read_link(format!("/proc/{pid}/exe"))
            .ok()
            .map(|path| without_deleted(&path.to_string_lossy()).to_owned());
        let mut text = Vec::new();
        File::open(format!("/proc/{pid}/maps"))
            .and_then(|maps| maps.take(MAX_MAPS).read_to_end(&mut text))
            .map_err(failed)?;
        let started = LazyCell::new(|| wall_clock_start(process));
        let mut files = HashMap::new();
        let mut mappings: Vec<Seen> = Vec::new();
        for line in String::from_utf8_lossy(&text).lines().filter_map(Line::parse) {
            if mappings.len() >= MAX_MAPPINGS {
                break;
            }
            let file = locate_mapped(pid, &line, &started, executable)
                .and_then(|(place, metadata)| self.hold(&mut files, place, &metadata));
            let Line { start, end, offset, path, .. } = line;
            mappings.push(Seen { start, end, offset, path: path.map(Box::from), file });
        }
        if check()? != image {
            return Err(ModulesError::Executing(pid));
        }
        if mappings.is_empty() {
            return Err(ModulesError::Empty(pid));
        }
        Ok(Sighting { process, image, executable, executable_path, mappings, taken_at: now })
    }

    /// Holds a file open, once however many mappings and processes need it.
    fn hold(
        &mut self,
        files: &mut HashMap<FileId, Arc<File>>,
        place: File,
        metadata: &Metadata,
    ) -> Option<(FileId, Arc<File>)> {
        let id = FileId::of(metadata);
        if let Some(file) = files.get(&id) {
            return Some((id, Arc::clone(file)));
        }
        if files.len() >= MAX_FILES {
            return None;
        }
        let file = self.held.get(&id).and_then(Weak::upgrade).unwrap_or_else(|| {
            self.held.retain(|_, file| file.strong_count() > 0);
            let file = Arc::new(place);
            self.held.insert(id, Arc::downgrade(&file));
            file
        });
        files.insert(id, Arc::clone(&file));
        Some((id, file))
    }
}

/// The executable mappings of one process.
#[derive(Debug)]
pub(super) struct Modules {
    /// Sorted by address.
    mappings: Vec<Mapping>,
    /// Which of the programs that the process executes: [`RawStack::image`](super::RawStack::image).
    pub(super) image: u64,
    /// Device and inode behind `/proc/PID/exe`: they change when the process executes another
    /// program.
    executable: Option<(u64, u64)>,
    /// Path of the executable.
    pub(super) executable_path: Option<String>,
    /// When this was read.
    pub(super) read_at: Timestamp,
}

impl Modules {
    /// The mappings that were seen, with their files.
    pub(super) fn new(sighting: Sighting, store: &mut BinaryStore) -> Self {
        let Sighting { process, image, executable, executable_path, mappings, taken_at } = sighting;
        let mut mappings: Vec<_> = mappings
            .into_iter()
            .map(|Seen { start, end, offset, path, file }| {
                let path: Option<Rc<str>> = path.map(Rc::from);
                let binary = match (file, path.as_deref()) {
                    (_, Some(vdso::NAME)) => store.vdso(),
                    (Some((id, place)), path) => {
                        let binary = store.pin(id, || opened(&place));
                        if let (Some(binary), Some(path)) = (&binary, path) {
                            pin_debug_file(binary, process.pid, path);
                        }
                        binary
                    }
                    (None, _) => None,
                };
                Mapping { start, end, offset, path, binary }
            })
            .collect();
        mappings.sort_unstable_by_key(|m| m.start);
        Self { mappings, image, executable, executable_path, read_at: taken_at }
    }

    /// Mappings that no process has.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn made_up(mappings: Vec<Mapping>) -> Self {
        let read_at = Timestamp(0);
        Self { mappings, image: 0, executable: None, executable_path: None, read_at }
    }

    /// The mapping that holds `address`.
    pub(super) fn find(&self, address: u64) -> Option<&Mapping> {
        let after = self.mappings.partition_point(|m| m.start <= address);
        self.mappings.get(after.checked_sub(1)?).filter(|m| address < m.end)
    }

    /// All mappings, by address.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Mapping> {
        self.mappings.iter()
    }

    /// The executable's own binary.
    pub(super) fn executable(&self) -> Option<&Rc<Binary>> {
        let path = self.executable_path.as_deref()?;
        self.mappings
            .iter()
            .find(|m| m.path.as_deref() == Some(path) && m.binary.is_some())?
            .binary
            .as_ref()
    }

    /// Whether the process has executed another program since. A process that has exited has not.
    pub(super) fn is_replaced(&self, pid: u32) -> bool {
        executable_identity(pid).is_some_and(|now| self.executable.is_some_and(|old| old != now))
    }
}

/// One line of `/proc/PID/maps` that describes executable memory.
#[derive(Debug)]
pub(super) struct Line<'a> {
    start: u64,
    end: u64,
    offset: u64,
    device: u64,
    inode: u64,
    path: Option<&'a str>,
}

impl<'a> Line<'a> {
    pub(super) fn parse(line: &'a str) -> Option<Self> {
        let mut rest = line;
        let mut word = || {
            let (word, after) =
                rest.trim_start().split_once(' ').unwrap_or((rest.trim_start(), ""));
            rest = after;
            word
        };
        let hex = |text| u64::from_str_radix(text, 16).ok();
        let (start, end) = word().split_once('-')?;
        let executable = word().contains('x');
        let offset = hex(word())?;
        let (major, minor) = word().split_once(':')?;
        let device = libc::makedev(
            u32::from_str_radix(major, 16).ok()?,
            u32::from_str_radix(minor, 16).ok()?,
        );
        let inode = word().parse().ok()?;
        let path = without_deleted(rest.trim_start());
        executable.then_some(Self {
            start: hex(start)?,
            end: hex(end)?,
            offset,
            device,
            inode,
            path: (path.starts_with('/') || path == vdso::NAME || path == VSYSCALL).then_some(path),
        })
    }
}

fn without_deleted(path: &str) -> &str {
    path.strip_suffix(" (deleted)").unwrap_or(path)
}

/// Finds the file behind a mapping, by the surest way that works.
fn locate_mapped(
    pid: u32,
    line: &Line<'_>,
    started: &LazyCell<Option<i64>, impl FnOnce() -> Option<i64>>,
    executable: Option<(u64, u64)>,
) -> Option<(File, Metadata)> {
    let path = line.path?;
    if path == vdso::NAME {
        return None;
    }
    let by_address = format!("/proc/{pid}/map_files/{:x}-{:x}", line.start, line.end);
    locate(Path::new(&by_address))
        .or_else(|| {
            // The executable's link leads to the right file even after it was deleted.
            let found = locate(Path::new(&format!("/proc/{pid}/exe")))?;
            let is_executable = executable == Some((found.1.dev(), found.1.ino()));
            (is_executable && is_mapped(&found, line, None)).then_some(found)
        })
        .or_else(|| locate_in_root(pid, path).filter(|found| is_mapped(found, line, **started)))
        .or_else(|| locate(Path::new(path)).filter(|found| is_mapped(found, line, None)))
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

/// Opens for reading what was only looked at.
fn opened(place: &File) -> Option<File> {
    File::open(format!("/proc/self/fd/{}", place.as_raw_fd())).ok()
}

/// A place in the file system, looked at without opening what is there: a FIFO or a device in the
/// binary's stead must neither block us nor notice us.
fn locate(path: &Path) -> Option<(File, Metadata)> {
    let place = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_CLOEXEC)
        .open(path)
        .ok()?;
    regular(place)
}

/// The same below a process's root directory, where a link must not lead out of it.
pub(super) fn locate_in_root(pid: u32, path: &str) -> Option<(File, Metadata)> {
    let root = File::open(format!("/proc/{pid}/root")).ok()?;
    let path = std::ffi::CString::new(PathBuf::from(path).as_os_str().as_bytes()).ok()?;
    // SAFETY: `open_how` consists of integers, for which zeroes are valid.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (libc::O_PATH | libc::O_CLOEXEC) as u64;
    how.resolve = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
    // SAFETY: the descriptor, the zero-terminated path and `how` with its own size are what
    // openat2(2) asks for, and outlive the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_openat2,
            root.as_raw_fd(),
            path.as_ptr(),
            &raw const how,
            size_of::<libc::open_how>(),
        )
    };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: the kernel has just returned this descriptor, and nobody else owns it.
    regular(unsafe { File::from_raw_fd(fd) })
}

fn regular(place: File) -> Option<(File, Metadata)> {
    let metadata = place.metadata().ok()?;
    metadata.is_file().then_some((place, metadata))
}

/// Whether a file found by its path is the one that is mapped, not one that replaced it.
///
/// On overlayfs and btrfs `/proc/PID/maps` may show numbers of the file system below. There a file
/// also counts as the mapped one when its inode has not changed since the process started.
fn is_mapped(found: &(File, Metadata), line: &Line<'_>, started: Option<i64>) -> bool {
    let (place, metadata) = found;
    if metadata.ino() == line.inode && metadata.dev() == line.device {
        return true;
    }
    let kind = file_system(place);
    let renumbered = kind == Some(OVERLAYFS) || kind == Some(BTRFS);
    renumbered
        && (metadata.ino() == line.inode || started.is_some_and(|start| metadata.ctime() < start))
}

fn file_system(place: &File) -> Option<i64> {
    // SAFETY: `statfs` consists of integers, for which zeroes are valid.
    let mut answer: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open and `answer` is a valid place for the kernel to write to.
    let result = unsafe { libc::fstatfs(place.as_raw_fd(), &raw mut answer) };
    (result == 0).then_some(answer.f_type)
}

fn executable_identity(pid: u32) -> Option<(u64, u64)> {
    let metadata = fs::metadata(format!("/proc/{pid}/exe")).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// When the process started, in seconds of the wall clock.
fn wall_clock_start(process: ProcessKey) -> Option<i64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let boot: i64 = stat.lines().find_map(|l| l.strip_prefix("btime "))?.trim().parse().ok()?;
    boot.checked_add(i64::try_from(process.start_ticks / TICKS_PER_SECOND).ok()?)
}

/// Which process has a PID, and which of its programs it runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity {
    /// Clock ticks since boot.
    start_ticks: u64,
    /// See [`RawStack::image`](super::RawStack::image).
    image: u64,
}

impl Identity {
    /// Reads fields 22 and 28 of `/proc/PID/stat`, see proc_pid_stat(5).
    fn read(pid: u32) -> io::Result<Self> {
        let stat = fs::read(format!("/proc/{pid}/stat"))?;
        let stat = String::from_utf8_lossy(&stat);
        Self::parse(&stat)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no start time in stat"))
    }

    pub(super) fn parse(stat: &str) -> Option<Self> {
        // Field 2, the name, is in parentheses and may hold anything, parentheses too.
        let (_, after) = stat.rsplit_once(") ")?;
        let mut fields = after.split(' ');
        let start_ticks = fields.nth(19)?.parse().ok()?;
        // The kernel tells it only to those who may look into the process.
        let image = fields.nth(5).and_then(|field| field.parse().ok()).unwrap_or(0);
        Some(Self { start_ticks, image })
    }
}

/// Start time of the process that has this PID now, in clock ticks since boot.
pub(super) fn start_ticks(pid: u32) -> io::Result<u64> {
    Identity::read(pid).map(|identity| identity.start_ticks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own_key() -> ProcessKey {
        let pid = std::process::id();
        ProcessKey { pid, start_ticks: start_ticks(pid).unwrap() }
    }

    #[test]
    fn reads_lines_with_odd_paths() {
        let line = Line::parse(
            "7f00-7f10 r-xp 00001000 fd:01 42                         /tmp/a b (deleted)",
        )
        .unwrap();
        assert_eq!((line.start, line.end, line.offset), (0x7f00, 0x7f10, 0x1000));
        assert_eq!((line.inode, line.path), (42, Some("/tmp/a b")));
        assert_eq!(line.device, libc::makedev(0xfd, 1));
        let anonymous = Line::parse("7f00-7f10 rwxp 00000000 00:00 0 ").unwrap();
        assert_eq!(anonymous.path, None);
        assert!(Line::parse("7f00-7f10 r--p 00001000 fd:01 42 /tmp/a").is_none());
        for garbage in ["", "-", "x", "7f00-7f10", "7f00-7f10 x zz fd:01 1 /a"] {
            assert!(Line::parse(garbage).is_none(), "{garbage}");
        }
    }

    #[test]
    fn finds_own_code_by_address_and_refuses_another_start_time() {
        let mut store = BinaryStore::default();
        let sighting = Pinner::default().look(own_key(), Timestamp(0)).unwrap();
        let modules = Modules::new(sighting, &mut store);
        let here = finds_own_code_by_address_and_refuses_another_start_time as fn() as usize as u64;
        let mapping = modules.find(here).unwrap();
        assert!(mapping.path.as_deref().unwrap().contains("leak_user"));
        assert!(mapping.address_in_file(here).is_some());
        assert!(modules.executable().is_some());
        assert!(modules.find(0).is_none());
        assert!(!modules.is_replaced(std::process::id()));

        let other = ProcessKey { start_ticks: own_key().start_ticks + 1, ..own_key() };
        let refused = Pinner::default().look(other, Timestamp(0));
        assert!(matches!(refused, Err(ModulesError::Reused(_))));
    }

    #[test]
    fn looks_below_the_root_of_the_process() {
        let pid = std::process::id();
        let path = std::env::current_exe().unwrap();
        let (_, found) = locate_in_root(pid, path.to_str().unwrap()).unwrap();
        assert_eq!(executable_identity(pid), Some((found.dev(), found.ino())));
        // A link of procfs could lead out of the root.
        assert!(locate_in_root(pid, "/proc/self/exe").is_none());
        assert!(locate_in_root(pid, "/nowhere").is_none());
    }

    #[test]
    fn a_file_that_replaced_the_mapped_one_is_not_taken_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("library");
        fs::write(&path, "old").unwrap();
        let old = fs::metadata(&path).unwrap();
        let line = Line {
            start: 0,
            end: 1,
            offset: 0,
            device: old.dev(),
            inode: old.ino(),
            path: path.to_str(),
        };
        assert!(is_mapped(&locate(&path).unwrap(), &line, None));
        let new = directory.path().join("new");
        fs::write(&new, "new").unwrap();
        fs::rename(&new, &path).unwrap();
        // Even with a process start before the replacement.
        assert!(!is_mapped(&locate(&path).unwrap(), &line, Some(0)));
        assert!(locate(directory.path()).is_none(), "a directory is no binary");
    }
}
