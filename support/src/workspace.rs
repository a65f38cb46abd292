//! Paths of the workspace.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::Command,
};

/// The root of the workspace that this was compiled in.
#[must_use]
pub fn root() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

/// Cargo's target directory of a workspace.
#[must_use]
pub fn target_directory(workspace: &Path) -> PathBuf {
    workspace.join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// Where tools are installed that belong to this checkout alone. Created if absent, so that a build
/// script can watch it.
///
/// # Errors
///
/// When it cannot be created.
pub fn tools_directory(target: &Path) -> io::Result<PathBuf> {
    let tools = target.join("tools");
    fs::create_dir_all(&tools)?;
    Ok(tools)
}

/// Names the binary to test or to measure.
pub const BINARY: &str = "PGSOCKTRACE_BIN";

/// The binary to test or to measure: the one that [`BINARY`] names, or the one that
/// `cargo xtask build` builds, optimised and with the kernel programs inside.
#[must_use]
pub fn binary(workspace: &Path) -> PathBuf {
    env::var_os(BINARY)
        .map_or_else(|| target_directory(workspace).join("release/pgsocktrace"), PathBuf::from)
}

/// Where Debian's packages for Node.js are, below the root or wherever they were unpacked.
pub const NODE_PACKAGES: &str = "usr/share/nodejs";

/// Where Node.js finds its packages: in Debian's place, or unpacked for this workspace alone.
#[must_use]
pub fn node_path(workspace: &Path) -> String {
    let unpacked = target_directory(workspace).join("tools/node-pg").join(NODE_PACKAGES);
    format!("/{NODE_PACKAGES}:{}", unpacked.display())
}

/// The cargo that runs us, in the workspace.
#[must_use]
pub fn cargo(workspace: &Path) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace);
    command
}
