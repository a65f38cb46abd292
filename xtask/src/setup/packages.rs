//! Installs Debian packages by apt.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use support::{
    command::{check, which},
    debian::Suite,
    process::is_root,
};

/// Packages that belong together.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// Their names in Debian.
    pub(super) packages: &'a [&'a str],
    /// What to install where they are not to be had.
    pub(super) elsewhere: &'a str,
}

/// Installs Debian packages and removes none, or says what to install where that cannot be done.
///
/// A machine that has something from its release's backports may want what goes with it from there,
/// too.
pub(super) fn install(target: &Path, wanted: &[Wanted<'_>]) -> Result<()> {
    let advice: Vec<&str> = wanted.iter().map(|wanted| wanted.elsewhere).collect();
    let advice = advice.join(" ");
    if which("apt-get").is_none() {
        bail!("Something is missing. {advice}");
    }
    let all: Vec<&str> = wanted.iter().flat_map(|wanted| wanted.packages).copied().collect();
    let list = all.join(" ");
    if !is_root() {
        bail!("Something is missing: run `sudo apt-get install {list}`. Or: {advice}");
    }
    println!("setup: installing {list}");
    // Old lists name releases that the mirror no longer has, or do not know a package at all.
    apt(&[], UPDATE, &[])?;
    if apt(&[], INSTALL, &all).is_ok() {
        return Ok(());
    }
    println!("setup: not all go with what is installed; trying each apart");
    for Wanted { packages, elsewhere } in wanted {
        if apt(&[], INSTALL, packages).is_err() {
            from_backports(target, packages).with_context(|| {
                let list = packages.join(" ");
                format!("apt-get cannot install {list} without removing something. {elsewhere}")
            })?;
        }
    }
    Ok(())
}

/// Installs packages of the release's backports.
fn from_backports(target: &Path, packages: &[&str]) -> Result<()> {
    let backports = Suite::backports(target)?;
    println!("setup: trying {backports}");
    let options = backports.beside()?;
    apt(&options, UPDATE, &[])?;
    apt(&options, INSTALL, packages)
}

/// What apt-get does.
const UPDATE: &[&str] = &["update"];
const INSTALL: &[&str] = &["install", "--no-install-recommends", "--no-remove"];

/// Runs apt-get.
fn apt(options: &[String], command: &[&str], packages: &[&str]) -> Result<()> {
    let mut apt = Command::new("apt-get");
    apt.args(["-q", "-y", "-o", "DPkg::Lock::Timeout=300"]);
    for option in options {
        apt.args(["-o", option]);
    }
    apt.args(command)
        .args(packages)
        .env("DEBIAN_FRONTEND", "noninteractive")
        // What comes with a service does not start it: whoever needs it here starts its own.
        .env("SYSTEMD_OFFLINE", "1")
        .stdin(Stdio::null());
    check(&mut apt)
}
