//! Fetches other Go releases from Debian's suites, to build test programs with each.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use support::debian::Suite;

/// Suites with Go releases, those with the shortest lists of packages first.
const SUITES: [&str; 4] = ["bookworm-backports", "trixie-backports", "trixie", "sid"];
/// The suites of the releases that the tests use besides the machine's own: one in between, and the
/// newest.
const TESTED: [&str; 2] = ["bookworm-backports", "trixie-backports"];
/// The oldest release that can be traced; older ones have other tables.
const OLDEST: u32 = 16;

/// Fetches the releases for the tests, unless they are there.
pub(crate) fn set_up(target: &Path) -> Result<()> {
    let suites = TESTED.map(|name| Suite::new(target, name));
    let is_there = |suite: &Suite| {
        suite.root().join("usr/lib").read_dir().is_ok_and(|mut entries| entries.next().is_some())
    };
    if suites.iter().all(is_there) {
        return Ok(());
    }
    if !Suite::are_to_be_had() {
        println!("setup: only Debian has other releases of Go; tests that want some are left out");
        return Ok(());
    }
    for suite in &suites {
        suite.update()?;
        let newest = releases(suite)?.pop();
        unpack(suite, newest.with_context(|| format!("{suite} has no Go."))?)?;
    }
    Ok(())
}

/// Fetches every release that the mirror has, each from the first suite that has it.
pub(crate) fn fetch_all(target: &Path) -> Result<()> {
    let suites = SUITES.map(|name| Suite::new(target, name));
    let libraries: Vec<_> = suites.iter().map(|suite| suite.root().join("usr/lib")).collect();
    let is_there = |minor: u32| {
        let own = Path::new("/usr/lib");
        let mut libraries = libraries.iter().map(PathBuf::as_path).chain([own]);
        libraries.any(|library| library.join(format!("go-1.{minor}")).is_dir())
    };
    for suite in &suites {
        suite.update()?;
        for minor in releases(suite)? {
            if !is_there(minor) {
                unpack(suite, minor)?;
            }
        }
    }
    Ok(())
}

fn unpack(suite: &Suite, minor: u32) -> Result<()> {
    let packages = ["go", "src"].map(|part| format!("golang-1.{minor}-{part}"));
    suite.unpack(&[&packages[0], &packages[1]])
}

/// The minor numbers of a suite's releases of Go 1.
fn releases(suite: &Suite) -> Result<Vec<u32>> {
    Ok(minors(&suite.names("golang-1.")?))
}

fn minors(names: &[String]) -> Vec<u32> {
    let minor = |name: &String| name.strip_prefix("golang-1.")?.strip_suffix("-go")?.parse().ok();
    let mut minors: Vec<u32> = names.iter().filter_map(minor).filter(|n| *n >= OLDEST).collect();
    minors.sort_unstable();
    minors
}

#[cfg(test)]
mod tests {
    use super::minors;

    #[test]
    fn reads_releases_from_the_names_of_packages() {
        let names = [
            "golang-1.9-go",
            "golang-1.27-go",
            "golang-1.21-go",
            "golang-1.21-src",
            "golang-1.x-go",
        ];
        assert_eq!(minors(&names.map(str::to_owned)), [21, 27]);
    }
}
