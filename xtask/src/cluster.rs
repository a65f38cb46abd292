//! `cargo xtask test cluster`: the tests of the DaemonSet with a real kube-apiserver, which is built from
//! Debian's sources once. That takes ten minutes, so it is no part of the other tests.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{build, debian::Suite, dist, process::check, setup, toolchain::target_directory};

/// Runs the tests.
pub(crate) fn test(workspace: &Path) -> Result<()> {
    setup::run(workspace, &[setup::Need::Build, setup::Need::Tests, setup::Need::Cluster])?;
    let server = kube_apiserver(&target_directory(workspace))?;
    let binary = build::run(workspace)?;
    let image = dist::image(workspace)?;
    check(
        build::cargo(workspace)
            .args(["test", "--locked", "--package", "tests", "--test", "cluster"])
            .env("PGSOCKTRACE_BIN", binary)
            .env("PGSOCKTRACE_IMAGE", image)
            .env("PGSOCKTRACE_KUBE_APISERVER", server),
    )
}

/// Builds the server, unless that was done.
fn kube_apiserver(target: &Path) -> Result<PathBuf> {
    let directory = target.join("kubernetes");
    let server = directory.join("kube-apiserver");
    if server.exists() {
        return Ok(server);
    }
    // As of Go without modules: its sources hold all that they need.
    let sources = directory.join("gopath/src/k8s.io/kubernetes");
    if !sources.exists() {
        fs::create_dir_all(sources.parent().context("sources")?)?;
        Suite::of_machine(target)?.unpack_source("kubernetes", &sources)?;
    }
    println!("building {}", server.display());
    check(
        Command::new("go")
            .current_dir(&sources)
            .args([
                "build",
                "-ldflags",
                "-s -w -X k8s.io/component-base/version.gitVersion=v1.20.2",
            ])
            .arg("-o")
            .arg(&server)
            .arg("k8s.io/kubernetes/cmd/kube-apiserver")
            .env("GOPATH", directory.join("gopath"))
            .env("GOCACHE", directory.join("gocache"))
            .envs([("GO111MODULE", "off"), ("CGO_ENABLED", "0"), ("GOFLAGS", "")]),
    )?;
    Ok(server)
}
