//! Backtraces of traced calls, as gdb reports them.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::frames::Witness;
use crate::process::{Running, bound};
use crate::suite::APPS;

/// gdb, attached to a program until the program ends.
pub(super) struct Gdb {
    running: Running,
}

/// A system call, with gdb's backtrace.
#[derive(Debug, Deserialize)]
pub(super) struct Call {
    /// `connect` or `send`.
    pub(super) call: String,
    /// The socket's file descriptor.
    pub(super) fd: u64,
    /// Innermost first.
    pub(super) frames: Vec<Witness>,
}

impl Gdb {
    /// Attaches gdb, which reports every call from now on. It also looks for debug files in
    /// `debug`.
    pub(super) fn attach(pid: u32, debug: Option<&Path>) -> Result<Self> {
        let mut command = Command::new("gdb");
        command.args([
            "-batch",
            "-nx",
            "-ex",
            "set auto-load off",
            "-ex",
            "set debuginfod enabled off",
        ]);
        if let Some(debug) = debug {
            let directories =
                format!("set debug-file-directory {}:/usr/lib/debug", debug.display());
            command.args(["-ex", &directories]);
        }
        command.args(["-ex", &format!("attach {pid}"), "-x"]);
        command.arg(format!("{APPS}/stacks/witness.py"));
        let gdb = Self { running: Running::start(&mut command)? };
        let ready = |line: &str| (line == "READY").then_some(());
        let found = gdb.running.stdout.find_from(0, Instant::now() + bound(), ready);
        found.with_context(|| {
            format!("gdb did not attach: {}", gdb.running.stderr.all().join("\n"))
        })?;
        Ok(gdb)
    }

    /// All calls that gdb reported; waits until the program has ended.
    pub(super) fn calls(mut self) -> Result<Vec<Call>> {
        self.running.wait()?;
        let output = self.running.stdout.to_end()?;
        let calls: Vec<Call> = output
            .lines()
            .filter_map(|line| line.strip_prefix("WITNESS "))
            .map(|line| serde_json::from_str(line).context("gdb's script is broken"))
            .collect::<Result<_>>()?;
        ensure!(!calls.is_empty(), "gdb reported no calls: {}", self.running.stderr.to_end()?);
        Ok(calls)
    }
}
