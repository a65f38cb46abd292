//! The interface between the program that boots a virtual machine and `vm_init`, its first process.
//!
//! Plans are files `NAME.json` below [`PLANS`]; the kernel's command line names one of them.
//! `vm_init` writes its answer to [`RESULTS`]: a [`Line`] per line, and between them the output of
//! the steps.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The directory of plans in the machine.
pub const PLANS: &str = "/plans";
/// The parameter of the kernel's command line that names the plan.
pub const PLAN: &str = "vm.plan";
/// The device that results are written to; the kernel's own messages go to another one.
pub const RESULTS: &str = "/dev/ttyS1";
/// The directory of each kernel's modules, by release; file names sort in load order.
pub const MODULES: &str = "/modules";

/// Environment variable: the flavours of hooks that must work, separated by commas.
pub const FLAVOURS: &str = "LEAK_TESTS_FLAVOURS";

/// The prefix of `vm_init`'s own lines in the results.
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

/// The plan of one machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// How control groups are mounted.
    pub cgroups: Cgroups,
    /// The programs to run, one after the other.
    pub steps: Vec<Step>,
}

/// A program to run in the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The step's name in results, without spaces.
    pub name: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Environment variables of the program.
    pub environment: BTreeMap<String, String>,
}

/// A line that `vm_init` itself writes to the results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// The machine is up, with this kernel release.
    Up(String),
    /// A step begins.
    Begin(String),
    /// A step has ended: its name, and its exit status unless a signal killed it.
    End(String, Option<i32>),
    /// All steps have ended.
    Done,
    /// The machine could not run its plan.
    Trouble(String),
}

impl Line {
    /// Parses a line of results; `None` if a step printed it.
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

    /// The line as text, without the newline.
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
