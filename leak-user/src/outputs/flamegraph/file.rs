//! Writing the picture to a file.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Why the picture cannot be written where it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Something else has the name.
    #[error("{0} is not a regular file, and is not replaced by a flame graph")]
    NotAFile(PathBuf),
    /// The system refuses.
    #[error("the flame graph cannot be written to {path}: {source}")]
    Unwritable {
        /// The path that was asked for.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A file that will be there whole, or not at all.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    /// Beside it, and of a name of its own.
    draft: PathBuf,
}

impl File {
    /// Makes sure that `path` can be written: better now than after an hour of tracing.
    ///
    /// # Errors
    ///
    /// When it cannot.
    pub fn prepare(path: &Path) -> Result<Self, FileError> {
        let unwritable = |source| FileError::Unwritable { path: path.to_owned(), source };
        // A link stays one: what it leads to is replaced.
        let target = match fs::canonicalize(path) {
            Ok(target) if !target.is_file() => return Err(FileError::NotAFile(path.to_owned())),
            Ok(target) => target,
            Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
            Err(error) => return Err(unwritable(error)),
        };
        let name = target.file_name().ok_or_else(|| FileError::NotAFile(path.to_owned()))?;
        let draft = format!(".{}.{}", name.to_string_lossy(), std::process::id());
        let file = Self { draft: target.with_file_name(draft), path: target };
        file.write_draft(b"").map_err(unwritable)?;
        fs::remove_file(&file.draft).map_err(unwritable)?;
        Ok(file)
    }

    /// Writes it, in place of what was there.
    ///
    /// # Errors
    ///
    /// When it cannot be written; what was there stays then.
    pub fn write(&self, svg: &[u8]) -> Result<(), FileError> {
        let written = self.write_draft(svg).and_then(|()| fs::rename(&self.draft, &self.path));
        written.map_err(|source| {
            // There may be none.
            let _ = fs::remove_file(&self.draft);
            FileError::Unwritable { path: self.path.clone(), source }
        })
    }

    fn write_draft(&self, svg: &[u8]) -> io::Result<()> {
        let mut draft = OpenOptions::new().write(true).create_new(true).open(&self.draft)?;
        draft.write_all(svg)?;
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
        let file = File::prepare(&link).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        file.write(b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert!(link.is_symlink());
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 2, "no draft stays");
    }

    #[test]
    fn what_cannot_be_written_is_refused_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let said = |path: &Path| File::prepare(path).unwrap_err().to_string();
        assert!(said(directory.path()).contains("not a regular file"));
        assert!(said(Path::new("/dev/null")).contains("not a regular file"));
        assert!(said(&directory.path().join("no/such.svg")).contains("No such file"));
        assert!(said(Path::new("/proc/x.svg")).contains("/proc/x.svg"));
        assert!(said(Path::new("")).contains("not a regular file"));
        assert!(said(Path::new("/")).contains("not a regular file"));
    }
}
