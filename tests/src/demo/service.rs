//! The demo's order service: built with Debian's Go packages, started on a free port.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::Result;
use support::{command::check, process::pause};

use crate::{
    process::{Guarded, Signal},
    server::Server,
};

/// Builds the service under `target`, fills its database and starts it.
pub(super) fn start(workspace: &Path, target: &Path, postgres: &Server) -> Result<Guarded> {
    let source = workspace.join("demo/orders");
    let binary = build(&source, target)?;
    postgres.load(&source.join("schema.sql"))?;
    let mut service = Guarded::spawn(
        Command::new(binary)
            .env(
                "DATABASE_URL",
                format!("{}?sslmode=disable&application_name=orders", postgres.url()),
            )
            .stdin(Stdio::null()),
        Signal::TERM,
    )?;
    // Long enough for a service that cannot reach its database to print an error.
    pause(std::time::Duration::from_secs(1))?;
    service.ensure_running()?;
    Ok(service)
}

fn build(source: &Path, target: &Path) -> Result<PathBuf> {
    let binary = target.join("demo/orders");
    check(
        Command::new("go")
            .arg("build")
            .arg("-o")
            .arg(&binary)
            .arg(".")
            .current_dir(source)
            // Debian ships the packages as sources in a GOPATH: no modules, no downloads.
            .env("GO111MODULE", "off")
            .env("GOPATH", "/usr/share/gocode")
            .env("GOFLAGS", "")
            .env("GOCACHE", target.join("demo/cache")),
    )?;
    Ok(binary)
}
