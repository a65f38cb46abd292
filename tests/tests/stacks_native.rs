//! Stacks of programs in C, C++ and Rust equal gdb's, frame by frame.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use tests::native::{self, Subject, compare, subjects};
use tests::{Need, Suite, Test, test};

fn main() -> ExitCode {
    let of = |subject: Subject| -> Test {
        let body = move |suite: &Suite| equals_gdb(suite, &subject);
        test(subject.name(), body).needs(Need::Gdb).needs(subject.need())
    };
    tests::run(subjects().into_iter().map(of).collect())
}

fn equals_gdb(suite: &Suite, subject: &Subject) -> Result<()> {
    let outcome = compare(suite, subject)?;
    let native::Share { right, of } = outcome.frames;
    println!("{}: {right} of {of} frames", subject.name());
    ensure!(outcome.differences.is_empty(), "{}", outcome.differences.join("\n"));
    Ok(())
}
