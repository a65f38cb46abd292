//! C, C++ and Rust: the programs of `tests/apps/stacks`, compared with gdb as the tests do.

use anyhow::Result;
use harness::Suite;
use harness::native::{self, Outcome, subjects};

use super::{Bench, Row, Share, added_ns};

/// One row for each language, compiler and way of building.
pub(super) fn rows(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let suite = Suite::start_with(bench.binary)?;
    let rows = subjects().iter().map(|subject| row(&suite, subject)).collect();
    suite.stop()?;
    rows
}

fn row(suite: &Suite, subject: &native::Subject) -> Result<Row> {
    println!("bench: {}", subject.name());
    let outcome = native::compare(suite, subject)?;
    let Outcome { frames, opened_by, last_used_by, differences, misnamed } = outcome;
    for text in differences.iter().map(|difference| &difference.text).chain(&misnamed) {
        println!("{text}");
    }
    let added_ns = native::requests(suite, subject, |tracer, work| {
        added_ns(tracer, native::ROUNDS, |_| work())
    })?;
    let share = |share: native::Share| Share { right: share.right, of: share.of };
    Ok(Row {
        language: subject.language.to_owned(),
        version: subject.version()?,
        build: subject.build.to_owned(),
        frames: share(frames),
        opened_by: share(opened_by),
        last_used_by: share(last_used_by),
        added_ns,
        witness: "gdb",
    })
}
