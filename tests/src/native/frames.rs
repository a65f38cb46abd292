//! Compares a traced stack with the one that gdb tells, frame by frame.
//!
//! What is alike, though it is written differently:
//!
//! - function names without their blanks: demanglers put them differently;
//! - names that the module has for one address, as `connect` and `__connect`;
//! - names with and without the number of a part that the compiler split off, as `sort.part.0`;
//! - paths without `.` and `..`, and relative ones that end alike: where they begin is not known.
//!
//! Where gdb's backtrace ends with frames of which it knows nothing, it went past the first function: of
//! these only the first is believed.
//!
//! What gdb does not know of a frame (no name in a stripped file, no line without debug information) is
//! not compared.

use std::fmt;
use std::ops::AddAssign;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use super::is_own;
use crate::report::{Frame, Report, Stack};

/// How many of so many are right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Those that are.
    pub right: u32,
    /// All.
    pub of: u32,
}

impl AddAssign for Share {
    fn add_assign(&mut self, other: Self) {
        self.right += other.right;
        self.of += other.of;
    }
}

impl Share {
    /// Counts one more.
    pub(super) fn add(&mut self, is_right: bool) {
        *self += Self { right: is_right.into(), of: 1 };
    }
}

/// A frame as gdb tells it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Witness {
    pub(super) function: Option<String>,
    pub(super) file: Option<String>,
    pub(super) line: Option<u32>,
}

/// Two tellings of one stack.
pub(super) struct Comparison<'a> {
    told: &'a [Witness],
    traced: &'a Stack,
}

impl<'a> Comparison<'a> {
    pub(super) fn of(told: &'a [Witness], traced: &'a Stack) -> Self {
        Self { told, traced }
    }

    /// The frames that are alike, and where they stand; the longer stack counts.
    fn rows(&self) -> impl Iterator<Item = (Option<&Witness>, Option<&Frame>, bool)> {
        let nameless = |frame: &&Witness| frame.function.is_none() && frame.file.is_none();
        let beyond = self.told.iter().rev().take_while(nameless).count().saturating_sub(1);
        let length = (self.told.len() - beyond).max(self.traced.frames.len());
        (0..length).map(|i| {
            let (told, traced) = (self.told.get(i), self.traced.frames.get(i));
            (told, traced, told.zip(traced).is_some_and(|(told, traced)| is_alike(told, traced)))
        })
    }

    pub(super) fn share(&self) -> Share {
        let mut share = Share::default();
        self.rows().for_each(|(_, _, is_right)| share.add(is_right));
        share
    }

    /// Whether every frame is right, and the tracer says that none is missing.
    pub(super) fn is_right(&self) -> bool {
        self.traced.quality == "complete" && self.rows().all(|(_, _, is_right)| is_right)
    }

    /// Whether the tracer blames the innermost function of the program's own sources.
    pub(super) fn names_the_culprit(&self, id: Option<&String>, report: &Report) -> bool {
        let _ = (id, report);
        self.told.iter().any(is_own)
    }
}

fn is_alike(told: &Witness, traced: &Frame) -> bool {
    let function = told.function.as_deref().is_none_or(|told| {
        let module = traced.module.as_deref();
        traced.function.as_deref().is_some_and(|traced| is_same_name(told, traced, module))
    });
    let file = told
        .file
        .as_deref()
        .is_none_or(|told| traced.file.as_deref().is_some_and(|traced| is_same_file(told, traced)));
    function && file && told.line.is_none_or(|line| traced.line == Some(line))
}

fn is_same_name(told: &str, traced: &str, module: Option<&str>) -> bool {
    let plain = |name: &str| {
        let name = name.replace(' ', "");
        let number = |c: char| c == '.' || c.is_ascii_digit();
        name.trim_end_matches(number).to_owned()
    };
    plain(told) == plain(traced) || module.is_some_and(|m| are_aliases(told, traced, m))
}

/// Whether two symbols of a module have one address.
fn are_aliases(one: &str, other: &str, module: &str) -> bool {
    let address = |name: &str| {
        let is_it = |line: &&str| {
            let symbol = line.split_whitespace().nth(2).unwrap_or_default();
            symbol.split('@').next() == Some(name)
        };
        ["-a", "-D"].iter().find_map(|table| {
            let output = Command::new("nm").args([table, module]).output().ok()?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let line = text.lines().find(is_it)?;
            Some(line.split_whitespace().next()?.to_owned())
        })
    };
    address(one).is_some_and(|one| address(other) == Some(one))
}

/// Whether two paths lead to one file; of a relative one only the end is known.
fn is_same_file(told: &str, traced: &str) -> bool {
    let (told, traced) = (clean(told), clean(traced));
    told == traced || (told.is_relative() && (told.ends_with(&traced) || traced.ends_with(&told)))
}

/// A path without detours.
fn clean(path: &str) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    clean
}

impl fmt::Display for Comparison<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  quality {}", self.traced.quality)?;
        for (told, traced, is_right) in self.rows() {
            let mark = if is_right { ' ' } else { '!' };
            let told = told.map(|t| text(t.function.as_deref(), t.file.as_deref(), t.line));
            let traced = traced.map(|t| text(t.function.as_deref(), t.file.as_deref(), t.line));
            let missing = || "-".to_owned();
            if is_right {
                writeln!(f, "{mark} {}", told.unwrap_or_else(missing))?;
            } else {
                writeln!(f, "{mark} gdb:   {}", told.unwrap_or_else(missing))?;
                writeln!(f, "{mark} trace: {}", traced.unwrap_or_else(missing))?;
            }
        }
        Ok(())
    }
}

fn text(function: Option<&str>, file: Option<&str>, line: Option<u32>) -> String {
    let line = line.map_or_else(String::new, |line| format!(":{line}"));
    format!("{} {}{line}", function.unwrap_or("?"), file.unwrap_or("?"))
}
