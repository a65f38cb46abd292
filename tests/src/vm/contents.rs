//! The contents of every machine's archive.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result};
use serde_json::Value;
use support::{
    command::{output, which},
    workspace::cargo,
};

use super::{
    image::Image,
    kernels::{self, Unpacked},
    plan::{APPS, BINARY, DATA, E2E, Run},
    protocol,
};
use crate::{
    Apps,
    server::{self, Purpose, Server},
};

/// Programs of the host that the tests call.
const PROGRAMS: [&str; 4] = ["cp", "ip", "setpriv", "prlimit"];
/// Files of the host that programs read.
const FILES: [&str; 3] = ["etc/passwd", "etc/group", "usr/share/zoneinfo/Etc/UTC"];

/// Writes the archive, with these additional programs of the host.
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
            let directory = inside(protocol::MODULES);
            image.bytes(&format!("{directory}/{}/{name}", unpacked.release), bytes);
        }
    }
    for run in runs {
        let plan = serde_json::to_vec(&run.plan)?;
        image.bytes(&format!("{}/{}.json", inside(protocol::PLANS), run.name), plan);
    }
    image.program(inside(BINARY), binary)?;
    let compiled = compiled(workspace)?;
    image.program("init", &compiled.init)?;
    image.program(inside(E2E), &compiled.e2e)?;
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

/// Adds PostgreSQL's server and a prepared data directory.
fn postgres(image: &mut Image, data: &Path) -> Result<()> {
    let binaries = server::programs()?;
    let version = binaries.parent().and_then(Path::file_name).context("no version")?;
    for program in ["postgres", "psql"] {
        let path = binaries.join(program);
        image.program(path.strip_prefix("/")?, &path)?;
    }
    // Not the psql in Debian's PATH, which is a Perl script.
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
    Server::prepare(data, Purpose::Tests)?;
    image.tree(Path::new(inside(DATA)), data)
}

/// The programs that are compiled for the machines.
struct Compiled {
    /// The machines' first process.
    init: PathBuf,
    /// The tests.
    e2e: PathBuf,
}

fn compiled(workspace: &Path) -> Result<Compiled> {
    let mut cargo = cargo(workspace);
    cargo.args(["build", "--locked", "--package", "tests", "--message-format=json"]);
    cargo.args(["--bin", "vm_init", "--test", "e2e"]).stderr(Stdio::inherit());
    let said = output(&mut cargo)?;
    let path = |name: &str| {
        said.lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find(|message| message["target"]["name"] == name)
            .and_then(|message| Some(PathBuf::from(message["executable"].as_str()?)))
            .with_context(|| format!("cargo did not build {name}"))
    };
    Ok(Compiled { init: path("vm_init")?, e2e: path("e2e")? })
}

/// The path in the archive for an absolute path.
fn inside(path: &str) -> &str {
    path.trim_start_matches('/')
}
