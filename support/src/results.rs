//! What test programs report, read from their machine-readable output: JSON lines, which libtest
//! and libtest-mimic write alike with [`ARGUMENTS`].

use serde::Deserialize;

/// Makes a test program write one JSON object a line. libtest calls the format unstable and asks
/// for [`UNLOCK`]; libtest-mimic does not.
pub const ARGUMENTS: [&str; 4] = ["-Z", "unstable-options", "--format", "json"];

/// The environment variable, and its value, that lets a stable libtest write JSON. It is set for
/// test programs alone and never for the compiler.
pub const UNLOCK: (&str, &str) = ("RUSTC_BOOTSTRAP", "1");

/// So many tests of a run may fail and pass when they are run once more; where more fail, a busy
/// machine is not to blame.
pub const MOST_LATE: usize = 2;

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It passed.
    Passed,
    /// It failed.
    Failed,
    /// The machine lacks what it needs, or it is marked as ignored.
    Skipped,
}

/// A line of a test program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// A test has begun.
    Started(String),
    /// A test has ended, with what it printed if it failed.
    Ended {
        /// Its name.
        name: String,
        /// How.
        fate: Fate,
        /// The error, or what it printed.
        output: String,
    },
    /// A group of tests begins or ends, or a test takes long.
    Other,
    /// Not of the test program itself: a test has printed it.
    Text(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase", tag = "type")]
enum Message {
    Suite {},
    Test {
        event: String,
        name: String,
        #[serde(default)]
        stdout: String,
        #[serde(default)]
        message: String,
    },
}

impl Line {
    /// Reads a line.
    #[must_use]
    pub fn read(line: &str) -> Self {
        let Ok(message) = serde_json::from_str(line) else {
            return Self::Text(line.to_owned());
        };
        let Message::Test { event, name, stdout, message } = message else { return Self::Other };
        let ended = |fate| Self::Ended {
            name: name.clone(),
            fate,
            output: format!("{stdout}{message}").trim().to_owned(),
        };
        match event.as_str() {
            "started" => Self::Started(name),
            "ok" => ended(Fate::Passed),
            "failed" => ended(Fate::Failed),
            "ignored" => ended(Fate::Skipped),
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(name: &str, fate: Fate, output: &str) -> Line {
        Line::Ended { name: name.into(), fate, output: output.into() }
    }

    #[test]
    fn reads_libtest_and_libtest_mimic() {
        for (text, line) in [
            (r#"{ "type": "suite", "event": "started", "test_count": 2 }"#, Line::Other),
            (r#"{ "type": "test", "event": "started", "name": "a" }"#, Line::Started("a".into())),
            (r#"{ "type": "test", "name": "a", "event": "ok" }"#, ended("a", Fate::Passed, "")),
            (
                r#"{ "type": "test", "name": "a::b", "event": "failed", "stdout": "x\ny\n" }"#,
                ended("a::b", Fate::Failed, "x\ny"),
            ),
            (
                r#"{ "type": "test", "name": "a", "event": "ignored" }"#,
                ended("a", Fate::Skipped, ""),
            ),
            (r#"{ "type": "test", "name": "a", "event": "timeout" }"#, Line::Other),
            ("note: no event", Line::Text("note: no event".into())),
            (r#"{"event":"opened"}"#, Line::Text(r#"{"event":"opened"}"#.into())),
        ] {
            assert_eq!(Line::read(text), line, "{text}");
        }
    }
}
