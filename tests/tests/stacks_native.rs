//! Stacks of programs in C, C++ and Rust equal gdb's, frame by frame.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use tests::native::{Subject, compare, subjects};
use tests::{Suite, Test, test};

fn main() -> ExitCode {
    let of = |subject: Subject| -> Test {
        test(subject.name(), move |suite: &Suite| equals_gdb(suite, &subject))
    };
    tests::run(subjects().into_iter().map(of).collect())
}

fn equals_gdb(suite: &Suite, subject: &Subject) -> Result<()> {
    let outcome = compare(suite, subject)?;
    println!("{}: {:?}", subject.name(), outcome);
    ensure!(outcome.differences.is_empty(), "{}", outcome.differences.join("\n"));
    Ok(())
}
