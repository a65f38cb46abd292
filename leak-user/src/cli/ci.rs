//! Options for continuous integration.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::{Args, ValueEnum};

use super::suppress::{SuppressError, Suppressions};
use crate::engine::findings::Suppression;
use crate::outputs::ci::{Baseline, BaselineError, CiSettings};

/// Options for continuous integration.
#[derive(Clone, Debug, Args)]
pub struct CiArgs {
    /// Write a JUnit report to this file: a failed test for each leak. An existing file is
    /// overwritten.
    #[arg(long, value_name = "FILE", env = "PGSOCKTRACE_JUNIT")]
    pub junit: Option<PathBuf>,
    /// Findings that fail no run: a file with a fingerprint a line, and comments after `#`. JSON
    /// and JUnit reports have the fingerprints.
    #[arg(long, value_name = "FILE", env = "PGSOCKTRACE_BASELINE", value_parser = baseline)]
    pub baseline: Option<Baseline>,
    /// Do not tell of the findings that the rules of this file hide; the report counts them.
    ///
    /// It is TOML: `[[suppress]]` with any of `reason`, `comm`, `function` and `application_name`
    /// (patterns), a sentence `why`, and if wanted the last day, `until = 2027-01-31`.
    #[arg(long, value_name = "FILE", env = "PGSOCKTRACE_SUPPRESS", value_parser = suppressions)]
    pub suppress: Option<Suppressions>,
    /// Print findings on stderr as annotations of source lines.
    #[arg(long, value_enum, value_name = "WHOSE", default_value_t)]
    #[arg(env = "PGSOCKTRACE_ANNOTATIONS")]
    pub annotations: AnnotationsOf,
}

/// Whose annotations are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum AnnotationsOf {
    /// GitHub's with `pgsocktrace run` in its workflows, else none.
    #[default]
    Auto,
    /// GitHub's.
    Github,
    /// None.
    Off,
}

impl CiArgs {
    /// What is not told. Warns of rules that have ended.
    pub(super) fn suppressions(&self) -> Vec<Suppression> {
        let rules = self.suppress.clone().map_or_else(Vec::new, |Suppressions(rules)| rules);
        let now = SystemTime::now();
        for rule in rules.iter().filter(|rule| rule.has_ended(now)) {
            log::warn!("a rule of --suppress has ended: {}", rule.why);
        }
        rules
    }

    /// What is written. `in_workflow` says whether this is a command in a workflow of GitHub's.
    pub(super) fn settings(&self, in_workflow: bool) -> CiSettings {
        CiSettings {
            junit: self.junit.clone(),
            annotations: match self.annotations {
                AnnotationsOf::Auto => in_workflow,
                AnnotationsOf::Github => true,
                AnnotationsOf::Off => false,
            },
            baseline: self.baseline.clone().unwrap_or_default(),
        }
    }
}

fn suppressions(path: &str) -> Result<Suppressions, SuppressError> {
    Suppressions::read(Path::new(path))
}

fn baseline(path: &str) -> Result<Baseline, BaselineError> {
    Baseline::read(Path::new(path))
}
