//! What lies in every machine.

use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::server::{Server, find_binaries};
use tests::{Apps, vm};

use super::{
    image::Image,
    kernels::{self, Unpacked},
    plan::{APPS, BINARY, DATA, Run, TESTS},
};
use crate::{
    build,
    process::{output, which},
};

/// Programs of this machine that the tests call.
const PROGRAMS: [&str; 4] = ["cp", "ip", "setpriv", "prlimit"];
/// Files of this machine that programs read.
const FILES: [&str; 3] = ["etc/passwd", "etc/group", "usr/share/zoneinfo/Etc/UTC"];

/// Writes the archive, with these programs of this machine besides.
pub(super) fn write(
    workspace: &Path,
    binary: &Path,
    kernels: &[Unpacked],
    runs: &[Run<'_>],
    programs: &BTreeSet<&str>,
    to: &Path,
) -> Result<()> {
    let mut image = Image::new();
    for unpacked in kernels {
        for (name, bytes) in kernels::modules(unpacked)? {
            let directory = inside(vm::MODULES);
            image.bytes(&format!("{directory}/{}/{name}", unpacked.release), bytes);
        }
    }
    for run in runs {
        let plan = serde_json::to_vec(&run.plan)?;
        image.bytes(&format!("{}/{}.json", inside(vm::PLANS), run.name), plan);
    }
    image.program(inside(BINARY), binary)?;
    for (name, path) in compiled_tests(workspace, runs)? {
        let place =
            if name == "vm_init" { "init".into() } else { format!("{}/{name}", inside(TESTS)) };
        image.program(place, &path)?;
    }
    let scratch = tempfile::tempdir()?;
    let apps = Apps::new(scratch.path());
    for path in [apps.client()?, apps.shop()?, apps.with_libpq("uses")?] {
        let name = path.file_name().context("a program has no name")?;
        image.program(Path::new(inside(APPS)).join(name), &path)?;
    }
    for program in PROGRAMS.iter().chain(programs) {
        let path = which(program).with_context(|| format!("{program} is missing"))?;
        image.program(format!("usr/bin/{program}"), &path)?;
    }
    for file in FILES {
        image.file(file, &Path::new("/").join(file))?;
    }
    image.bytes("etc/hosts", b"127.0.0.1 localhost\n::1 localhost\n".to_vec());
    postgres(&mut image, &scratch.path().join("data"))?;
    image.write(to)
}

/// PostgreSQL's server and a data directory made for it.
fn postgres(image: &mut Image, data: &Path) -> Result<()> {
    let binaries = find_binaries().context("PostgreSQL's server is not installed")?;
    let version = binaries.parent().and_then(Path::file_name).context("no version")?;
    for program in ["postgres", "psql"] {
        let path = binaries.join(program);
        image.program(path.strip_prefix("/")?, &path)?;
    }
    // On Debian's path lies a script that asks for Perl.
    image.program("usr/bin/psql", &binaries.join("psql"))?;
    let libraries = binaries.with_file_name("lib");
    for library in ["plpgsql.so", "dict_snowball.so"] {
        let path = libraries.join(library);
        image.program(path.strip_prefix("/")?, &path)?;
    }
    let shared = Path::new("/usr/share/postgresql").join(version);
    for part in ["timezonesets", "tsearch_data"] {
        let path = shared.join(part);
        image.tree(path.strip_prefix("/")?, &path)?;
    }
    Server::prepare(data)?;
    image.tree(Path::new(inside(DATA)), data)
}

/// The test targets of these runs and the first process, compiled, by name.
fn compiled_tests(workspace: &Path, runs: &[Run<'_>]) -> Result<HashMap<String, PathBuf>> {
    let steps = runs.iter().flat_map(|run| &run.plan.steps);
    let targets: BTreeSet<&str> = steps.map(|step| step.name.as_str()).collect();
    let mut cargo = build::cargo(workspace);
    cargo.args(["build", "--locked", "--package", "tests", "--message-format=json", "--bins"]);
    for target in &targets {
        cargo.args(["--test", target]);
    }
    let mut found = HashMap::new();
    for line in output(&mut cargo)?.lines() {
        let message: Value = serde_json::from_str(line)?;
        if let (Some(path), Some(name)) =
            (message["executable"].as_str(), message["target"]["name"].as_str())
        {
            found.insert(name.to_owned(), PathBuf::from(path));
        }
    }
    for target in targets.into_iter().chain(["vm_init"]) {
        ensure!(found.contains_key(target), "cargo did not build {target}");
    }
    Ok(found)
}

/// The place in an archive of an absolute path.
fn inside(path: &str) -> &str {
    path.trim_start_matches('/')
}
