//! `cargo xtask test cluster`: the DaemonSet on a real Kubernetes, which is built from Debian's
//! sources once. That takes a quarter of an hour, so it is no part of the other tests.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use support::{
    command::{check, output},
    debian::Suite,
    workspace::{BINARY, cargo, target_directory},
};

use crate::{
    build, dist,
    setup::{self, Need},
    test::{PATIENCE, SUITES},
};

/// Where Go looks for its sources.
const PACKAGE: &str = "k8s.io/kubernetes";
/// What is built of them.
const PROGRAMS: [&str; 4] =
    ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet"];
/// Debian's last release that has the sources of those, and their version.
const SOURCES: (&str, &str) = ("bookworm", "v1.20.2");
/// A release with a `kubectl` that knows what is in the manifests; it runs on older ones, too.
const CLIENT: &str = "trixie";
/// Seconds that anything may take: a cluster starts more slowly than the other tests' programs.
const SECONDS: &str = "120";

/// Runs the tests.
pub(crate) fn test(workspace: &Path) -> Result<()> {
    setup::run(workspace, &[Need::Build, Need::Database, Need::Tests, Need::Cluster])?;
    let kubernetes = kubernetes(&target_directory(workspace))?;
    let binary = build::run(workspace)?;
    let image = dist::image(workspace)?;
    check(
        cargo(workspace)
            .args(["test", "--locked", "--package", "tests", "--test", "e2e", "--"])
            // A test that lacks something fails, for nothing else is run here.
            .args(["--include-ignored", "real"])
            .env(SUITES, "cluster")
            .env(BINARY, binary)
            .env("PGSOCKTRACE_IMAGE", image)
            .env("PGSOCKTRACE_KUBERNETES", kubernetes)
            .env(PATIENCE, SECONDS),
    )
}

/// Makes a directory with the programs, unless that was done.
fn kubernetes(target: &Path) -> Result<PathBuf> {
    let directory = target.join("kubernetes");
    let programs = directory.join("bin");
    if !PROGRAMS.iter().all(|name| programs.join(name).exists()) {
        build_programs(target, &directory, &programs)?;
    }
    let client = Suite::new(target, CLIENT);
    if !client.has_unpacked(&["kubectl"]) {
        client.update()?;
        client.unpack(&["kubectl"])?;
    }
    fs::copy(client.root().join("usr/bin/kubectl"), programs.join("kubectl"))?;
    Ok(programs)
}

fn build_programs(target: &Path, directory: &Path, programs: &Path) -> Result<()> {
    let (release, version) = SOURCES;
    // As of Go without modules: the sources hold all that they need.
    let sources = directory.join("gopath/src").join(PACKAGE);
    if !sources.exists() {
        fs::create_dir_all(sources.parent().context("sources")?)?;
        Suite::new(target, release).unpack_source("kubernetes", &sources)?;
    }
    println!("building Kubernetes {version} into {}", programs.display());
    let go = || {
        let mut go = Command::new("go");
        go.current_dir(&sources);
        go.env("GOPATH", directory.join("gopath")).env("GOCACHE", directory.join("gocache"));
        go.envs([("GO111MODULE", "off"), ("CGO_ENABLED", "0"), ("GOFLAGS", "")]);
        go
    };
    check(
        go().args(["run", &format!("{PACKAGE}/vendor/k8s.io/kube-openapi/cmd/openapi-gen")])
            .args(["--input-dirs", &described(&sources)?])
            .arg("--output-package")
            .arg(format!("{PACKAGE}/pkg/generated/openapi"))
            .args(["--output-file-base", "zz_generated.openapi"])
            .args(["--go-header-file", "hack/boilerplate/boilerplate.generatego.txt"])
            // What it finds fault with.
            .args(["--report-filename", "/dev/null"]),
    )?;
    fs::create_dir_all(programs)?;
    check(
        go().args(["build", "-ldflags"])
            .arg(format!("-s -w -X k8s.io/component-base/version.gitVersion={version}"))
            .arg("-o")
            .arg(programs)
            .args(PROGRAMS.map(|name| format!("{PACKAGE}/cmd/{name}"))),
    )?;
    // Two gigabytes that nobody needs any more.
    ["gopath", "gocache"].into_iter().try_for_each(|name| {
        fs::remove_dir_all(directory.join(name)).with_context(|| name.to_owned())
    })
}

/// The packages whose types the API server describes to its clients: the description is not among
/// the sources, but made of them.
fn described(sources: &Path) -> Result<String> {
    let mut grep = Command::new("grep");
    // These hold examples.
    grep.args(["--exclude-dir=code-generator", "--exclude-dir=sample-apiserver"]);
    grep.args(["-RlF", "--include=*.go", "+k8s:openapi-gen=", "pkg", "vendor/k8s.io"]);
    let files = output(grep.current_dir(sources))?;
    let packages: BTreeSet<String> = files
        .lines()
        .filter_map(|file| Some(format!("{PACKAGE}/{}", Path::new(file).parent()?.display())))
        .collect();
    Ok(packages.into_iter().collect::<Vec<_>>().join(","))
}
