//! Interpreters and runtimes with their PostgreSQL drivers, for tests and benchmarks of stacks.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

use super::{Need, Requirement};
use crate::{
    process::{check, which},
    toolchain::{target_directory, tools_directory},
};

/// What they are.
pub(super) const REQUIREMENTS: &[Requirement] = &[
    Requirement {
        need: Need::Tests,
        present: || {
            succeeds(
                Command::new("/usr/bin/python3")
                    .args(["-c", "import psycopg, asyncpg, uvloop, gevent"]),
            )
        },
        packages: &["python3-psycopg", "python3-asyncpg", "python3-uvloop", "python3-gevent"],
        elsewhere: "Install psycopg, asyncpg, uvloop and gevent for /usr/bin/python3.",
    },
    Requirement {
        need: Need::Tests,
        present: || which("node").is_some(),
        packages: &["nodejs"],
        elsewhere: "Install Node.js.",
    },
    Requirement {
        need: Need::Tests,
        present: || which("java").is_some() && which("jcmd").is_some(),
        packages: &["default-jdk-headless"],
        elsewhere: "Install a JDK, 17 or newer.",
    },
    Requirement {
        need: Need::Tests,
        present: || {
            let jars = ["HikariCP.jar", "postgresql.jar", "slf4j-api.jar", "slf4j-nop.jar"];
            jars.iter().all(|jar| Path::new("/usr/share/java").join(jar).exists())
        },
        packages: &["libhikaricp-java", "libpostgresql-jdbc-java", "libslf4j-java"],
        elsewhere: "Put HikariCP.jar, postgresql.jar, slf4j-api.jar and slf4j-nop.jar into \
                    /usr/share/java.",
    },
    Requirement {
        need: Need::Tests,
        present: || succeeds(Command::new("ruby").args(["-e", "require 'pg'"])),
        packages: &["ruby", "ruby-pg"],
        elsewhere: "Install Ruby and its gem pg.",
    },
    Requirement {
        need: Need::Tests,
        present: || {
            let loaded =
                "exit(extension_loaded('pdo_pgsql') && extension_loaded('pgsql') ? 0 : 1);";
            succeeds(Command::new("php").args(["-r", loaded]))
        },
        packages: &["php-cli", "php-pgsql"],
        elsewhere: "Install PHP with its extensions pgsql and pdo_pgsql.",
    },
    Requirement {
        need: Need::Bench,
        present: || which("gdb").is_some(),
        packages: &["gdb"],
        elsewhere: "Install gdb.",
    },
];

/// Where Debian's packages for Node.js are.
const NODE_PACKAGES: &str = "usr/share/nodejs";

/// Debian's packages that are node-postgres and what it is made of.
const NODE_PG: [&str; 4] = ["node-pg", "node-readable-stream", "node-split2", "node-xtend"];

/// Where node-postgres may be: Debian's place, and that of the unpacked packages.
pub(crate) fn node_path(workspace: &Path) -> String {
    let unpacked = target_directory(workspace).join("tools/node-pg").join(NODE_PACKAGES);
    format!("/{NODE_PACKAGES}:{}", unpacked.display())
}

/// Makes sure that there is node-postgres. Its packages are unpacked and not installed: together with
/// another Node.js than Debian's they cannot be.
pub(super) fn node_pg(workspace: &Path) -> Result<()> {
    let is_there = || {
        let mut node = Command::new("node");
        succeeds(node.args(["-e", "require('pg')"]).env("NODE_PATH", node_path(workspace)))
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

/// Whether a command succeeds; used to ask interpreters for their modules.
fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}
