//! What a virtual machine is told to do, and how it answers: shared by the program that boots it
//! and `vm_init`, its first process.
//!
//! Plans lie in the machine as [`PLANS`]`/NAME.json`; the kernel's command line names one of them.
//! The answer goes to [`RESULTS`], a line each of [`Line`], and between them what the steps print.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Where plans lie in the machine.
pub const PLANS: &str = "/plans";
/// The parameter of the kernel's command line that names the plan.
pub const PLAN: &str = "vm.plan";
/// The device that results are written to; the kernel's own messages go to another one.
pub const RESULTS: &str = "/dev/ttyS1";
/// Where a kernel's modules lie, below its release, in the order in which they are loaded.
pub const MODULES: &str = "/modules";

/// Names the flavours of hooks that must work, separated by commas.
pub const FLAVOURS: &str = "LEAK_TESTS_FLAVOURS";

/// What marks a line of results that no step has printed.
const MARK: &str = "@vm ";

/// How control groups are mounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cgroups {
    /// Version 2 alone.
    #[default]
    Unified,
    /// Version 1, with version 2 beside it.
    Hybrid,
    /// Version 1 alone.
    Legacy,
}

/// What one machine does between its start and its end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// How control groups are mounted.
    pub cgroups: Cgroups,
    /// What is run, one after the other.
    pub steps: Vec<Step>,
}

/// A program that is run in the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What it is called in results; without spaces.
    pub name: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Variables that it is given.
    pub environment: BTreeMap<String, String>,
}

/// A line of results by `vm_init` itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// The machine is up; its kernel's release.
    Up(String),
    /// A step begins.
    Begin(String),
    /// A step has ended: its name, and its exit status if it was not killed.
    End(String, Option<i32>),
    /// All steps have ended.
    Done,
    /// The machine could not do what it was told.
    Trouble(String),
}

impl Line {
    /// Reads a line of results; `None` when a step has printed it.
    #[must_use]
    pub fn read(line: &str) -> Option<Self> {
        let rest = line.strip_prefix(MARK)?;
        let (word, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        Some(match word {
            "up" => Self::Up(rest.into()),
            "begin" => Self::Begin(rest.into()),
            "end" => {
                let (name, status) = rest.split_once(' ')?;
                Self::End(name.into(), status.parse().ok())
            }
            "done" => Self::Done,
            "trouble" => Self::Trouble(rest.into()),
            _ => return None,
        })
    }

    /// The line as it is written, without its end.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Up(release) => format!("{MARK}up {release}"),
            Self::Begin(name) => format!("{MARK}begin {name}"),
            Self::End(name, Some(status)) => format!("{MARK}end {name} {status}"),
            Self::End(name, None) => format!("{MARK}end {name} killed"),
            Self::Done => format!("{MARK}done"),
            Self::Trouble(what) => format!("{MARK}trouble {}", what.replace('\n', " ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_are_written() {
        for line in [
            Line::Up("6.1.0-cloud".into()),
            Line::Begin("b/bytes".into()),
            Line::End("b/bytes".into(), Some(101)),
            Line::End("b/bytes".into(), None),
            Line::Done,
            Line::Trouble("no such plan".into()),
        ] {
            assert_eq!(Line::read(&line.text()), Some(line));
        }
    }

    #[test]
    fn what_steps_print_is_no_line_of_ours() {
        for line in ["", "test ipv4 ... ok", "@vm", "@vm end", "vm done"] {
            assert_eq!(Line::read(line), None, "{line}");
        }
    }
}
