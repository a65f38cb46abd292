//! `cargo xtask fuzz`: gives the parsers any bytes, steered by the code that they reach.
//!
//! Not by cargo-fuzz, which asks for a nightly compiler and an installation of its own.

use std::{fs, path::Path};

use anyhow::{Result, ensure};
use support::{
    command::check,
    workspace::{cargo, target_directory},
};

/// What libFuzzer needs in the code: every compiler has it, so that no nightly one is needed.
const INSTRUMENTATION: &str = "-Cpasses=sancov-module \
     -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
     -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares \
     -Ccodegen-units=1";
/// Named, so that the instrumentation is for the programs alone and not for build scripts.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Prints the targets.
pub(crate) fn list(workspace: &Path) -> Result<()> {
    for target in targets(workspace)? {
        println!("{target}");
    }
    Ok(())
}

/// Runs a target. What it finds, it leaves in `target/fuzz/found/`; inputs that reached new code
/// stay in `target/fuzz/corpus/` for the next time.
pub(crate) fn run(workspace: &Path, target: &str, seconds: u32) -> Result<()> {
    let known = targets(workspace)?;
    ensure!(known.iter().any(|one| one == target), "The targets are {}.", known.join(", "));
    let directory = target_directory(workspace).join("fuzz");
    let (corpus, found) = (directory.join("corpus").join(target), directory.join("found"));
    fs::create_dir_all(&corpus)?;
    fs::create_dir_all(&found)?;
    check(
        cargo(workspace)
            .env("RUSTFLAGS", INSTRUMENTATION)
            .args(["run", "--release", "--manifest-path", "fuzz/Cargo.toml"])
            .args(["--target", TARGET, "--bin", target, "--target-dir"])
            .arg(&directory)
            .arg("--")
            .arg(&corpus)
            .arg(workspace.join("fuzz/seeds").join(target))
            .arg(format!("-artifact_prefix={}/", found.display()))
            .arg(format!("-max_total_time={seconds}"))
            .args(["-timeout=10", "-rss_limit_mb=2048", "-max_len=65536"]),
    )
}

fn targets(workspace: &Path) -> Result<Vec<String>> {
    let mut targets = Vec::new();
    for entry in fs::read_dir(workspace.join("fuzz/fuzz_targets"))? {
        let path = entry?.path();
        targets.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    targets.sort();
    Ok(targets)
}
