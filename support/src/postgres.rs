//! Where PostgreSQL's server is installed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::command::which;

/// Programs that lie together where the server is installed, of which the `PATH` may show but a
/// few.
const PROGRAMS: [&str; 2] = ["postgres", "psql"];

/// The directory of PostgreSQL's programs: the one where `postgres` on the `PATH` really lies, or
/// where Debian puts the newest release.
#[must_use]
pub fn programs() -> Option<PathBuf> {
    let is_complete = |directory: &Path| PROGRAMS.iter().all(|name| directory.join(name).exists());
    let on_path = which("postgres")
        .and_then(|postgres| Some(fs::canonicalize(postgres).ok()?.parent()?.to_owned()))
        .filter(|directory| is_complete(directory));
    on_path.or_else(|| {
        fs::read_dir("/usr/lib/postgresql")
            .ok()?
            .flatten()
            .filter_map(|entry| {
                let release: u32 = entry.file_name().to_str()?.parse().ok()?;
                let programs = entry.path().join("bin");
                is_complete(&programs).then_some((release, programs))
            })
            .max()
            .map(|(_, programs)| programs)
    })
}
