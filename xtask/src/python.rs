//! Fetches newer releases of CPython than the machine's, for the tests.

use std::path::Path;

use anyhow::Result;
use support::{
    debian::Suite,
    python::{COMMON, packages, suite, unpacked},
};

/// The oldest release that is fetched: older ones are other machines' own.
const OLDEST: u32 = 14;

/// Fetches the releases that the suite has, unless some are there.
pub(crate) fn set_up(target: &Path) -> Result<()> {
    let suite = suite(target);
    if suite.has_unpacked(&COMMON) && !unpacked(target).is_empty() {
        return Ok(());
    }
    if !Suite::are_to_be_had() {
        println!("setup: only Debian has other releases of Python; tests with some are left out");
        return Ok(());
    }
    suite.update()?;
    let mut wanted: Vec<String> = COMMON.map(str::to_owned).into();
    wanted.extend(minors(&suite.names("python3.")?).into_iter().flat_map(packages));
    suite.unpack(&wanted)
}

fn minors(names: &[String]) -> Vec<u32> {
    let minor =
        |name: &String| name.strip_prefix("python3.")?.strip_suffix("-minimal")?.parse().ok();
    let mut minors: Vec<u32> = names.iter().filter_map(minor).filter(|n| *n >= OLDEST).collect();
    minors.sort_unstable();
    minors
}

#[cfg(test)]
mod tests {
    use super::minors;

    #[test]
    fn reads_releases_from_the_names_of_packages() {
        let names =
            ["python3.13-minimal", "python3.15-minimal", "python3.14-minimal", "python3.14-venv"];
        assert_eq!(minors(&names.map(str::to_owned)), [14, 15]);
    }
}
