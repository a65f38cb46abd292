//! Failed tests, once more and each alone: what fails again is a defect of the project, what passes
//! was late on a busy machine. That is told and counted apart, and never for more than a few.

use std::process::Command;

use anyhow::Result;

use super::listen::{LONGEST_SILENCE, Line, listen};
use super::{MOST_LATE, read};

/// The tests that failed, and where they are.
#[derive(Default)]
pub(super) struct Failed {
    tests: Vec<String>,
    /// Cargo's options that choose each test binary in which a test failed.
    targets: Vec<String>,
    /// Test binaries that ended by themselves and said that a test failed.
    ended: usize,
}

impl Failed {
    /// Hears a line of a test binary.
    pub(super) fn hear_test(&mut self, line: &str) {
        let name = line.strip_prefix("test ").and_then(|line| line.strip_suffix(" ... FAILED"));
        self.tests.extend(name.map(|name| name.trim_end().to_owned()));
        self.ended += usize::from(read(line).is_some_and(|tally| tally.failed > 0));
    }

    /// Hears a line of cargo.
    pub(super) fn hear_cargo(&mut self, line: &str) {
        let target =
            line.split_once("to rerun pass `").and_then(|(_, options)| options.strip_suffix('`'));
        self.targets.extend(target.map(str::to_owned));
    }

    /// The tests that failed, where each passes when it runs alone. A binary that broke off fails.
    pub(super) fn late(&self, cargo: impl Fn() -> Command) -> Result<Option<&[String]>> {
        if self.tests.is_empty() || self.tests.len() > MOST_LATE || self.ended != self.targets.len()
        {
            return Ok(None);
        }
        for test in &self.tests {
            println!("\nOnce more, and alone: {test}");
            let mut passed = 0;
            for target in &self.targets {
                let mut command = cargo();
                command.args(["test", "--locked"]).args(target.split(' '));
                command.args(["--", "--exact", test]);
                let status = listen(&mut command, LONGEST_SILENCE, |line| {
                    if let Line::Test(line) = line {
                        passed += read(line).map_or(0, |tally| tally.passed);
                    }
                })?;
                if !status.success() {
                    return Ok(None);
                }
            }
            if passed == 0 {
                return Ok(None);
            }
        }
        Ok(Some(&self.tests))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run in which `count` tests of one binary failed.
    fn failed(count: usize) -> Failed {
        let mut failed = Failed::default();
        for number in 0..count {
            failed.hear_test(&format!("test leaks::number_{number}   ... FAILED"));
        }
        failed.hear_test(&format!("test result: FAILED. 3 passed; {count} failed; 0 ignored"));
        failed.hear_cargo("error: test failed, to rerun pass `-p tests --test leaks`");
        failed
    }

    /// Stands for cargo: says that so many tests passed, and exits with `code`.
    fn cargo(passed: u64, code: u8) -> impl Fn() -> Command {
        move || {
            let mut shell = Command::new("sh");
            let line = format!("test result: ok. {passed} passed; 0 failed; 0 ignored");
            shell.args(["-c", &format!("echo '{line}'; exit {code}")]);
            shell
        }
    }

    #[test]
    fn late_is_what_passes_alone() {
        let failed = failed(MOST_LATE);
        let names = ["leaks::number_0".to_owned(), "leaks::number_1".to_owned()];
        assert_eq!(failed.late(cargo(1, 0)).unwrap(), Some(names.as_slice()));
    }

    #[test]
    fn what_fails_again_has_failed() {
        assert_eq!(failed(1).late(cargo(1, 101)).unwrap(), None);
        assert_eq!(failed(1).late(cargo(0, 0)).unwrap(), None, "none was run");
    }

    #[test]
    fn many_are_not_late() {
        assert_eq!(failed(MOST_LATE + 1).late(cargo(1, 0)).unwrap(), None);
    }

    #[test]
    fn a_binary_that_broke_off_has_failed() {
        let mut failed = failed(1);
        failed.hear_cargo("error: test failed, to rerun pass `-p tests --test stacks`");
        assert_eq!(failed.late(cargo(1, 0)).unwrap(), None);
        let mut failed = Failed::default();
        failed.hear_cargo("error: test failed, to rerun pass `-p tests --test stacks`");
        assert_eq!(failed.late(cargo(1, 0)).unwrap(), None);
    }
}
