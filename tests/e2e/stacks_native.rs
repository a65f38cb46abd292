//! Compares stacks of programs in C, C++ and Rust with gdb's, frame by frame.

use anyhow::{Result, ensure};
use harness::native::{self, Difference, Kind, Subject, compare, distinct};
use harness::{Need, Suite, Test, test};

/// The places where the tracer's stack may differ from gdb's.
const LIMITS: [(&str, &str, Kind); 2] = [
    // The interrupted function has another stack, which is not copied.
    ("C", "signal_on_other_stack", Kind::Truncated),
    // gdb lists the coroutine's first call as a caller of its body, although that call has
    // returned.
    ("C++", "coroutine", Kind::Fewer),
];

pub(crate) fn tests() -> Vec<Test> {
    let of = |subject: Subject| -> Test {
        let body = move |suite: &Suite| equals_gdb(suite, &subject);
        test(subject.name(), body).needs(Need::Gdb).needs(subject.need())
    };
    distinct().into_iter().map(of).collect()
}

fn equals_gdb(suite: &Suite, subject: &Subject) -> Result<()> {
    let outcome = compare(suite, subject)?;
    let native::Share { right, of } = outcome.frames;
    println!("{}: {right} of {of} frames", subject.name());
    let is_limit = |difference: &&Difference| {
        LIMITS.contains(&(subject.language, &difference.place, difference.kind))
    };
    let unexpected = outcome.differences.iter().filter(|d| !is_limit(d)).map(|d| &d.text);
    let unexpected: Vec<_> = unexpected.chain(&outcome.misnamed).map(String::as_str).collect();
    ensure!(unexpected.is_empty(), "{}", unexpected.join("\n"));
    Ok(())
}
