//! Share of complete and correct stacks, for each language and version; writes `docs/stacks.md`.

mod golang;
mod large;
mod native;
mod runtimes;

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};

use harness::{Server, cost::Statistics, server::Purpose};
use support::workspace;

/// Where the table goes.
const DOCUMENT: &str = "docs/stacks.md";

/// What a group of rows is measured with.
pub(super) struct Bench<'a> {
    /// The repository.
    pub(super) workspace: &'a Path,
    /// The tracer.
    pub(super) binary: &'a Path,
    /// The server that the programs use.
    pub(super) postgres: &'a Server,
}

/// How many of so many things are as they should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Share {
    /// Those that are.
    pub(super) right: u32,
    /// All.
    pub(super) of: u32,
}

/// What was measured of one language in one version.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// "Go", "C", "Python" …
    pub(super) language: String,
    /// Version of the compiler or runtime, as it tells it.
    pub(super) version: String,
    /// How the program was built or started: "stripped, PIE", "-O2, no frame pointers" …
    pub(super) build: String,
    /// Frames that were traced like the program itself or its debugger tells them, of those that it
    /// tells.
    pub(super) frames: Share,
    /// Connections whose connect stack names the application's right function.
    pub(super) opened_by: Share,
    /// Connections whose last request's stack names the application's right function.
    pub(super) last_used_by: Share,
    /// Time that the kernel programs added to a request and its answer, in nanoseconds.
    pub(super) added_ns: f64,
    /// Who told the frames that the traced ones are compared with.
    pub(super) witness: &'static str,
}

impl Row {
    /// Both as one row: what was measured of the same version, built in another way besides.
    fn with(mut self, other: &Self) -> Self {
        self.build = format!("{}; {}", self.build, other.build);
        self.frames.add(other.frames);
        self.opened_by.add(other.opened_by);
        self.last_used_by.add(other.last_used_by);
        self.added_ns = self.added_ns.max(other.added_ns);
        self
    }
}

impl Share {
    fn add(&mut self, other: Self) {
        self.right += other.right;
        self.of += other.of;
    }
}

/// Measures the rows of one group of languages.
type Group = fn(&Bench<'_>) -> Result<Vec<Row>>;

/// Every group.
const GROUPS: &[(&str, Group)] =
    &[("Go", golang::rows), ("C, C++ and Rust", native::rows), ("runtimes", runtimes::rows)];

/// Measures all rows and writes the table.
pub(super) fn run(workspace: &Path) -> Result<()> {
    let binary = workspace::binary(workspace);
    let postgres = Server::alone(Purpose::Measurements)?;
    let bench = Bench { workspace, binary: &binary, postgres: &postgres };
    let mut rows = Vec::new();
    for (name, group) in GROUPS {
        println!("bench: stacks of {name}");
        rows.extend(group(&bench).with_context(|| format!("The stacks of {name}"))?);
    }
    ensure!(!rows.is_empty(), "Nothing was measured.");
    let document = workspace.join(DOCUMENT);
    if let Some(directory) = document.parent() {
        fs::create_dir_all(directory)?;
    }
    println!("bench: stacks of a large program");
    let large = large::measure(&bench).context("The stacks of a large program")?;
    let text = format!("{}\n{large}", table(&rows));
    print!("{text}");
    fs::write(&document, format!("{PREFACE}{text}"))?;
    println!("bench: wrote {DOCUMENT}");
    Ok(())
}

/// Time that a tracer's programs take for each of so many rounds that `run` makes, in nanoseconds:
/// the least of three, because they also see what other processes send meanwhile.
fn added_ns(tracer: u32, rounds: u32, mut run: impl FnMut(u32) -> Result<()>) -> Result<f64> {
    let statistics = Statistics::on()?;
    let mut least = f64::INFINITY;
    for _ in 0..3 {
        let before = statistics.of(&[tracer])?;
        run(rounds)?;
        let costs = statistics.of(&[tracer])?.since(&before);
        let total: f64 = costs.iter().map(|cost| cost.nanoseconds * cost.runs as f64).sum();
        least = least.min(total / f64::from(rounds));
    }
    Ok(least)
}

/// What the document says before its table.
const PREFACE: &str = "\
# Stacks

Written by `cargo xtask bench stacks`, which anyone can repeat. Frames are compared one by one, function and line,
with what the witness told of the same call: the program itself or its debugger. \"Opened by\" and \"last used by\" say
how often the reported culprit was the right one, by the stack of the connect and of the last request. \"Added\" is the
time that the kernel programs spent on one request and its answer, as the kernel's statistics tell it; where a row joins
several builds, the largest.

Go's runtime is asked by the traced program itself, in the expression that makes the call: functions of the library that
lead from there into the kernel it cannot tell, so of those only their packages are compared. Functions of the runtime
that it keeps to itself and the types of instantiated functions are left out on both sides.

Asynchronous functions of Rust are told by their own names: what only polls them (closures, `Future::poll`, the
executor's steps between a task and its function) is folded into them, and left out of what gdb tells. A driver that
sends from a task of its own, as tokio-postgres does, hides its caller from every stack: nobody is named then.

Where less than all is right: what lies below a signal handler that runs on a stack of its own is not copied (C); functions
that ended in a tail call are on no stack, gdb infers them, and the frames after one are counted as wrong (C++, -O2); a
stack longer than the largest copy lacks its outermost frames (tokio, debug). Java's map does not tell methods that were
compiled into their callers: the caller is named, and counted as wrong.

";

/// The table, in Markdown.
fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| language | version | build | frames right | opened by | last used by | added | witness |\n\
         |---|---|---|---:|---:|---:|---:|---|\n",
    );
    for row in rows {
        text.push_str(&format!(
            "| {} | {} | {} | {} | {} | {} | {:.1} µs | {} |\n",
            row.language,
            row.version,
            row.build,
            percent(row.frames),
            percent(row.opened_by),
            percent(row.last_used_by),
            row.added_ns / 1000.0,
            row.witness,
        ));
    }
    text
}

/// "99.1 % of 342"; "–" where there was nothing to look at.
fn percent(share: Share) -> String {
    match share.of {
        0 => "–".to_owned(),
        // Rounded down: only what is all right is 100 %.
        of => format!(
            "{:.1} % of {of}",
            (f64::from(share.right) * 1000.0 / f64::from(of)).floor() / 10.0
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_all_is_100_percent() {
        assert_eq!(percent(Share { right: 9999, of: 10_000 }), "99.9 % of 10000");
        assert_eq!(percent(Share { right: 3, of: 3 }), "100.0 % of 3");
        assert_eq!(percent(Share { right: 0, of: 0 }), "–");
    }
}
