//! Go: every release that the mirror has, built in every way.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use harness::{
    TraceBuilder,
    golang::{GoBuild, GoProgram, Toolchain, observe, shapes},
};
use support::workspace::target_directory;

use super::{Bench, Row, Share, added_ns};

/// Requests that make one measurement of what tracing adds.
const ROUNDS: u32 = 2000;

/// One row for each release, over all ways to build.
pub(super) fn rows(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let target = target_directory(bench.workspace);
    let mut rows = Vec::new();
    for toolchain in Toolchain::all(&target) {
        let mut whole: Option<Row> = None;
        for how in GoBuild::all() {
            let row = row(bench, &toolchain, how);
            let row = row.with_context(|| format!("Go {}, {how}", toolchain.version))?;
            println!("  Go {}, {how}: {} of {}", row.version, row.frames.right, row.frames.of);
            whole = Some(match whole {
                Some(whole) => whole.with(&row),
                None => row,
            });
        }
        rows.extend(whole);
    }
    ensure!(!rows.is_empty(), "There is no Go.");
    Ok(rows)
}

fn row(bench: &Bench<'_>, toolchain: &Toolchain, how: GoBuild) -> Result<Row> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("stacks");
    let caches = target_directory(bench.workspace).join("go");
    toolchain.build(how, &GoProgram::source(), &caches, &path)?;
    let port = bench.postgres.port();
    let mut program = GoProgram::start(&path, port)?;
    let trace = TraceBuilder::new(Command::new(bench.binary), port).pid(program.pid()).start()?;
    let connection = program.open("plain")?;
    let added_ns =
        added_ns(trace.pid(), ROUNDS, |rounds| program.rounds(connection.cookie, rounds))?;
    let seen = observe(&mut program, &shapes(toolchain, how), trace)?;
    eprint!("{}", seen.wrong);
    let share = |(right, of)| Share { right, of };
    Ok(Row {
        language: "Go".to_owned(),
        version: toolchain.version.clone(),
        build: how.to_string(),
        frames: share(seen.frames),
        opened_by: share(seen.opened_by),
        last_used_by: share(seen.last_used_by),
        added_ns,
        witness: "runtime.Stack",
    })
}
