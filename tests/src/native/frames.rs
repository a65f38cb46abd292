//! Compares a traced stack with the one that gdb tells, frame by frame.
//!
//! What is alike, though it is written differently:
//!
//! - function names without their blanks: demanglers put them differently;
//! - names of C++ functions without their arguments and their templates': GNU's demangler, which gdb uses,
//!   and others write these differently;
//! - names of inlined C++ functions that are not seen outside of their file: debug information has their last
//!   part only, and gdb puts the rest together;
//! - closures of Rust, named after the function that they are written in, and without the library's
//!   frames directly outward of them: that is how the tracer tells asynchronous functions;
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
use crate::report::{Frame, Stack};

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
        let told = self.told.get(..self.told.len() - beyond).unwrap_or_default();
        let told = told.iter().filter(|frame| !self.is_left_out(frame)).collect::<Vec<_>>();
        let length = told.len().max(self.traced.frames.len());
        (0..length).map(move |i| {
            let (told, traced) = (told.get(i).copied(), self.traced.frames.get(i));
            (told, traced, told.zip(traced).is_some_and(|(told, traced)| is_alike(told, traced)))
        })
    }

    /// Whether the frame is a library's outward of an application's closure, and the tracer has none of
    /// that name and line.
    fn is_left_out(&self, frame: &Witness) -> bool {
        const LIBRARIES: [&str; 5] = ["__rust_try", "alloc::", "core::", "std::", "tokio::"];
        let of_library = |name: &str| {
            let first = name.trim_start_matches(['<', '&']).trim_start_matches("mut ");
            LIBRARIES.iter().any(|library| first.starts_with(library))
        };
        let is_closure = |name: &str| name.ends_with("{{closure}}") || name.ends_with("}");
        let name = |frame: &Witness| frame.function.clone().unwrap_or_default();
        let Some(place) = self.told.iter().position(|told| std::ptr::eq(told, frame)) else {
            return false;
        };
        let inward = self.told.iter().take(place).map(name).rfind(|name| !of_library(name));
        let application = inward.is_some_and(|name| is_closure(&name) && name.contains("closure"));
        application
            && of_library(&name(frame))
            && !self.traced.frames.iter().any(|traced| is_alike(frame, traced))
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

    /// Whether the tracer has the innermost function of the program's own sources in its place.
    pub(super) fn names_the_culprit(&self) -> bool {
        let own = self.rows().find(|(told, ..)| told.is_some_and(is_own));
        own.is_some_and(|(.., is_right)| is_right)
    }

    /// Whether the tracer says that frames are missing, and those that it has are right.
    pub(super) fn is_truncated(&self) -> bool {
        let has = |(_, traced, is_right): (_, Option<&Frame>, bool)| is_right || traced.is_none();
        self.traced.quality == "truncated" && self.rows().all(has)
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
    let told = without_closures(told);
    if let Some(made_up) = told.strip_prefix("last part: ") {
        // `shop::all<int>(…)::operator()(int)` for `operator()`.
        return made_up.replace(' ', "").contains(&traced.replace(' ', ""));
    }
    let plain = |name: &str| {
        let name = without_arguments(&name.replace(' ', ""));
        let number = |c: char| c == '.' || c.is_ascii_digit();
        name.trim_end_matches(number).to_owned()
    };
    plain(told) == plain(traced) || module.is_some_and(|m| are_aliases(told, traced, m))
}

/// The name of the function that a closure of Rust is written in.
fn without_closures(name: &str) -> &str {
    match name.rsplit_once("::") {
        Some((before, last)) if last == "{{closure}}" || last.starts_with("{closure#") => {
            without_closures(before)
        }
        _ => name,
    }
}

/// A C++ function's name without what is in brackets; Rust's names are compared whole.
fn without_arguments(name: &str) -> String {
    let is_cpp = name.contains('(') && !name.contains("{{") && !name.contains("{closure#");
    let name = name.replace("(anonymousnamespace)", "anonymous").replace("operator()", "operator");
    if !is_cpp {
        return name;
    }
    let mut depth = 0_u32;
    name.chars()
        .filter(|c| match c {
            '(' | '<' => {
                depth += 1;
                false
            }
            ')' | '>' => {
                depth = depth.saturating_sub(1);
                false
            }
            _ => depth == 0,
        })
        .collect()
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
