//! Finds the files behind a process's mappings without trusting paths.

use std::cell::LazyCell;
use std::fs::{File, Metadata, OpenOptions};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::process::vdso;

/// `OVERLAYFS_SUPER_MAGIC` and `BTRFS_SUPER_MAGIC` of the kernel's include/uapi/linux/magic.h.
const OVERLAYFS: i64 = 0x794c_7630;
const BTRFS: i64 = 0x9123_683e;
/// Page of an old way into the kernel, which nobody can read.
const VSYSCALL: &str = "[vsyscall]";

/// One line of `/proc/PID/maps` that describes executable memory.
#[derive(Debug)]
pub(crate) struct MapsEntry<'a> {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) offset: u64,
    device: u64,
    inode: u64,
    pub(crate) path: Option<&'a str>,
}

impl<'a> MapsEntry<'a> {
    pub(crate) fn parse(line: &'a str) -> Option<Self> {
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

/// The path of a file that may have been deleted, as procfs shows it.
pub(crate) fn without_deleted(path: &str) -> &str {
    path.strip_suffix(" (deleted)").unwrap_or(path)
}

/// Finds the file behind a mapping, by the surest way that works.
pub(crate) fn locate_mapped(
    pid: u32,
    line: &MapsEntry<'_>,
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

/// Opens for reading what was only looked at.
pub(crate) fn opened(place: &File) -> Option<File> {
    File::open(format!("/proc/self/fd/{}", place.as_raw_fd())).ok()
}

/// A place in the file system, looked at without opening what is there: a FIFO or a device in the
/// binary's stead must neither block us nor notice us.
pub(crate) fn locate(path: &Path) -> Option<(File, Metadata)> {
    let place = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_CLOEXEC)
        .open(path)
        .ok()?;
    regular(place)
}

/// The same below a process's root directory, where a link must not lead out of it.
pub(crate) fn locate_in_root(pid: u32, path: &str) -> Option<(File, Metadata)> {
    regular(place_in_root(pid, path)?)
}

/// A directory below a process's root directory.
pub(crate) fn locate_directory_in_root(pid: u32, path: &str) -> Option<File> {
    let place = place_in_root(pid, path)?;
    place.metadata().ok()?.is_dir().then_some(place)
}

fn place_in_root(pid: u32, path: &str) -> Option<File> {
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
    Some(unsafe { File::from_raw_fd(fd) })
}

fn regular(place: File) -> Option<(File, Metadata)> {
    let metadata = place.metadata().ok()?;
    metadata.is_file().then_some((place, metadata))
}

/// Whether a file found by its path is the one that is mapped, not one that replaced it.
///
/// On overlayfs and btrfs `/proc/PID/maps` may show numbers of the file system below. There a file
/// also counts as the mapped one when its inode has not changed since the process started.
fn is_mapped(found: &(File, Metadata), line: &MapsEntry<'_>, started: Option<i64>) -> bool {
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::process::stat::executable_identity;

    #[test]
    fn reads_lines_with_odd_paths() {
        let line = MapsEntry::parse(
            "7f00-7f10 r-xp 00001000 fd:01 42                         /tmp/a b (deleted)",
        )
        .unwrap();
        assert_eq!((line.start, line.end, line.offset), (0x7f00, 0x7f10, 0x1000));
        assert_eq!((line.inode, line.path), (42, Some("/tmp/a b")));
        assert_eq!(line.device, libc::makedev(0xfd, 1));
        let anonymous = MapsEntry::parse("7f00-7f10 rwxp 00000000 00:00 0 ").unwrap();
        assert_eq!(anonymous.path, None);
        assert!(MapsEntry::parse("7f00-7f10 r--p 00001000 fd:01 42 /tmp/a").is_none());
        for garbage in ["", "-", "x", "7f00-7f10", "7f00-7f10 x zz fd:01 1 /a"] {
            assert!(MapsEntry::parse(garbage).is_none(), "{garbage}");
        }
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
        let line = MapsEntry {
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
