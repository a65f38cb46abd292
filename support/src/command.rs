//! Runs programs to their end.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

/// Where system programs lie that a plain user's `PATH` often lacks.
const SYSTEM: &str = "/usr/sbin:/sbin";

/// Where a program lies on the `PATH`, or among the system's.
#[must_use]
pub fn which(program: &str) -> Option<PathBuf> {
    which::which(program).or_else(|_| which::which_in(program, Some(SYSTEM), "/")).ok()
}

/// Runs a program; fails when it does. It prints where we do.
///
/// # Errors
///
/// When it cannot be run, or fails.
pub fn check(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("Cannot run {command:?}"))?;
    ensure!(status.success(), "{command:?} failed: {status}.");
    Ok(())
}

/// Runs a program and returns what it printed.
///
/// # Errors
///
/// When it cannot be run, or fails; the message holds what it wrote to stderr.
pub fn output(command: &mut Command) -> Result<String> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("Cannot run {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} failed: {}. {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a program exists and succeeds; used to ask interpreters for their modules.
#[must_use]
pub fn succeeds(program: &str, arguments: &[&str]) -> bool {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
