//! `cargo xtask dist` and `cargo xtask image`: reproducible packages of the program.

mod image;
mod licences;
mod sbom;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use support::{
    command::{check, output},
    workspace::target_directory,
};

pub(crate) use self::image::run as image;
use self::sbom::Packages;
use crate::build;

/// Everything that goes into the archive and the image, in a directory of its own.
pub(crate) struct Staged {
    /// `pgsocktrace-VERSION-ARCHITECTURE-linux`.
    pub(crate) name: String,
    /// The directory of that name.
    pub(crate) path: PathBuf,
    /// The program's version.
    pub(crate) version: String,
    /// Seconds since 1970 that all files bear.
    pub(crate) epoch: u64,
}

/// Makes the archive and says what is in it.
pub(crate) fn run(workspace: &Path) -> Result<()> {
    let staged = stage(workspace)?;
    let directory = directory(workspace);
    let archive = format!("{}.tar.gz", staged.name);
    check(
        Command::new("tar")
            .current_dir(&directory)
            .args(["--create", "--use-compress-program=gzip -9 --no-name", "--format=ustar"])
            .args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mode=u+w,go-w"])
            .arg(format!("--mtime=@{}", staged.epoch))
            .args(["--file", &archive, &staged.name]),
    )?;
    let sums = output(Command::new("sha256sum").current_dir(&directory).arg(&archive))?;
    fs::write(directory.join("SHA256SUMS"), &sums)?;
    let program = fs::metadata(staged.path.join("pgsocktrace"))?.len();
    let packed = fs::metadata(directory.join(&archive))?.len();
    println!(
        "{}: {} (the program: {})",
        directory.join(&archive).display(),
        mb(packed),
        mb(program)
    );
    print!("{sums}");
    Ok(())
}

/// Builds the program and lays out what goes with it.
pub(crate) fn stage(workspace: &Path) -> Result<Staged> {
    let epoch = epoch(workspace)?;
    let program = build::run(workspace)?;
    let packages = Packages::of_program(workspace)?;
    let name = format!("pgsocktrace-{}-{}-linux", packages.version(), env::consts::ARCH);
    let path = directory(workspace).join(&name);
    if path.exists() {
        fs::remove_dir_all(&path)?;
    }
    for part in ["completions", "licences", "man/man1"] {
        fs::create_dir_all(path.join(part))?;
    }
    fs::copy(&program, path.join("pgsocktrace"))?;
    for text in ["README.md", "CHANGELOG.md"] {
        fs::copy(workspace.join(text), path.join(text))?;
    }
    let says = |arguments: &[&str]| output(Command::new(&program).env_clear().args(arguments));
    fs::write(path.join("man/man1/pgsocktrace.1"), says(&["man"])?)?;
    for (shell, file) in
        [("bash", "pgsocktrace"), ("zsh", "_pgsocktrace"), ("fish", "pgsocktrace.fish")]
    {
        fs::write(path.join("completions").join(file), says(&["completions", shell])?)?;
    }
    licences::copy(workspace, &packages, &path.join("licences"))?;
    let sbom = packages.to_spdx(epoch)?;
    fs::write(path.join("pgsocktrace.spdx.json"), sbom)?;
    Ok(Staged { name, path, version: packages.version().to_owned(), epoch })
}

/// Where the results are.
pub(crate) fn directory(workspace: &Path) -> PathBuf {
    target_directory(workspace).join("packages")
}

/// When the sources were last changed, as <https://reproducible-builds.org> asks for it.
fn epoch(workspace: &Path) -> Result<u64> {
    let given = env::var("SOURCE_DATE_EPOCH");
    let text = given.or_else(|_| {
        output(Command::new("git").current_dir(workspace).args(["log", "-1", "--format=%ct"]))
    });
    text?.trim().parse().context("SOURCE_DATE_EPOCH is no number of seconds")
}

fn mb(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10)
}
