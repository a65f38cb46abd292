//! `cargo xtask build`: the kernel programs first, then the binary that embeds them.
//!
//! There is one build for all: what the tests run is what is packed. It needs no shared library,
//! and its debug information lies beside it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Error, Result, ensure};
use support::{
    command::check,
    toolchain::{Toolchain, remapped},
    workspace::{cargo, target_directory},
};

use crate::setup;

/// What the program is built for: this machine's processor.
pub(crate) const TARGET: &str = if cfg!(target_arch = "aarch64") {
    "aarch64-unknown-linux-gnu"
} else {
    "x86_64-unknown-linux-gnu"
};

const PROGRAM: &str = "pgsocktrace";

/// Builds everything and returns the path of the optimised `pgsocktrace`.
pub(crate) fn run(workspace: &Path) -> Result<PathBuf> {
    setup::run(workspace, &[setup::Need::Build])?;
    let target = target_directory(workspace);
    // The build script of leak-user would do it as well; here a failure is reported first and
    // alone.
    let object = Toolchain::find(&target)
        .and_then(|toolchain| toolchain.build(workspace, &target))
        .map_err(Error::msg)?;
    ensure!(object.is_file(), "The kernel programs are not where they belong: {object:?}.");
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    flags.extend(remapped(workspace));
    check(
        cargo(workspace)
            .args(["build", "--locked", "--release", "--package", "leak-user"])
            .args(["--target", TARGET])
            .env_remove("RUSTFLAGS")
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}")),
    )?;
    set_debug_information_apart(&target.join(TARGET).join("release"), &target.join("release"))
}

/// Leaves the program in `to`, with its symbols but without debug information, which is in a file
/// of its own that debuggers find.
fn set_debug_information_apart(from: &Path, to: &Path) -> Result<PathBuf> {
    let (built, program, debug) =
        (from.join(PROGRAM), to.join(PROGRAM), format!("{PROGRAM}.debug"));
    fs::create_dir_all(to)?;
    check(Command::new("objcopy").arg("--only-keep-debug").arg(&built).arg(to.join(&debug)))?;
    // Under another name at first: the one of before may be running.
    let fresh = to.join(format!("{PROGRAM}.new"));
    check(
        Command::new("objcopy")
            .current_dir(to)
            .arg("--strip-debug")
            .arg(format!("--add-gnu-debuglink={debug}"))
            .args([&built, &fresh]),
    )?;
    fs::rename(&fresh, &program)?;
    Ok(program)
}
