//! Interpreters and runtimes with their PostgreSQL drivers, for tests and benchmarks of stacks.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

use support::{
    command::{check, succeeds, which},
    workspace::{NODE_PACKAGES, node_path, target_directory, tools_directory},
};

use super::{Need, Requirement};

/// What the tests of stacks ask for beyond what the corpus's languages do.
pub(super) const REQUIREMENTS: &[Requirement] = &[
    Requirement {
        need: Need::Tests,
        present: || succeeds("/usr/bin/python3", &["-c", "import uvloop, gevent"]),
        packages: &["python3-uvloop", "python3-gevent"],
        elsewhere: "Install uvloop and gevent for /usr/bin/python3.",
    },
    Requirement {
        need: Need::Tests,
        present: || which("jcmd").is_some(),
        packages: &["default-jdk-headless"],
        elsewhere: "Install a JDK, 17 or newer.",
    },
];

/// Debian's packages that are node-postgres and what it is made of.
const NODE_PG: [&str; 8] = [
    "node-pg",
    "node-split2",
    "node-readable-stream",
    "node-xtend",
    "node-inherits",
    "node-util-deprecate",
    "node-string-decoder",
    "node-safe-buffer",
];

/// Makes sure that there is node-postgres. Its packages are unpacked and not installed: together
/// with another Node.js than Debian's they cannot be.
pub(super) fn node_pg(workspace: &Path) -> Result<()> {
    let is_there = || {
        let mut node = Command::new("node");
        let node = node.args(["-e", "require('pg')"]).env("NODE_PATH", node_path(workspace));
        node.output().is_ok_and(|output| output.status.success())
    };
    if is_there() {
        return Ok(());
    }
    let advice = format!("Put the Node.js package pg into /{NODE_PACKAGES}.");
    println!("setup: unpacking {}", NODE_PG.join(" "));
    let directory = tools_directory(&target_directory(workspace))?.join("node-pg");
    fs::create_dir_all(&directory)?;
    check(Command::new("apt-get").args(["-q", "download"]).args(NODE_PG).current_dir(&directory))
        .context(advice.clone())?;
    for entry in fs::read_dir(&directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            check(Command::new("dpkg-deb").arg("-x").arg(&path).arg(&directory))?;
            fs::remove_file(path)?;
        }
    }
    ensure!(is_there(), "The packages did not bring node-postgres. {advice}");
    Ok(())
}
