//! Snapshots of a process's executable mappings, with every file held open.
//!
//! Processes exit and binaries are replaced before anybody asks for their stacks; an open file
//! stays what it was.

use std::cell::LazyCell;
use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::sync::{Arc, Weak};

use serde::{Deserialize, Serialize};

use crate::process::ProcessKey;
use crate::process::file_id::FileId;
use crate::process::maps::{MapsEntry, locate_mapped, without_deleted};
use crate::process::root::Root;
use crate::process::stat::{Stat, executable_identity, wall_clock_start};
use crate::time::Timestamp;

/// Longest `/proc/PID/maps` that is read.
pub(crate) const MAX_MAPS: u64 = 16 << 20;
/// Most executable mappings of one process that are kept.
const MAX_MAPPINGS: usize = 8192;
/// How often a process is looked at that executes another program meanwhile.
const ATTEMPTS: u32 = 3;
/// Most different files of one process that are held open.
const MAX_FILES: usize = 1024;

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

/// A process's executable mappings as they were at one moment, with their files held open.
///
/// It can be taken on one thread and used on another, or in another process that is passed the
/// descriptors of its files. It is taken at once, whatever the thread that reads binaries is doing,
/// because the process may be about to exit.
#[derive(Debug)]
pub struct ProcessSnapshot {
    pub(crate) data: SnapshotData,
    /// The files of `data.files`, opened with `O_PATH`.
    pub(crate) open_files: Vec<Arc<File>>,
}

/// A snapshot without its descriptors: plain data.
#[derive(Debug, Serialize, Deserialize)]
pub struct SnapshotData {
    pub(crate) process: ProcessKey,
    pub(crate) image: u64,
    pub(crate) root: Option<Root>,
    pub(crate) executable: Option<(u64, u64)>,
    pub(crate) executable_path: Option<String>,
    pub(crate) mappings: Vec<MappedFile>,
    pub(crate) files: Vec<FileId>,
    pub(crate) taken_at: Timestamp,
}

/// A mapping's addresses and file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MappedFile {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) offset: u64,
    pub(crate) path: Option<Box<str>>,
    /// Index in [`SnapshotData::files`].
    pub(crate) file: Option<usize>,
}

impl ProcessSnapshot {
    /// The process.
    #[must_use]
    pub fn process(&self) -> ProcessKey {
        self.data.process
    }

    /// The plain data, to be sent as bytes, and the files, to be sent as descriptors in this order.
    #[must_use]
    pub fn into_parts(self) -> (SnapshotData, Vec<Arc<File>>) {
        (self.data, self.open_files)
    }

    /// A snapshot of what [`Self::into_parts`] gave; `None` when they do not belong together.
    #[must_use]
    pub fn from_parts(data: SnapshotData, open_files: Vec<Arc<File>>) -> Option<Self> {
        let is_known = |mapping: &MappedFile| mapping.file.is_none_or(|at| at < data.files.len());
        let belong = data.files.len() == open_files.len() && data.mappings.iter().all(is_known);
        belong.then_some(Self { data, open_files })
    }
}

/// Whoever looks at processes for a resolver. One without privileges has another process look.
pub trait Observer: std::fmt::Debug {
    /// Takes a snapshot of a process.
    ///
    /// # Errors
    /// When the process is gone, or may not be looked at.
    fn look(
        &mut self,
        process: ProcessKey,
        now: Timestamp,
    ) -> Result<ProcessSnapshot, ModulesError>;
}

impl Observer for MappingReader {
    fn look(
        &mut self,
        process: ProcessKey,
        now: Timestamp,
    ) -> Result<ProcessSnapshot, ModulesError> {
        Self::look(self, process, now)
    }
}

/// Takes snapshots of processes, and shares the open files among them.
#[derive(Debug, Default)]
pub struct MappingReader {
    held: HashMap<FileId, Weak<File>>,
}

impl MappingReader {
    /// Reads a process's mappings and opens their files.
    ///
    /// # Errors
    /// When procfs refuses, or the PID belongs to another process by now.
    pub fn look(
        &mut self,
        process: ProcessKey,
        now: Timestamp,
    ) -> Result<ProcessSnapshot, ModulesError> {
        for _ in 1..ATTEMPTS {
            match self.look_once(process, now) {
                Err(ModulesError::Executing(_)) => {}
                outcome => return outcome,
            }
        }
        self.look_once(process, now)
    }

    fn look_once(
        &mut self,
        process: ProcessKey,
        now: Timestamp,
    ) -> Result<ProcessSnapshot, ModulesError> {
        let pid = process.pid;
        let failed = |source| ModulesError::Read { pid, source };
        // The PID may pass to another process at any moment, and the process may execute another
        // program; only when it was this one with this program both before and after was everything
        // between read from it.
        let check = || match Stat::read(pid).map_err(failed)? {
            stat if stat.start_ticks == process.start_ticks => Ok(stat.image),
            _ => Err(ModulesError::Reused(pid)),
        };
        let image = check()?;
        let root = Root::of(pid);
        let executable = executable_identity(pid);
        let executable_path = fs::read_link(format!("/proc/{pid}/exe"))
            .ok()
            .map(|path| without_deleted(&path.to_string_lossy()).to_owned());
        let mut text = Vec::new();
        File::open(format!("/proc/{pid}/maps"))
            .and_then(|maps| maps.take(MAX_MAPS).read_to_end(&mut text))
            .map_err(failed)?;
        let started = LazyCell::new(|| wall_clock_start(process));
        let mut files = Files::default();
        let mut mappings: Vec<MappedFile> = Vec::new();
        for line in String::from_utf8_lossy(&text).lines().filter_map(MapsEntry::parse) {
            if mappings.len() >= MAX_MAPPINGS {
                break;
            }
            let file = locate_mapped(pid, &line, &started, executable)
                .and_then(|(place, metadata)| self.hold(&mut files, place, &metadata));
            let MapsEntry { start, end, offset, path, .. } = line;
            mappings.push(MappedFile { start, end, offset, path: path.map(Box::from), file });
        }
        if check()? != image {
            return Err(ModulesError::Executing(pid));
        }
        if mappings.is_empty() {
            return Err(ModulesError::Empty(pid));
        }
        let Files { ids: files, open: open_files } = files;
        let taken_at = now;
        let data = SnapshotData {
            process,
            image,
            root,
            executable,
            executable_path,
            mappings,
            files,
            taken_at,
        };
        Ok(ProcessSnapshot { data, open_files })
    }

    /// Holds a file open, once however many mappings and processes need it; gives its index in
    /// `files`.
    fn hold(&mut self, files: &mut Files, place: File, metadata: &Metadata) -> Option<usize> {
        let id = FileId::of(metadata);
        if let Some(index) = files.ids.iter().position(|known| *known == id) {
            return Some(index);
        }
        if files.ids.len() >= MAX_FILES {
            return None;
        }
        let file = self.held.get(&id).and_then(Weak::upgrade).unwrap_or_else(|| {
            self.held.retain(|_, file| file.strong_count() > 0);
            let file = Arc::new(place);
            self.held.insert(id, Arc::downgrade(&file));
            file
        });
        files.ids.push(id);
        files.open.push(file);
        Some(files.ids.len() - 1)
    }
}

/// The different files of one process.
#[derive(Default)]
struct Files {
    ids: Vec<FileId>,
    open: Vec<Arc<File>>,
}
