//! Compares a traced stack with gdb's backtrace, frame by frame.
//!
//! The comparison ignores these differences:
//!
//! - blanks in function names, because demanglers place them differently;
//! - arguments, template arguments and return types of C++ functions, because GNU's demangler,
//!   which gdb uses, writes them differently from others;
//! - the scope of inlined C++ functions with internal linkage, because debug information has only
//!   the last part of their names, and gdb makes up the rest;
//! - all but the last part of names where debug information holds only lines;
//! - closures of Rust, which the tracer names after the enclosing function, and frames that only
//!   poll them: the tracer shows asynchronous functions this way;
//! - different names of one address in the module, such as `connect` and `__connect`;
//! - the suffix of a part that the compiler split off, as in `sort.part.0`;
//! - lines on which the tracer and `addr2line` agree: gdb takes the nearest statement that begins
//!   before the call, in whatever function, and the compiler may have noted another line for the
//!   call, or none;
//! - `.` and `..` in paths, and the unknown start of relative paths.
//!
//! gdb's backtrace may end with frames of which gdb knows nothing, beyond the first function. The
//! comparison keeps only the first of these.
//!
//! Names and lines that gdb does not know, for lack of symbols or debug information, are not
//! compared.

use std::fmt;
use std::ops::AddAssign;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use super::{lines, names, polls};
use crate::report::{Frame, Stack};

/// A number of right results, out of a total.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Right results.
    pub right: u32,
    /// All results.
    pub of: u32,
}

impl AddAssign for Share {
    fn add_assign(&mut self, other: Self) {
        self.right += other.right;
        self.of += other.of;
    }
}

impl Share {
    /// Counts one more result.
    pub(super) fn add(&mut self, is_right: bool) {
        *self += Self { right: is_right.into(), of: 1 };
    }
}

/// A frame in gdb's backtrace.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Witness {
    pub(super) function: Option<String>,
    pub(super) file: Option<String>,
    pub(super) line: Option<u32>,
}

/// How the traced stack differs from gdb's backtrace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The stack is marked as truncated, and its frames are right.
    Truncated,
    /// The stack is marked as complete and its functions are all in gdb's backtrace, but gdb has
    /// more.
    Fewer,
    /// Any other difference.
    Wrong,
}

/// A traced stack and gdb's backtrace of the same call.
pub(super) struct Comparison<'a> {
    told: &'a [Witness],
    traced: &'a Stack,
}

impl<'a> Comparison<'a> {
    pub(super) fn of(told: &'a [Witness], traced: &'a Stack) -> Self {
        Self { told, traced }
    }

    /// The frames side by side, and whether they match; as many rows as the longer stack has
    /// frames.
    fn rows(&self) -> impl Iterator<Item = (Option<&Witness>, Option<&Frame>, bool)> {
        let told = self.believed();
        let length = told.len().max(self.traced.frames.len());
        (0..length).map(move |i| {
            let (told, traced) = (told.get(i).copied(), self.traced.frames.get(i));
            (told, traced, told.zip(traced).is_some_and(|(told, traced)| is_alike(told, traced)))
        })
    }

    /// gdb's frames, without those beyond the first function and without those that only poll an
    /// asynchronous function.
    fn believed(&self) -> Vec<&'a Witness> {
        let nameless = |frame: &&Witness| frame.function.is_none() && frame.file.is_none();
        let beyond = self.told.iter().rev().take_while(nameless).count().saturating_sub(1);
        polls::left_out(&self.told[..self.told.len() - beyond], &self.traced.frames)
    }

    pub(super) fn share(&self) -> Share {
        let mut share = Share::default();
        self.rows().for_each(|(_, _, is_right)| share.add(is_right));
        share
    }

    /// Whether every frame is right and the stack is marked as complete.
    pub(super) fn is_right(&self) -> bool {
        self.traced.quality == "complete" && self.rows().all(|(_, _, is_right)| is_right)
    }

    /// How the two stacks differ.
    pub(super) fn kind(&self) -> Kind {
        let frames = &self.traced.frames;
        let told = self.believed();
        let mut rest = told.iter();
        if self.traced.quality == "truncated" {
            let is_right = self.rows().all(|(_, traced, is_right)| is_right || traced.is_none());
            if is_right { Kind::Truncated } else { Kind::Wrong }
        } else if self.traced.quality != "complete" {
            Kind::Wrong
        } else if frames.iter().all(|traced| rest.any(|told| has_same_function(told, traced))) {
            Kind::Fewer
        } else {
            Kind::Wrong
        }
    }
}

/// Whether gdb's frame and the tracer's match.
pub(super) fn is_alike(told: &Witness, traced: &Frame) -> bool {
    has_same_function(told, traced) && (has_same_line(told, traced) || has_noted_line(traced))
}

fn has_same_function(told: &Witness, traced: &Frame) -> bool {
    told.function.as_deref().is_none_or(|told| {
        let module = traced.module.as_deref();
        traced.function.as_deref().is_some_and(|traced| names::is_same(told, traced, module))
    })
}

fn has_same_line(told: &Witness, traced: &Frame) -> bool {
    told.line.is_none_or(|line| traced.line == Some(line))
        && told.file.as_deref().is_none_or(|told| {
            traced.file.as_deref().is_some_and(|traced| is_same_file(told, traced))
        })
}

fn has_noted_line(traced: &Frame) -> bool {
    let (Some(module), Some(file)) = (&traced.module, &traced.file) else { return false };
    let noted = lines::at(module, traced.address);
    noted.iter().any(|(name, line)| *line == traced.line && is_same_file(name, file))
}

/// Whether two paths name one file; of a relative path, only the end is known.
fn is_same_file(told: &str, traced: &str) -> bool {
    let (told, traced) = (clean(told), clean(traced));
    told == traced || (told.is_relative() && (told.ends_with(&traced) || traced.ends_with(&told)))
}

/// Normalises a path: removes `.` and `..`.
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
