//! What is seen of a process at one moment, with every file held open.
//!
//! Processes exit and binaries are replaced before anybody asks for their stacks; an open file
//! stays what it was.

use std::cell::LazyCell;
use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::sync::{Arc, Weak};

use crate::binary::store::FileId;
use crate::process::identity::{Identity, executable_identity, wall_clock_start};
use crate::process::maps::{Line, locate_mapped, without_deleted};
use crate::{ProcessKey, Timestamp};

/// Longest `/proc/PID/maps` that is read.
const MAX_MAPS: u64 = 16 << 20;
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
/// Unlike `Modules` it can be taken on one thread and used on another: it is taken at once, whatever
/// the thread that reads binaries is doing, because the process may be about to exit.
#[derive(Debug)]
pub struct Sighting {
    pub(crate) process: ProcessKey,
    pub(crate) image: u64,
    pub(crate) executable: Option<(u64, u64)>,
    pub(crate) executable_path: Option<String>,
    pub(crate) mappings: Vec<Seen>,
    pub(crate) taken_at: Timestamp,
}

/// A mapping's addresses and file.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) offset: u64,
    pub(crate) path: Option<Box<str>>,
    pub(crate) file: Option<(FileId, Arc<File>)>,
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
