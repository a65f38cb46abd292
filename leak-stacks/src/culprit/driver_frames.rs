//! Code that the user says is a driver's or a framework's.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::culprit::glob::{Glob, GlobError};

/// A [pattern](Glob) for functions, modules or source files that are never the culprit.
///
/// It must match the whole of a function's name, of a file's path, or of a module's path or its
/// last part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DriverFrames(Glob);

/// A pattern that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DriverFramesError {
    /// It is no pattern.
    #[error(transparent)]
    Malformed(#[from] GlobError),
    /// It matches everything, or nothing.
    #[error(
        "`{0}` leaves no code to name; give a function, a module or a file, such as `*/dbkit/*`"
    )]
    Everything(String),
}

impl FromStr for DriverFrames {
    type Err = DriverFramesError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text.chars().all(|character| "*?".contains(character)) {
            return Err(DriverFramesError::Everything(text.to_owned()));
        }
        Ok(Self(text.parse()?))
    }
}

impl TryFrom<String> for DriverFrames {
    type Error = DriverFramesError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<DriverFrames> for String {
    fn from(pattern: DriverFrames) -> Self {
        pattern.0.into()
    }
}

impl DriverFrames {
    /// Whether a function's name or a path is meant.
    pub(crate) fn matches(&self, text: &str) -> bool {
        self.0.matches(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names_and_paths() {
        let matches = |pattern: &str, text| pattern.parse::<DriverFrames>().unwrap().matches(text);
        assert!(matches("example.com/dbkit.*", "example.com/dbkit.(*Pool).Get[...]"));
        assert!(matches("*/dbkit/*", "/srv/dbkit/pool.py") && matches("libdb?.so*", "libdb7.so.1"));
        assert!(!matches("dbkit.*", "example.com/dbkit.Get") && !matches("dbkit", "dbkit2"));
    }

    #[test]
    fn useless_patterns_are_refused_in_plain_words() {
        let refused = |pattern: &str| pattern.parse::<DriverFrames>().unwrap_err().to_string();
        assert!(refused("*").contains("leaves no code to name"));
        assert!(refused("").contains("leaves no code to name"));
        assert!(refused("[a").contains("as a shell does"));
    }
}
