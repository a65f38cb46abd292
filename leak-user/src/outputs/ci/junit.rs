//! A JUnit report: a test case for each open finding, or one that says how the run ended.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::{Baseline, grave, message, title};
use crate::engine::detect::Severity;
use crate::engine::doubt::Doubt;
use crate::engine::findings::{Change, Finding};
use crate::engine::snapshot::Snapshot;
use crate::outputs::{OutputError, Sink};

/// Why a JUnit report cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("the JUnit report cannot be written to {path}: {source}")]
struct JunitError {
    path: PathBuf,
    source: io::Error,
}

/// Writes the report at the end.
pub(in crate::outputs) struct Junit {
    file: File,
    path: PathBuf,
    baseline: Baseline,
}

impl Junit {
    /// Makes the file now: better than to fail after an hour.
    pub(in crate::outputs) fn create(path: &Path, baseline: Baseline) -> Result<Self, OutputError> {
        let path = path.to_owned();
        match File::create(&path) {
            Ok(file) => Ok(Self { file, path, baseline }),
            Err(source) => Err(OutputError::other(JunitError { path, source })),
        }
    }
}

impl Sink for Junit {
    fn end(&mut self, snapshot: &Snapshot<'_>, _: &[Change]) -> Result<(), OutputError> {
        let written = self.file.write_all(report(snapshot, &self.baseline).as_bytes());
        let path = self.path.clone();
        written.map_err(|source| OutputError::other(JunitError { path, source }))
    }
}

/// How a test case ended.
enum Outcome {
    Passed,
    Failed(&'static str, String),
    Skipped(&'static str),
    Error(String),
}

fn report(snapshot: &Snapshot<'_>, baseline: &Baseline) -> String {
    let mut cases: Vec<(String, Outcome)> = grave(snapshot)
        .into_iter()
        .map(|finding| {
            let outcome = outcome(snapshot, finding, baseline);
            (attributes(snapshot, finding), outcome)
        })
        .collect();
    if !cases.iter().any(|(_, outcome)| matches!(outcome, Outcome::Failed(..))) {
        let doubt = Doubt::about(snapshot);
        let outcome = doubt.map_or(Outcome::Passed, |doubt| Outcome::Error(doubt.to_string()));
        cases.push(("name=\"no connection leaks\"".to_owned(), outcome));
    }
    let count = |wanted: fn(&Outcome) -> bool| cases.iter().filter(|(_, it)| wanted(it)).count();
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    // Writing to a String cannot fail.
    let _ = writeln!(
        xml,
        "  <testsuite name=\"pgsocktrace\" tests=\"{}\" failures=\"{}\" errors=\"{}\" \
         skipped=\"{}\" time=\"{:.3}\" timestamp=\"{}\">",
        cases.len(),
        count(|outcome| matches!(outcome, Outcome::Failed(..))),
        count(|outcome| matches!(outcome, Outcome::Error(_))),
        count(|outcome| matches!(outcome, Outcome::Skipped(_))),
        snapshot.lasted().as_secs_f64(),
        crate::model::time::rfc3339(snapshot.run.started_at),
    );
    for (attributes, outcome) in &cases {
        let _ = write!(xml, "    <testcase classname=\"pgsocktrace\" {attributes}");
        let _ = match outcome {
            Outcome::Passed => writeln!(xml, "/>"),
            Outcome::Failed(reason, message) => {
                let first = message.lines().next().unwrap_or_default();
                writeln!(
                    xml,
                    ">\n      <failure type=\"{reason}\" message=\"{}\">{}</failure>\n    </testcase>",
                    escaped(first),
                    escaped(message)
                )
            }
            Outcome::Skipped(why) => {
                writeln!(xml, ">\n      <skipped message=\"{why}\"/>\n    </testcase>")
            }
            Outcome::Error(why) => {
                writeln!(xml, ">\n      <error message=\"{}\"/>\n    </testcase>", escaped(why))
            }
        };
    }
    xml.push_str("  </testsuite>\n</testsuites>\n");
    xml
}

fn outcome(snapshot: &Snapshot<'_>, finding: &Finding, baseline: &Baseline) -> Outcome {
    let verdict = &finding.verdict;
    if baseline.has(snapshot.fingerprint(finding)) {
        Outcome::Skipped("in the baseline")
    } else if verdict.severity == Severity::Leak {
        Outcome::Failed(verdict.reason.name(), message(snapshot, finding))
    } else {
        Outcome::Skipped("suspect, not proven")
    }
}

fn attributes(snapshot: &Snapshot<'_>, finding: &Finding) -> String {
    let mut text = format!("name=\"{}\"", escaped(&title(snapshot, finding)));
    let culprit = snapshot.culprit(&finding.verdict);
    if let Some(file) = culprit.and_then(|culprit| culprit.file.as_deref()) {
        let _ = write!(text, " file=\"{}\"", escaped(file));
        if let Some(line) = culprit.and_then(|culprit| culprit.line) {
            let _ = write!(text, " line=\"{line}\"");
        }
    }
    text
}

/// Text for XML 1.0, which has no place for most control characters, not even escaped.
fn escaped(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => clean.push_str("&amp;"),
            '<' => clean.push_str("&lt;"),
            '>' => clean.push_str("&gt;"),
            '"' => clean.push_str("&quot;"),
            '\n' => clean.push_str("&#10;"),
            _ if character.is_control() || matches!(character, '\u{fffe}' | '\u{ffff}') => {
                clean.push('\u{fffd}');
            }
            _ => clean.push(character),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outputs::testing::Run;

    #[test]
    fn a_leak_is_a_failed_test_at_its_line() {
        let mut run = Run::new();
        run.turn(200.0);
        let xml = report(&run.snapshot(200.0), &Baseline::default());
        assert!(xml.contains("tests=\"1\" failures=\"1\" errors=\"0\" skipped=\"0\""), "{xml}");
        assert!(
            xml.contains("name=\"abandoned in app::report\" file=\"src/report.go\" line=\"41\"")
        );
        assert!(xml.contains("<failure type=\"abandoned\" message=\"11 connections"), "{xml}");
    }

    #[test]
    fn no_leak_is_a_test_that_passed_and_no_answer_an_error() {
        let run = Run::new();
        let xml = report(&run.snapshot(200.0), &Baseline::default());
        assert!(xml.contains("name=\"no connection leaks\"/>"), "{xml}");
        let early = report(&run.snapshot(10.0), &Baseline::default());
        assert!(early.contains("errors=\"1\"") && early.contains("<error message=\"no leak could"));
    }

    #[test]
    fn strangers_text_stays_text() {
        assert_eq!(escaped("<a b=\"&\">\x1b"), "&lt;a b=&quot;&amp;&quot;&gt;\u{fffd}");
    }
}
