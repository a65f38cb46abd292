//! Checks that nothing is left behind.
//!
//! Every process of a run inherits a mark in its environment. It tells the run's remaining
//! processes from other people's, and from those of runs at the same time.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};

use crate::process::eventually;

const VARIABLE: &str = "LEAK_TESTS_RUN";

/// Prefix of every directory that a run makes in the directory for temporary files; the run's PID
/// follows.
pub(crate) const DIRECTORY: &str = "pgsocktrace-tests.";

static MARK: LazyLock<String> = LazyLock::new(|| {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    format!("{}-{now}", std::process::id())
});

/// The mark, as `NAME=value`.
pub(crate) fn variable() -> String {
    format!("{VARIABLE}={}", *MARK)
}

pub(crate) fn mark(command: &mut Command) {
    command.env(VARIABLE, MARK.as_str());
}

/// The remaining processes of this run, as `PID NAME`.
fn processes() -> Vec<String> {
    let wanted = variable();
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let marked = |path: &Path| {
        fs::read(path.join("environ"))
            .is_ok_and(|all| all.split(|byte| *byte == 0).any(|one| one == wanted.as_bytes()))
    };
    entries
        .flatten()
        .filter(|entry| marked(&entry.path()))
        .map(|entry| {
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            format!("{} {}", entry.file_name().to_string_lossy(), name.trim())
        })
        .collect()
}

/// Waits until all processes of this run have ended.
pub(crate) fn check() -> Result<()> {
    if eventually("processes end", || Ok(processes().is_empty())).is_err() {
        bail!("left behind: {}", processes().join(", "));
    }
    Ok(())
}

/// Removes the directories of earlier runs that were killed.
pub(crate) fn sweep() {
    let place = std::env::temp_dir();
    for name in of_dead_runs([place.clone()]) {
        // Another run may be sweeping at the same time.
        let _ = fs::remove_dir_all(place.join(name));
    }
}

/// Names of directories below `places` whose runs have ended.
pub(crate) fn of_dead_runs(places: impl IntoIterator<Item = PathBuf>) -> BTreeSet<String> {
    let is_dead = |name: &String| {
        let pid = name.strip_prefix(DIRECTORY).and_then(|rest| rest.split('.').next());
        pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists())
    };
    let entries = places.into_iter().filter_map(|place| fs::read_dir(place).ok()).flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).filter(is_dead).collect()
}
