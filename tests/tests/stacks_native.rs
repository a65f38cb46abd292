//! Stacks of programs in C, C++ and Rust equal gdb's, frame by frame.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use tests::native::{self, Subject, compare, subjects};
use tests::{Need, Suite, Test, test};

/// What a stack at the tracer's limits may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    /// Said to be truncated, and right as far as it goes.
    Truncated,
    /// Told differently.
    Told,
}

/// Where the tracer does not see what gdb sees.
const LIMITS: [(&str, &str, Limit); 4] = [
    // Of the registers that callees preserve only the frame pointer is copied.
    ("C", "assembly_register", Limit::Truncated),
    // The interrupted function's stack is another one, which is not copied.
    ("C", "signal_on_other_stack", Limit::Truncated),
    // The compiler notes several lines for one instruction; gdb skips those where it cannot stop.
    ("C++", "comparison", Limit::Told),
    // A coroutine's body is a nameless part of its function, of which gdb infers inlined ones.
    ("C++", "coroutine", Limit::Told),
];

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
    let mut unexpected = Vec::new();
    for difference in &outcome.differences {
        let is_limit = |(language, place, kind): &&(&str, &str, Limit)| {
            *language == subject.language
                && *place == difference.place
                && (*kind == Limit::Told || difference.is_truncated)
        };
        if !LIMITS.iter().any(|limit| is_limit(&limit)) {
            unexpected.push(difference.text.as_str());
        }
    }
    ensure!(unexpected.is_empty(), "{}", unexpected.join("\n"));
    Ok(())
}
