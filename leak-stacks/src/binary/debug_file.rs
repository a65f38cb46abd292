//! Finds the file that holds a stripped binary's symbols and lines, as debuggers do: by build id
//! below `/usr/lib/debug`, and by the name in the section `.gnu_debuglink`.
//!
//! The process's own file system is searched first, then the host's. What is found must belong to
//! the same build, or names and lines would be wrong, and to root or to the owner of the binary: a
//! file can claim any build.

use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::binary::elf::Elf;
use crate::bytes::{text_at, u32_at};
use crate::process::file_id::FileId;
use crate::process::watchdog::ReadWatchdog;

/// Where distributions put debug files.
const DIRECTORY: &str = "/usr/lib/debug";
/// `NT_GNU_BUILD_ID` of the GNU ABI.
const BUILD_ID: u32 = 3;
/// Longest build id; linkers write 16 or 20 bytes.
const MAX_BUILD_ID: usize = 64;
/// Longest name in a debug link.
const MAX_NAME: usize = 255;
/// Largest file whose checksum is computed.
const MAX_CHECKED: u64 = 512 << 20;
/// The section that names the file.
const LINK: &str = ".gnu_debuglink";

/// What names a binary's debug file.
#[derive(Debug, PartialEq, Eq)]
struct Names {
    build_id: Option<Vec<u8>>,
    /// The file's name and its checksum.
    link: Option<(String, u32)>,
}

/// A debug file that was found.
#[derive(Debug)]
pub(crate) struct DebugFile {
    pub(crate) id: FileId,
    pub(crate) file: File,
}

/// The debug file of the binary in `file`, which the process knows as `path`; `None` when it needs
/// none or none fits. `open` gives the files at a path, in the order of preference; `watchdog` sees
/// what is read.
pub(crate) fn find(
    file: &File,
    path: &str,
    watchdog: &ReadWatchdog,
    open: impl Fn(&Path) -> Vec<File>,
) -> Option<DebugFile> {
    let binary = file.metadata().ok()?;
    let reading = watchdog.begin(FileId::of(&binary))?;
    let elf = Elf::read(file).ok()?;
    // What has lines of its own needs no other.
    if elf.section(".debug_info").is_some() {
        return None;
    }
    let names = Names::read(&elf, file);
    drop(reading);
    let fitting = |file: File| {
        let metadata = file.metadata().ok()?;
        let is_trusted = metadata.uid() == 0 || metadata.uid() == binary.uid();
        let id = FileId::of(&metadata);
        let _reading = watchdog.begin(id)?;
        (is_trusted && names.fits(&file)).then_some(DebugFile { id, file })
    };
    let candidates = names.candidates(Path::new(path));
    candidates.iter().flat_map(|candidate| open(candidate)).find_map(fitting)
}

impl Names {
    fn read(elf: &Elf, file: &File) -> Self {
        let data = |name: &str| elf.data(file, elf.section(name)?).ok();
        let link = || {
            let data = data(LINK)?;
            let name = text_at(&data, 0, MAX_NAME)?;
            // The checksum follows at a multiple of four.
            let checksum = u32_at(&data, (name.len() + 1).next_multiple_of(4))?;
            let is_name = !name.is_empty() && name != "." && name != ".." && !name.contains('/');
            is_name.then_some((name, checksum))
        };
        let build_id = data(".note.gnu.build-id").as_deref().and_then(build_id);
        Self { build_id, link: link() }
    }

    /// Where it may be.
    fn candidates(&self, binary: &Path) -> Vec<PathBuf> {
        let mut candidates = Vec::new();
        if let Some((first, rest)) = self.build_id.as_deref().and_then(<[u8]>::split_first) {
            let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
            let name = format!(".build-id/{first:02x}/{}.debug", hex(rest));
            candidates.push(Path::new(DIRECTORY).join(name));
        }
        if let (Some((name, _)), Some(beside)) = (&self.link, binary.parent()) {
            let below = beside.strip_prefix("/").unwrap_or(beside);
            let directories =
                [beside.into(), beside.join(".debug"), Path::new(DIRECTORY).join(below)];
            candidates.extend(directories.iter().map(|directory| directory.join(name)));
        }
        candidates
    }

    /// Whether `candidate` belongs to the same build.
    fn fits(&self, candidate: &File) -> bool {
        let Ok(elf) = Elf::read(candidate) else { return false };
        match (&self.build_id, &self.link) {
            (Some(own), _) => Self::read(&elf, candidate).build_id.as_ref() == Some(own),
            (None, Some((_, checksum))) => checksum_of(candidate) == Some(*checksum),
            (None, None) => false,
        }
    }
}

