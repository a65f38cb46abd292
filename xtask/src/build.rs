//! `cargo xtask build`: the kernel programs first, then the binary that embeds them.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Error, Result, ensure};

use crate::{
    process, setup,
    toolchain::{Toolchain, target_directory},
};

/// Builds everything and returns the path of the optimised `pgsocktrace`.
pub(crate) fn run(workspace: &Path) -> Result<PathBuf> {
    setup::run(workspace, &[setup::Need::Build])?;
    let target = target_directory(workspace);
    // The build script of leak-user would do it as well; here a failure is said first and alone.
    let object = Toolchain::find(&target)
        .and_then(|toolchain| toolchain.build(workspace, &target))
        .map_err(Error::msg)?;
    ensure!(object.is_file(), "The kernel programs are not where they belong: {object:?}.");
    process::check(cargo(workspace).args([
        "build",
        "--release",
        "--package",
        "leak-user",
        "--locked",
    ]))?;
    Ok(target.join("release/pgsocktrace"))
}

/// The cargo that runs us, in the workspace.
pub(crate) fn cargo(workspace: &Path) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace);
    command
}
