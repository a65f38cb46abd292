//! Stacks of programs in C, C++ and Rust equal gdb's, frame by frame.

use anyhow::{Result, ensure};
use harness::native::{self, Difference, Kind, Subject, compare, distinct};
use harness::{Need, Suite, Test, test};

/// Where the tracer does not see what gdb sees.
const LIMITS: [(&str, &str, Kind); 2] = [
    // The interrupted function's stack is another one, which is not copied.
    ("C", "signal_on_other_stack", Kind::Truncated),
    // gdb shows the coroutine's first call among the callers of its body, though that has returned.
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
