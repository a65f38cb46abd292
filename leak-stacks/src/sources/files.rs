//! The source files of a program: those below the directory that it was started from.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use crate::process::maps::{locate_directory_in_root, locate_in_root, opened};

/// Most bytes of a command line that are looked at.
const MAX_ARGUMENTS: u64 = 64 << 10;
/// Most directories and files that are looked at, and how deep.
const MAX_DIRECTORIES: usize = 512;
const MAX_ENTRIES: usize = 8192;
const MAX_FILES: usize = 1024;
const MAX_DEPTH: usize = 8;
/// Largest source file, and most bytes of all.
const MAX_FILE: u64 = 512 << 10;
const MAX_BYTES: u64 = 16 << 20;
/// How far up from a script its project's directory is looked for, and what shows it.
const MAX_CLIMB: usize = 3;
const MARKERS: [&str; 7] = [
    "package.json",
    "Gemfile",
    "composer.json",
    "pyproject.toml",
    "setup.py",
    "requirements.txt",
    "manage.py",
];
/// Directories of what is not the application's, or does not serve.
const LEFT_OUT: [&str; 12] = [
    "node_modules",
    "vendor",
    "site-packages",
    "dist-packages",
    "__pycache__",
    "venv",
    "env",
    "test",
    "tests",
    "spec",
    "__tests__",
    "gems",
];

/// A source file.
#[derive(Clone, Debug)]
pub(crate) struct SourceFile {
    /// Its path as the process sees it.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// How a process was started, and what may belong to its program.
#[derive(Clone, Debug, Default)]
pub(crate) struct Program {
    pub(crate) arguments: Vec<String>,
    pub(crate) files: Vec<SourceFile>,
}

/// The program of a process, whose source files' names end in one of these.
pub(crate) fn program(pid: u32, endings: &[&str]) -> Program {
    let arguments = arguments(pid);
    let files = source_files(pid, &arguments, endings);
    Program { arguments, files }
}

fn source_files(pid: u32, arguments: &[String], endings: &[&str]) -> Vec<SourceFile> {
    let Some(directory) = directory(pid, arguments, endings) else { return Vec::new() };
    let mut walk = Walk { pid, endings, entries: 0, bytes: 0, files: Vec::new() };
    let mut waiting = vec![(directory, 0)];
    let mut directories = 0;
    while let Some((directory, depth)) = waiting.pop() {
        directories += 1;
        if directories > MAX_DIRECTORIES {
            break;
        }
        let below = walk.take(&directory);
        if depth < MAX_DEPTH {
            waiting.extend(below.into_iter().map(|below| (below, depth + 1)));
        }
    }
    walk.files
}

/// The directory of the program: that of its project or script, or else the one that it runs in.
fn directory(pid: u32, arguments: &[String], endings: &[&str]) -> Option<PathBuf> {
    let here = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    let script = arguments
        .iter()
        .skip(1)
        .filter(|argument| has_ending(argument, endings))
        .map(|argument| here.join(argument))
        .find(|path| path.to_str().is_some_and(|path| locate_in_root(pid, path).is_some()));
    let start = script.as_deref().and_then(Path::parent).unwrap_or(&here).to_owned();
    let is_project = |directory: &&Path| {
        let has = |name: &&str| {
            let path = directory.join(name);
            path.to_str().is_some_and(|path| locate_in_root(pid, path).is_some())
        };
        MARKERS.iter().any(has)
    };
    let project = start.ancestors().take(1 + MAX_CLIMB).find(is_project).map(Path::to_owned);
    let found = project.unwrap_or(start);
    // All of a machine's files are not the program's.
    (found.parent().is_some()).then_some(found)
}

fn arguments(pid: u32) -> Vec<String> {
    let mut bytes = Vec::new();
    let file = File::open(format!("/proc/{pid}/cmdline"));
    if file.and_then(|file| file.take(MAX_ARGUMENTS).read_to_end(&mut bytes)).is_err() {
        return Vec::new();
    }
    bytes.split(|byte| *byte == 0).map(|one| String::from_utf8_lossy(one).into_owned()).collect()
}

fn has_ending(name: &str, endings: &[&str]) -> bool {
    endings.iter().any(|ending| name.ends_with(ending))
}

struct Walk<'a> {
    pid: u32,
    endings: &'a [&'a str],
    entries: usize,
    bytes: u64,
    files: Vec<SourceFile>,
}

impl Walk<'_> {
    /// Takes the files of a directory, and returns the directories in it.
    fn take(&mut self, directory: &Path) -> Vec<PathBuf> {
        let mut below = Vec::new();
        let place = directory.to_str().and_then(|path| locate_directory_in_root(self.pid, path));
        let Some(place) = place else { return below };
        let listed = fs::read_dir(format!("/proc/self/fd/{}", place.as_raw_fd()));
        for entry in listed.into_iter().flatten().flatten() {
            self.entries += 1;
            if self.entries > MAX_ENTRIES || self.files.len() >= MAX_FILES {
                break;
            }
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else { continue };
            let path = directory.join(name);
            // Links to directories may lead in a circle, and files are opened below the root.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if !LEFT_OUT.contains(&name) {
                    below.push(path);
                }
            } else if has_ending(name, self.endings) {
                let file = self.read(&path);
                self.files.extend(file);
            }
        }
        below
    }

    fn read(&mut self, path: &Path) -> Option<SourceFile> {
        let path = path.to_str()?;
        let (place, metadata) = locate_in_root(self.pid, path)?;
        if metadata.len() > MAX_FILE || self.bytes + metadata.len() > MAX_BYTES {
            return None;
        }
        let mut text = String::new();
        opened(&place)?.take(MAX_FILE).read_to_string(&mut text).ok()?;
        self.bytes += text.len() as u64;
        Some(SourceFile { path: path.to_owned(), text })
    }
}
