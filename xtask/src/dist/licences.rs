//! The licences of everything that is in the program. Not by cargo-about, which would have to be
//! installed.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use super::sbom::{Packages, label};

/// How the files begin in which packages keep their licences.
const NAMES: &[&str] = &["licen", "copying", "notice", "copyright", "unlicense"];

/// Copies the project's licences, and each package's below its name.
pub(crate) fn copy(workspace: &Path, packages: &Packages, to: &Path) -> Result<()> {
    copy_from(workspace, to)?;
    for package in packages.foreign() {
        let directory = package.manifest_path.parent().context("a manifest lies nowhere")?;
        copy_from(directory.as_std_path(), &to.join(label(package)))
            .with_context(|| format!("The licences of {}", label(package)))?;
    }
    Ok(())
}

fn copy_from(directory: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().to_lowercase();
        if NAMES.iter().any(|beginning| name.starts_with(beginning)) && entry.path().is_file() {
            fs::create_dir_all(to)?;
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}
