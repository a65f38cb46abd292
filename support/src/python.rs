//! Newer releases of CPython than the machine's, from Debian's newest suite.

use std::path::Path;
use std::process::Command;

use crate::debian::Suite;

/// The suite that has them.
const SUITE: &str = "sid";
/// What all of them run with: the C library and others, and a driver.
pub const COMMON: [&str; 9] = [
    "libc6",
    "libexpat1",
    "libffi8",
    "libgcc-s1",
    "libssl3t64",
    "libzstd1",
    "zlib1g",
    "python3-psycopg",
    "python3-typing-extensions",
];

/// Where they are unpacked.
#[must_use]
pub fn suite(target: &Path) -> Suite {
    Suite::new(target, SUITE)
}

/// The packages that are a release, by its minor number.
#[must_use]
pub fn packages(minor: u32) -> [String; 3] {
    [
        format!("python3.{minor}-minimal"),
        format!("libpython3.{minor}-minimal"),
        format!("libpython3.{minor}-stdlib"),
    ]
}

/// The minor numbers of the releases that were unpacked, in order.
#[must_use]
pub fn unpacked(target: &Path) -> Vec<u32> {
    let programs = suite(target).root().join("usr/bin");
    let names = programs.read_dir().into_iter().flatten().flatten();
    let minor = |name: &str| name.strip_prefix("python3.")?.parse().ok();
    let mut minors: Vec<u32> =
        names.filter_map(|entry| minor(&entry.file_name().to_string_lossy())).collect();
    minors.sort_unstable();
    minors
}

/// A release that was unpacked, with the driver.
#[must_use]
pub fn command(target: &Path, minor: u32) -> Command {
    let suite = suite(target);
    let mut command = suite.command(&format!("python3.{minor}"));
    command.env("PYTHONHOME", suite.root().join("usr"));
    command.env("PYTHONPATH", suite.root().join("usr/lib/python3/dist-packages"));
    command
}
