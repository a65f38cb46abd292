//! The test programs of the workspace, as cargo compiles and lists them.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use cargo_metadata::{Artifact, Message, TargetKind};
use support::workspace::cargo;

/// The program of the end-to-end tests.
const END_TO_END: &str = "e2e";

/// A test program.
pub(super) struct Program {
    target: String,
    kind: TargetKind,
    path: PathBuf,
    /// The package's directory, where cargo starts its tests.
    directory: PathBuf,
}

impl Program {
    fn of(artifact: Artifact) -> Option<Self> {
        let path = artifact.executable.filter(|_| artifact.profile.test)?;
        Some(Self {
            target: artifact.target.name,
            kind: artifact.target.kind.into_iter().next()?,
            path: path.into(),
            directory: artifact.manifest_path.parent()?.into(),
        })
    }

    /// Whether it is the end-to-end tests.
    pub(super) fn is_end_to_end(&self) -> bool {
        self.is_target(END_TO_END)
    }

    /// Whether it is the test target of this name.
    pub(super) fn is_target(&self, name: &str) -> bool {
        self.kind == TargetKind::Test && self.target == name
    }

    /// What it is called in results.
    pub(super) fn name(&self) -> String {
        match self.kind {
            TargetKind::Lib => format!("{}, unit tests", self.target),
            TargetKind::Bin => format!("{}, unit tests of the program", self.target),
            _ => self.target.clone(),
        }
    }

    /// What starts it as cargo does.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command
            .current_dir(&self.directory)
            .env("CARGO_MANIFEST_DIR", &self.directory)
            .stdin(Stdio::null());
        command
    }
}

/// Compiles all test programs. Without `--workspace`: the default members leave out what builds
/// only for the BPF target.
pub(super) fn compile(root: &Path) -> Result<Vec<Program>> {
    let mut cargo = cargo(root);
    cargo.args(["test", "--locked", "--no-run", "--message-format=json-render-diagnostics"]);
    let mut child = cargo.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().context("cargo has no output")?;
    let mut programs = Vec::new();
    for message in Message::parse_stream(std::io::BufReader::new(output)) {
        if let Message::CompilerArtifact(artifact) = message? {
            programs.extend(Program::of(artifact));
        }
    }
    let status = child.wait()?;
    ensure!(status.success(), "The tests do not compile: {status}.");
    // Those that take long come last.
    programs.sort_by_key(Program::is_end_to_end);
    Ok(programs)
}

#[cfg(test)]
impl Program {
    /// A test target of this name.
    pub(super) fn test(name: &str) -> Self {
        Self {
            target: name.to_owned(),
            kind: TargetKind::Test,
            path: PathBuf::new(),
            directory: PathBuf::new(),
        }
    }
}
