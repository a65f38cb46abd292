//! `cargo xtask test`: every test of the workspace, and one honest line about them.

mod again;
mod listen;

use std::{io::Write as _, ops::AddAssign, path::Path, process::Stdio};

use anyhow::{Result, ensure};

use self::again::Failed;
use self::listen::{LONGEST_SILENCE, Line, listen};
use crate::{build, dist, setup};

/// So many tests of a run may be late; where more fail, the machine is not to blame.
pub(crate) const MOST_LATE: usize = 2;

/// What became of the tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// Runs all tests; `arguments` are handed to `cargo test`.
pub(crate) fn run(workspace: &Path, arguments: &[String]) -> Result<()> {
    setup::run(workspace, setup::EVERYTHING)?;
    let binary = build::run(workspace)?;
    let image = dist::image(workspace)?;
    // Without `--workspace`: the default members leave out what builds only for the BPF target.
    let cargo = || {
        let mut cargo = build::cargo(workspace);
        cargo.env("PGSOCKTRACE_BIN", &binary).env("PGSOCKTRACE_IMAGE", &image).stdin(Stdio::null());
        cargo
    };
    let mut tally = Tally::default();
    let mut failures = Failures::default();
    let mut again = Failed::default();
    let mut command = cargo();
    command.args(["test", "--locked", "--no-fail-fast"]).args(arguments);
    let status = listen(&mut command, LONGEST_SILENCE, |line| match line {
        Line::Test(line) => {
            if let Some(one) = read(line) {
                tally += one;
            }
            failures.hear(line);
            again.hear_test(line);
        }
        Line::Cargo(line) => again.hear_cargo(line),
    })?;
    print!("{}", failures.told);
    let late = again.late(cargo)?.unwrap_or_default();
    let Tally { mut passed, mut failed, skipped } = tally;
    passed += late.len() as u64;
    failed -= late.len() as u64;
    print!("\n{passed} passed, {failed} failed, {skipped} skipped");
    match late {
        [] => println!(),
        late => println!("; {} late, and passed alone: {}", late.len(), late.join(", ")),
    }
    std::io::stdout().flush()?;
    ensure!(failed == 0 && (status.success() || !late.is_empty()), "cargo test failed: {status}.");
    ensure!(passed > 0, "No test was run.");
    Ok(())
}

/// Lines told of one failure: an assertion and what it was about, and no whole report.
const LINES_OF_FAILURE: usize = 24;

/// What failed tests said, to be told once more at the end: between them and it lies the output of
/// all the test binaries that came after.
#[derive(Default)]
struct Failures {
    told: String,
    /// Lines that may still be told of the failure that is being heard.
    left: usize,
}

impl Failures {
    fn hear(&mut self, line: &str) {
        if line.starts_with("---- ") && line.ends_with(" ----") {
            self.left = LINES_OF_FAILURE;
            self.told.push('\n');
        } else if line == "failures:" {
            self.left = 0;
        }
        if self.left > 0 && !line.is_empty() {
            self.left -= 1;
            self.told.push_str(line);
            self.told.push('\n');
        }
    }
}

/// Reads the closing line of one test binary.
fn read(line: &str) -> Option<Tally> {
    let counts = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    let mut tally = Tally::default();
    for part in counts.split("; ") {
        let (number, what) = part.split_once(' ')?;
        match what {
            "passed" => tally.passed = number.parse().ok()?,
            "failed" => tally.failed = number.parse().ok()?,
            "ignored" => tally.skipped = number.parse().ok()?,
            _ => {}
        }
    }
    Some(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_became_of_a_test_binary() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; \
                    7 filtered out; finished in 0.02s";
        assert_eq!(read(line), Some(Tally { passed: 12, failed: 3, skipped: 1 }));
    }

    #[test]
    fn tells_failures_once_more() {
        let mut failures = Failures::default();
        let long = "left\n".repeat(2 * LINES_OF_FAILURE);
        let output = format!(
            "test one ... ok\nfailures:\n\n---- two ----\nit broke\n\n---- three ----\n{long}\n\nfailures:\n    two\n"
        );
        output.lines().for_each(|line| failures.hear(line));
        let (two, three) = failures.told.split_once("\n---- three ----\n").unwrap();
        assert_eq!(two, "\n---- two ----\nit broke\n");
        assert_eq!(three, "left\n".repeat(LINES_OF_FAILURE - 1));
    }

    #[test]
    fn reads_nothing_else() {
        for line in ["", "test result", "test result: ok", "test result: ok. x passed; 1 failed"] {
            assert_eq!(read(line), None, "{line:?}");
        }
    }
}