/// The build id in a note section: lengths of name and content, type, "GNU", content.
fn build_id(note: &[u8]) -> Option<Vec<u8>> {
    let is_build_id =
        u32_at(note, 0)? == 4 && u32_at(note, 8)? == BUILD_ID && note.get(12..16)? == b"GNU\0";
    let length =
        usize::try_from(u32_at(note, 4)?).ok().filter(|l| (2..=MAX_BUILD_ID).contains(l))?;
    is_build_id.then(|| note.get(16..16 + length).map(<[u8]>::to_vec))?
}

fn checksum_of(file: &File) -> Option<u32> {
    if file.metadata().ok()?.len() > MAX_CHECKED {
        return None;
    }
    let mut hasher = crc32fast::Hasher::new();
    let mut reader = BufReader::with_capacity(1 << 16, file.take(MAX_CHECKED));
    let mut buffer = vec![0; 1 << 16];
    loop {
        match reader.read(&mut buffer).ok()? {
            0 => return Some(hasher.finalize()),
            length => hasher.update(buffer.get(..length)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// A stripped program with a debug link, and its debug file, in a directory.
    fn split(directory: &Path, options: &[&str]) -> (File, PathBuf) {
        let source = directory.join("shop.c");
        std::fs::write(&source, "int main(void) { return 0; }").unwrap();
        let run = |program: &str, arguments: &[&str]| {
            let status = Command::new(program).current_dir(directory).args(arguments).status();
            assert!(status.unwrap().success(), "{program} {arguments:?}");
        };
        run("gcc", &[&["-g", "-o", "shop", "shop.c"], options].concat());
        run("objcopy", &["--only-keep-debug", "shop", "shop.debug"]);
        run("objcopy", &["--strip-all", "--add-gnu-debuglink=shop.debug", "shop"]);
        (File::open(directory.join("shop")).unwrap(), directory.join("shop.debug"))
    }

    fn opened(path: &Path) -> Vec<File> {
        File::open(path).into_iter().collect()
    }

    #[test]
    fn only_a_file_of_the_same_build_fits() {
        for options in [&["-Wl,--build-id=sha1"][..], &["-Wl,--build-id=none"]] {
            let directory = tempfile::tempdir().unwrap();
            let (file, debug) = split(directory.path(), options);
            let path = directory.path().join("shop");
            let path = path.to_str().unwrap();
            let found =
                |open: fn(&Path) -> Vec<File>| find(&file, path, &ReadWatchdog::default(), open);
            assert!(found(opened).is_some(), "{options:?}");
            // Another build under the same name.
            let mut other = std::fs::read(&debug).unwrap();
            let note = other.windows(8).position(|w| w == b"\x03\0\0\0GNU\0");
            let changed = note.map_or(other.len() - 1, |note| note + 8);
            other[changed] ^= 1;
            std::fs::write(&debug, other).unwrap();
            assert!(found(opened).is_none(), "{options:?}");
        }
    }

    #[test]
    fn what_another_user_has_put_there_is_not_believed() {
        let directory = tempfile::tempdir().unwrap();
        let (file, debug) = split(directory.path(), &[]);
        let path = directory.path().join("shop");
        let found = || find(&file, path.to_str().unwrap(), &ReadWatchdog::default(), opened);
        assert!(found().is_some());
        let give_to = |path: &Path, user| std::os::unix::fs::chown(path, Some(user), None).is_ok();
        // Only root may give files away.
        if give_to(&debug, 65_534) {
            assert!(found().is_none());
            assert!(give_to(&path, 65_534) && found().is_some(), "the owner may");
            assert!(give_to(&path, 65_533) && found().is_none());
            assert!(give_to(&debug, 0) && found().is_some(), "and root");
        }
    }

    #[test]
    fn a_link_leads_to_no_other_directory() {
        let link = |name: &str| Names { build_id: None, link: Some((name.to_owned(), 0)) };
        let found = link("shop.debug").candidates(Path::new("/opt/shop"));
        let paths: Vec<_> = found.iter().map(|p| p.to_str().unwrap()).collect();
        let expected =
            ["/opt/shop.debug", "/opt/.debug/shop.debug", "/usr/lib/debug/opt/shop.debug"];
        assert_eq!(paths, expected);
        assert_eq!(
            build_id(b"\x04\0\0\0\x02\0\0\0\x03\0\0\0GNU\0\xab\xcd"),
            Some(vec![0xab, 0xcd])
        );
        assert_eq!(build_id(b"\x04\0\0\0\xff\xff\xff\xff\x03\0\0\0GNU\0\xab"), None);
    }
}
