//! What became of the tests.

use std::fmt::{self, Write as _};

use support::results::Fate;

use super::programs::Program;

/// Lines shown of one failure: an assertion and what it was about, and no whole report.
const LINES_OF_FAILURE: usize = 24;

/// Counts of tests, and those that failed.
#[derive(Default)]
pub(super) struct Tally<'a> {
    passed: usize,
    skipped: usize,
    /// Each with its program and what it printed.
    failed: Vec<(&'a Program, String, String)>,
    /// Programs that ended without a test to blame, and how.
    broken_off: Vec<String>,
}

impl<'a> Tally<'a> {
    /// Counts a test.
    pub(super) fn count(&mut self, program: &'a Program, name: String, fate: Fate, output: &str) {
        match fate {
            Fate::Passed => self.passed += 1,
            Fate::Skipped => self.skipped += 1,
            Fate::Failed => self.failed.push((program, name, beginning(output))),
        }
    }

    /// Counts all examples in documentation as one test.
    pub(super) fn count_documentation(&mut self, passed: bool) {
        if passed {
            self.passed += 1;
        } else {
            self.broken_off.push("examples in documentation".to_owned());
        }
    }

    /// Counts a program that failed though none of its tests did.
    pub(super) fn broke_off(&mut self, program: &Program, how: &str) {
        self.broken_off.push(format!("{}: {how}", program.name()));
    }

    /// What failed tests printed: between them and the end of the run lies the output of all
    /// others.
    pub(super) fn failures(&self) -> String {
        let mut text = String::new();
        for (program, name, output) in &self.failed {
            let _ = write!(text, "\n---- {}: {name} ----\n{output}", program.name());
        }
        for program in &self.broken_off {
            let _ = write!(text, "\n---- {program} ----\n");
        }
        text
    }

    /// The failed tests, where they are few enough and nothing else failed.
    pub(super) fn may_be_late(&self, most: usize) -> Option<Vec<(&'a Program, String)>> {
        let are_few = (1..=most).contains(&self.failed.len()) && self.broken_off.is_empty();
        let failed = self.failed.iter().map(|(program, name, _)| (*program, name.clone()));
        are_few.then(|| failed.collect())
    }

    /// Counts the failed tests as passed.
    pub(super) fn forgive(&mut self) {
        self.passed += self.failed.drain(..).count();
    }

    /// Whether anything failed.
    pub(super) fn has_failed(&self) -> bool {
        !self.failed.is_empty() || !self.broken_off.is_empty()
    }

    /// Whether any test was run.
    pub(super) fn has_run(&self) -> bool {
        self.passed + self.failed.len() > 0
    }
}

impl fmt::Display for Tally<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failed = self.failed.len() + self.broken_off.len();
        write!(f, "{} passed, {failed} failed, {} skipped", self.passed, self.skipped)
    }
}

fn beginning(output: &str) -> String {
    let lines = output.lines().filter(|line| !line.is_empty()).take(LINES_OF_FAILURE);
    lines.map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_shown_but_no_whole_report() {
        let long = "left\n\n".repeat(2 * LINES_OF_FAILURE);
        assert_eq!(beginning(&long), "left\n".repeat(LINES_OF_FAILURE));
    }

    #[test]
    fn few_may_be_late_and_then_count_as_passed() {
        let program = Program::test("leaks");
        let mut tally = Tally::default();
        assert!(tally.may_be_late(2).is_none(), "none failed");
        tally.count(&program, "a".to_owned(), Fate::Failed, "broken");
        tally.count(&program, "b".to_owned(), Fate::Skipped, "");
        assert_eq!(tally.to_string(), "0 passed, 1 failed, 1 skipped");
        assert_eq!(tally.failures(), "\n---- leaks: a ----\nbroken\n");
        assert_eq!(tally.may_be_late(2).unwrap().len(), 1);
        assert!(tally.may_be_late(0).is_none());
        tally.forgive();
        assert!(!tally.has_failed() && tally.has_run());
    }

    #[test]
    fn what_broke_off_is_not_late() {
        let program = Program::test("leaks");
        let mut tally = Tally::default();
        tally.count(&program, "a".to_owned(), Fate::Failed, "");
        tally.broke_off(&program, "signal: 6");
        assert!(tally.may_be_late(2).is_none());
        assert_eq!(tally.to_string(), "0 passed, 2 failed, 0 skipped");
    }
}
