//! Findings that are known, and fail no run.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::engine::findings::{Fingerprint, NoFingerprint};

/// The fingerprints of findings that are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Baseline(HashSet<Fingerprint>);

/// Why a baseline cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BaselineError {
    /// It cannot be read.
    #[error("the baseline {path} cannot be read: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line has something else.
    #[error("line {line} of the baseline {path}: {source}")]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What it should be.
        source: NoFingerprint,
    },
}

impl Baseline {
    /// Reads a file with a fingerprint a line; after a `#` stands what people want to remember.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or a line has something else.
    pub fn read(path: &Path) -> Result<Self, BaselineError> {
        let text = fs::read_to_string(path)
            .map_err(|source| BaselineError::Unreadable { path: path.to_owned(), source })?;
        let mut known = HashSet::new();
        for (index, line) in text.lines().enumerate() {
            let fingerprint = line.split('#').next().unwrap_or_default().trim();
            if !fingerprint.is_empty() {
                let wrong =
                    |source| BaselineError::Line { path: path.to_owned(), line: index + 1, source };
                known.insert(fingerprint.parse().map_err(wrong)?);
            }
        }
        Ok(Self(known))
    }

    /// Whether a finding is known.
    #[must_use]
    pub fn has(&self, fingerprint: Fingerprint) -> bool {
        self.0.contains(&fingerprint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_empty_lines_are_passed_over_and_anything_else_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("baseline");
        fs::write(&file, "# known\n\n00000000000000ab  # report, since May\n").unwrap();
        let baseline = Baseline::read(&file).unwrap();
        assert!(baseline.has("00000000000000ab".parse().unwrap()));
        assert!(!baseline.has("00000000000000ac".parse().unwrap()));
        fs::write(&file, "00000000000000ab\nf1\n").unwrap();
        let error = Baseline::read(&file).unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("16 hexadecimal"), "{error}");
    }
}
