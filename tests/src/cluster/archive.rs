//! Image archives with one static program, in the format of `docker save`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::suite::finish;
use support::command::output;

/// Writes the archive of an image to a new directory. The image's program is `/srv/program`, which
/// only `user` may read.
pub(super) fn write(directory: &Path, image: &str, program: &Path, user: u32) -> Result<PathBuf> {
    fs::create_dir_all(directory.join("root/srv"))?;
    fs::copy(program, directory.join("root/srv/program"))?;
    let (root, layer) = (directory.join("root"), directory.join("layer.tar"));
    let owner = format!("--owner={user}");
    output(
        Command::new("tar")
            .args(["--mode=u=rx,go=", "--group=0", &owner, "-C"])
            .arg(&root)
            .arg("-cf")
            .arg(&layer)
            .arg("srv/program"),
    )?;
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": ["/srv/program"], "User": user.to_string()},
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer)?]},
    });
    let manifest = json!([
        {"Config": "config.json", "RepoTags": [image], "Layers": ["layer.tar"]}
    ]);
    fs::write(directory.join("config.json"), config.to_string())?;
    fs::write(directory.join("manifest.json"), manifest.to_string())?;
    let archive = directory.join("image.tar");
    let parts = ["manifest.json", "config.json", "layer.tar"];
    output(Command::new("tar").arg("-C").arg(directory).arg("-cf").arg(&archive).args(parts))?;
    Ok(archive)
}

fn digest(file: &Path) -> Result<String> {
    let output = finish(Command::new("sha256sum").arg(file))?;
    ensure!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout)?;
    let digest = said.split_whitespace().next().context("sha256sum printed nothing")?;
    Ok(format!("sha256:{digest}"))
}
