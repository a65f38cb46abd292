//! The initramfs of a test machine: a newc cpio archive, as in the kernel's
//! Documentation/driver-api/early-userspace/buffer-format.rst.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufWriter, Write},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use support::command::output;

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const CHARACTER: u32 = 0o020_000;
const PERMISSIONS: u32 = 0o7777;

/// The content of a file.
enum Content {
    Nothing,
    Bytes(Vec<u8>),
    Copy(PathBuf),
    Device { major: u32, minor: u32 },
}

struct Node {
    mode: u32,
    owner: (u32, u32),
    content: Content,
}

impl Node {
    fn of_root(mode: u32, content: Content) -> Self {
        Self { mode, owner: (0, 0), content }
    }
}

/// An archive under construction. Paths are absolute in the machine, without the first slash.
/// Parent directories are added automatically.
#[derive(Default)]
pub(super) struct Image {
    // Sorted, so that a directory comes before its contents.
    nodes: BTreeMap<PathBuf, Node>,
}

impl Image {
    /// An archive with the console device and the links that programs expect at the root.
    pub(super) fn new() -> Self {
        let mut image = Self::default();
        for name in ["bin", "sbin", "lib", "lib64"] {
            let target = format!("usr/{name}").into_bytes();
            image.put(name, Node::of_root(LINK | 0o777, Content::Bytes(target)));
            image.directory(&format!("usr/{name}"));
        }
        let console = Content::Device { major: 5, minor: 1 };
        image.put("dev/console", Node::of_root(CHARACTER | 0o600, console));
        image
    }

    /// Adds an empty directory.
    pub(super) fn directory(&mut self, path: &str) {
        self.put(path, Node::of_root(DIRECTORY | 0o755, Content::Nothing));
    }

    /// Adds a file with these bytes.
    pub(super) fn bytes(&mut self, path: &str, bytes: Vec<u8>) {
        self.put(path, Node::of_root(REGULAR | 0o644, Content::Bytes(bytes)));
    }

    /// Adds a copy of a host file.
    pub(super) fn file(&mut self, path: impl AsRef<Path>, source: &Path) -> Result<()> {
        let mode = fs::metadata(source).with_context(|| source.display().to_string())?.mode();
        let node = Node::of_root(REGULAR | mode & PERMISSIONS, Content::Copy(source.into()));
        self.put(path, node);
        Ok(())
    }

    /// Adds a copy of a host program, with its libraries.
    pub(super) fn program(&mut self, path: impl AsRef<Path>, source: &Path) -> Result<()> {
        self.file(path, source)?;
        for library in libraries(source)? {
            let directory = library.parent().context("a library has no place")?.canonicalize()?;
            let place = directory.join(library.file_name().context("a library has no name")?);
            self.file(place.strip_prefix("/")?, &library)?;
        }
        Ok(())
    }

    /// Adds a copy of a host directory and its contents, with their owners.
    pub(super) fn tree(&mut self, path: &Path, source: &Path) -> Result<()> {
        let metadata =
            fs::symlink_metadata(source).with_context(|| source.display().to_string())?;
        let owner = (metadata.uid(), metadata.gid());
        let mode = metadata.permissions().mode();
        let content = if metadata.is_dir() {
            for entry in fs::read_dir(source)? {
                let entry = entry?;
                self.tree(&path.join(entry.file_name()), &entry.path())?;
            }
            Content::Nothing
        } else if metadata.is_symlink() {
            Content::Bytes(fs::read_link(source)?.into_os_string().into_encoded_bytes())
        } else {
            Content::Copy(source.into())
        };
        self.put(path, Node { mode, owner, content });
        Ok(())
    }

    fn put(&mut self, path: impl AsRef<Path>, node: Node) {
        let path = path.as_ref();
        for above in path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
            self.nodes
                .entry(above.into())
                .or_insert_with(|| Node::of_root(DIRECTORY | 0o755, Content::Nothing));
        }
        self.nodes.insert(path.into(), node);
    }

    /// Writes the archive.
    pub(super) fn write(self, path: &Path) -> Result<()> {
        let mut archive =
            Archive { out: BufWriter::new(File::create(path)?), written: 0, count: 0 };
        for (path, node) in self.nodes {
            let name = path.to_str().context("a path is not text")?;
            archive.add(name, &node).with_context(|| format!("{name} in the archive"))?;
        }
        archive.add("TRAILER!!!", &Node::of_root(0, Content::Nothing))?;
        Ok(archive.out.flush()?)
    }
}

/// The libraries of a program, as the dynamic linker finds them.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let Ok(text) = output(Command::new("ldd").arg(program)) else {
        return Ok(Vec::new()); // A static program has none.
    };
    ensure!(!text.contains("not found"), "{} lacks a library: {text}", program.display());
    let path = |line: &str| {
        let path = line.split_whitespace().find(|word| word.starts_with('/'))?;
        Some(PathBuf::from(path))
    };
    Ok(text.lines().filter_map(path).collect())
}

struct Archive<W> {
    out: W,
    written: u64,
    count: u32,
}

impl<W: Write> Archive<W> {
    fn add(&mut self, name: &str, node: &Node) -> Result<()> {
        self.count += 1;
        let (len, device) = match &node.content {
            Content::Nothing => (0, (0, 0)),
            Content::Bytes(bytes) => (bytes.len() as u64, (0, 0)),
            Content::Copy(source) => (fs::metadata(source)?.len(), (0, 0)),
            Content::Device { major, minor } => (0, (*major, *minor)),
        };
        let fields = [
            self.count,
            node.mode,
            node.owner.0,
            node.owner.1,
            1, // links
            0, // modification time
            u32::try_from(len).context("too large for this kind of archive")?,
            0,
            0, // device that holds the file
            device.0,
            device.1,
            u32::try_from(name.len() + 1)?,
            0, // no checksum
        ];
        let header: String = fields.iter().map(|field| format!("{field:08x}")).collect();
        self.put(format!("070701{header}{name}\0").as_bytes())?;
        self.pad()?;
        match &node.content {
            Content::Bytes(bytes) => self.put(bytes)?,
            Content::Copy(source) => {
                let copied = io::copy(&mut File::open(source)?, &mut self.out)?;
                ensure!(copied == len, "{} changed while it was copied", source.display());
                self.written += copied;
            }
            Content::Nothing | Content::Device { .. } => {}
        }
        self.pad()
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Pads to a multiple of four bytes.
    fn pad(&mut self) -> Result<()> {
        let missing = self.written.next_multiple_of(4) - self.written;
        self.put(&[0; 3][..usize::try_from(missing)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks the header's magic number and fields, and the offsets of names and contents.
    #[test]
    fn archives_have_the_known_form() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("archive");
        let mut image = Image::default();
        image.bytes("etc/name", b"value".to_vec());
        image.write(&path).unwrap();
        let bytes = fs::read(path).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.starts_with("07070100000001000041ed"), "{text}");
        // Header and name take 119 bytes, so one byte of padding precedes the contents.
        let file = text.find("etc/name").unwrap();
        assert_eq!(text.get(file + 9..file + 10), Some("\0"));
        let contents = text.find("value").unwrap();
        assert_eq!((contents % 4, contents - file), (0, 10));
        assert!(text.contains("TRAILER!!!\0"));
    }
}
