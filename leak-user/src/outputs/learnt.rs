//! What was learnt about who sends which statement, kept from run to run.
//!
//! A file of JSON lines: the first one names the format, each other one a statement of a program
//! and the code that was seen to send it.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::engine::findings::Change;
use crate::engine::snapshot::Snapshot;
use crate::model::{Learnt, Timestamp};
use crate::outputs::whole_file::{FileError, WholeFile};
use crate::outputs::{OutputError, Sink};

const SCHEMA: &str = "pgsocktrace.learnt/1";
/// Most bytes that are read.
const MAX_BYTES: u64 = 32 << 20;
/// Shortest time between two writes: only a crash loses what was learnt since.
const PAUSE: Duration = Duration::from_secs(60);

#[derive(Serialize, Deserialize)]
struct Head {
    schema: String,
}

/// Why what was learnt before cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LearntError {
    /// The system refuses.
    #[error("what was learnt cannot be read from {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It names code, so whoever can write it could make up names.
    #[error(
        "{0} may be written by others, who could put names into it: `chown` it to yourself and \
         `chmod go-w`"
    )]
    Exposed(PathBuf),
    /// It is something else.
    #[error("line {line} of {path} was not written by --learn: move the file away to begin anew")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
}

/// Reads what earlier runs have learnt; nothing when there is no such file yet.
///
/// # Errors
///
/// When there is one that cannot be read, that others may write, or that is something else.
pub fn read_learnt(path: &Path) -> Result<Vec<Learnt>, LearntError> {
    let unreadable = |source| LearntError::Unreadable { path: path.to_owned(), source };
    let about = match fs::metadata(path) {
        Ok(about) => about,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    if !about.is_file() {
        return Err(LearntError::Foreign { path: path.to_owned(), line: 1 });
    }
    let own = rustix::process::geteuid().as_raw();
    if about.uid() != own || about.mode() & 0o022 != 0 {
        return Err(LearntError::Exposed(path.to_owned()));
    }
    let file = File::open(path).map_err(unreadable)?;
    let mut learnt = Vec::new();
    for (index, line) in BufReader::new(file.take(MAX_BYTES)).lines().enumerate() {
        let line = line.map_err(unreadable)?;
        let foreign = || LearntError::Foreign { path: path.to_owned(), line: index + 1 };
        if index == 0 {
            let head: Head = serde_json::from_str(&line).map_err(|_| foreign())?;
            if head.schema != SCHEMA {
                return Err(foreign());
            }
        } else {
            let one: Learnt = serde_json::from_str(&line).map_err(|_| foreign())?;
            learnt.push(one);
        }
    }
    Ok(learnt)
}

/// Keeps what is learnt in a file: now and then while tracing, and at the end.
pub(in crate::outputs) struct LearntFile {
    file: WholeFile,
    /// What the file has.
    revision: u64,
    written_at: Timestamp,
    /// A slow disk never keeps the event loop waiting.
    writer: Option<JoinHandle<Result<(), FileError>>>,
}

impl LearntFile {
    /// Makes sure that the file can be written.
    pub(in crate::outputs) fn prepare(path: &Path) -> Result<Self, OutputError> {
        let file = WholeFile::prepare("what was learnt", path).map_err(OutputError::other)?;
        Ok(Self { file, revision: 0, written_at: Timestamp::default(), writer: None })
    }

    /// Waits for the writer, if there is one.
    fn join(&mut self) {
        let result = self.writer.take().map(JoinHandle::join);
        if let Some(Ok(Err(error))) = result {
            log::warn!("{error}; it is tried again");
            self.revision = 0;
        }
    }
}

impl Sink for LearntFile {
    fn interval(&mut self, snapshot: &Snapshot<'_>, _: &[Change]) -> Result<(), OutputError> {
        if self.writer.as_ref().is_some_and(|writer| !writer.is_finished()) {
            return Ok(());
        }
        self.join();
        let revision = snapshot.senders.revision();
        if revision == self.revision || snapshot.now.since(self.written_at) < PAUSE {
            return Ok(());
        }
        let (file, text) = (self.file.clone(), text(snapshot));
        let writer = thread::Builder::new().name("learnt".into());
        self.writer = writer.spawn(move || file.write(&text)).map(Some)?;
        (self.revision, self.written_at) = (revision, snapshot.now);
        Ok(())
    }

    fn end(&mut self, snapshot: &Snapshot<'_>, _: &[Change]) -> Result<(), OutputError> {
        self.join();
        if snapshot.senders.revision() == self.revision {
            return Ok(());
        }
        self.file.write(&text(snapshot)).map_err(OutputError::other)
    }
}

fn text(snapshot: &Snapshot<'_>) -> Vec<u8> {
    let mut lines = Vec::new();
    let mut add = |line: serde_json::Result<String>| lines.extend(line);
    add(serde_json::to_string(&Head { schema: SCHEMA.to_owned() }));
    for one in snapshot.senders.seen_so_far() {
        add(serde_json::to_string(&one));
    }
    lines.push(String::new());
    lines.join("\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use leak_stacks::Frame;

    use super::*;
    use crate::outputs::testing::Run;

    fn learnt(statement: &str, function: &str) -> Learnt {
        let frame = Frame {
            function: Some(function.into()),
            module: None,
            file: Some("shop.py".into()),
            line: Some(7),
            address: 0,
        };
        Learnt { program: u64::MAX, statement: statement.into(), code: vec![frame] }
    }

    #[test]
    fn what_one_run_learns_the_next_one_knows() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("learnt");
        assert!(read_learnt(&path).unwrap().is_empty(), "there is none yet");
        fs::write(&path, "").unwrap();
        assert!(read_learnt(&path).unwrap().is_empty(), "an empty one");
        fs::remove_file(&path).unwrap();
        let mut story = Run::new();
        let mut sink = LearntFile::prepare(&path).unwrap();
        sink.end(&story.snapshot(5.0), &[]).unwrap();
        assert!(!path.exists(), "nothing was learnt");
        let all = [learnt("SELECT ?", "pay"), learnt("UPDATE \"x\n\" SET a = ?", "refund")];
        all.iter().for_each(|one| story.senders.remember(one));
        sink.interval(&story.snapshot(70.0), &[]).unwrap();
        sink.end(&story.snapshot(71.0), &[]).unwrap();
        let mut read = read_learnt(&path).unwrap();
        read.sort_by(|one, other| one.statement.cmp(&other.statement));
        assert_eq!(read, all);
    }

    #[test]
    fn what_others_may_write_or_have_written_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("learnt");
        let said = |text: &str| {
            fs::write(&path, text).unwrap();
            read_learnt(&path).unwrap_err().to_string()
        };
        assert!(said("hello\n").starts_with("line 1 of "));
        assert!(said("{\"schema\":\"pgsocktrace.report/1\"}\n").starts_with("line 1 of "));
        assert!(said("{\"schema\":\"pgsocktrace.learnt/1\"}\n{}\n").starts_with("line 2 of "));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(read_learnt(&path).unwrap_err().to_string().contains("chmod go-w"));
        assert!(read_learnt(directory.path()).is_err());
    }
}
