//! `cargo xtask image`: the image of the DaemonSet.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use support::command::check;

use super::{Staged, directory, mb, stage};
use crate::setup;

/// Builds the image as an archive of the Open Container Initiative's layout, which `skopeo copy`,
/// `podman load` and `ctr images import` read, and says how large it is.
pub(crate) fn run(workspace: &Path) -> Result<PathBuf> {
    setup::run(workspace, &[setup::Need::Image])?;
    let Staged { path, version, epoch, .. } = stage(workspace)?;
    let archive = directory(workspace).join("pgsocktrace-image.tar");
    if archive.exists() {
        fs::remove_file(&archive)?;
    }
    // Images of other builds on this machine are none of our business, and neither is their store.
    let store = tempfile::tempdir_in(directory(workspace))?;
    let buildah = || {
        let mut buildah = Command::new("buildah");
        buildah.arg("--root").arg(store.path().join("root"));
        buildah.arg("--runroot").arg(store.path().join("run"));
        buildah.args(["--storage-driver", "vfs"]);
        buildah
    };
    let tag = "localhost/pgsocktrace:built";
    check(
        buildah()
            .args(["build", "--quiet", "--isolation", "chroot", "--format", "oci", "--tag", tag])
            .arg(format!("--timestamp={epoch}"))
            .arg("--file")
            .arg(workspace.join("deploy/Containerfile"))
            .arg(&path),
    )?;
    let destination = format!("oci-archive:{}:localhost/pgsocktrace:{version}", archive.display());
    check(buildah().args(["push", "--quiet", "--format", "oci", tag, &destination]))?;
    println!("{}: {}", archive.display(), mb(fs::metadata(&archive)?.len()));
    Ok(archive)
}
