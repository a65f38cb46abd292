//! A file that is replaced whole.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Why it cannot be written where it was asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    /// Something else has the name.
    #[error("{path} is not a regular file, and is not replaced by {what}")]
    NotAFile {
        /// The path that was asked for.
        path: PathBuf,
        /// What was to be written.
        what: &'static str,
    },
    /// The system refuses.
    #[error("{what} cannot be written to {path}: {source}")]
    Unwritable {
        /// What was to be written.
        what: &'static str,
        /// The path that was asked for.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A file that will be there whole, or not at all.
#[derive(Clone, Debug)]
pub(super) struct WholeFile {
    /// What it is, for people.
    what: &'static str,
    path: PathBuf,
    /// Beside it, and of a name of its own.
    draft: PathBuf,
}

impl WholeFile {
    /// Makes sure that `path` can be written: better now than after an hour of tracing.
    ///
    /// # Errors
    ///
    /// When it cannot.
    pub(super) fn prepare(what: &'static str, path: &Path) -> Result<Self, FileError> {
        let unwritable = |source| FileError::Unwritable { what, path: path.to_owned(), source };
        let not_a_file = || FileError::NotAFile { path: path.to_owned(), what };
        // A link stays one: what it leads to is replaced.
        let target = match fs::canonicalize(path) {
            Ok(target) if !target.is_file() => return Err(not_a_file()),
            Ok(target) => target,
            Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
            Err(error) => return Err(unwritable(error)),
        };
        let name = target.file_name().ok_or_else(not_a_file)?;
        let draft = format!(".{}.{}", name.to_string_lossy(), std::process::id());
        let file = Self { what, draft: target.with_file_name(draft), path: target };
        file.write_draft(b"").map_err(unwritable)?;
        fs::remove_file(&file.draft).map_err(unwritable)?;
        Ok(file)
    }

    /// Writes it, in place of what was there.
    ///
    /// # Errors
    ///
    /// When it cannot be written; what was there stays then.
    pub(super) fn write(&self, content: &[u8]) -> Result<(), FileError> {
        let written = self.write_draft(content).and_then(|()| fs::rename(&self.draft, &self.path));
        written.map_err(|source| {
            // There may be none.
            let _ = fs::remove_file(&self.draft);
            FileError::Unwritable { what: self.what, path: self.path.clone(), source }
        })
    }

    fn write_draft(&self, content: &[u8]) -> io::Result<()> {
        let mut draft = OpenOptions::new().write(true).create_new(true).open(&self.draft)?;
        draft.write_all(content)?;
        draft.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_a_file_whole() {
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (directory.path().join("a.svg"), directory.path().join("link"));
        fs::write(&path, "old").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let file = WholeFile::prepare("the flame graph", &link).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        file.write(b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert!(link.is_symlink());
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 2, "no draft stays");
    }

    #[test]
    fn what_cannot_be_written_is_refused_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let said = |path: &Path| WholeFile::prepare("it", path).unwrap_err().to_string();
        assert!(said(directory.path()).contains("not a regular file"));
        assert!(said(Path::new("/dev/null")).contains("not a regular file"));
        assert!(said(&directory.path().join("no/such.svg")).contains("No such file"));
        assert!(said(Path::new("/proc/x.svg")).contains("/proc/x.svg"));
        assert!(said(Path::new("")).contains("not a regular file"));
        assert!(said(Path::new("/")).contains("not a regular file"));
    }
}
