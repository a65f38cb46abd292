//! `cargo xtask build`: the kernel programs first, then the binary that embeds them.

use std::path::{Path, PathBuf};

use anyhow::{Error, Result, ensure};
use support::{
    command::check,
    toolchain::Toolchain,
    workspace::{cargo, target_directory},
};

use crate::setup;

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
    check(cargo(workspace).args(["build", "--release", "--package", "leak-user", "--locked"]))?;
    Ok(target.join("release/pgsocktrace"))
}
