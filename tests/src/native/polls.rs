//! Decides which of gdb's frames between a Rust program's asynchronous functions the tracer hides.
//!
//! The tracer decides by the names of library functions. This module knows no library. It uses
//! gdb's file and line of each frame: the source line shows how the program calls the next inner
//! function.
//!
//! - If the line says `.await`, only polling happens between both functions: all frames between
//!   them are left out.
//! - Otherwise the line hands a closure or a task to a library function (`block_on`,
//!   `catch_unwind`, a thread). Frames directly outward of the closure may be left out, but not the
//!   last one before the program's next function, or before the stack's end.
//! - Outward of a function that is not a closure, nothing is left out.

use std::fs;
use std::path::Path;

use super::frames::Witness;
use super::names::MADE_UP;
use crate::report::Frame;

/// Whether a file belongs to the program's own sources.
pub(super) fn is_own(file: Option<&str>) -> bool {
    file.is_some_and(|file| file.contains("/apps/stacks/"))
}

/// gdb's frames, without those that the tracer must hide, and without those that it may hide and
/// does.
pub(super) fn left_out<'a>(told: &'a [Witness], traced: &[Frame]) -> Vec<&'a Witness> {
    let mut traced = traced.split(|frame| is_own(frame.file.as_deref())).skip(1).map(<[_]>::len);
    let mut kept = Vec::new();
    let mut rest = told;
    while let Some((frame, outward)) = rest.split_first() {
        kept.push(frame);
        rest = outward;
        if !is_own(frame.file.as_deref()) {
            continue;
        }
        let between = outward.iter().take_while(|frame| !is_own(frame.file.as_deref())).count();
        let traced = traced.next().unwrap_or(between);
        if is_closure(frame) {
            let left = match outward.get(between) {
                // With only the last part of a name, it is unknown what a function is.
                Some(caller) if awaits(caller) && !are_known_in_part(&outward[..between]) => 0,
                Some(caller) if awaits(caller) => traced.min(between),
                _ => traced.clamp(between.min(1), between),
            };
            rest = &outward[between - left..];
        }
    }
    kept
}

/// Whether a frame belongs to a closure; asynchronous functions are compiled to closures.
fn is_closure(frame: &Witness) -> bool {
    let name = frame.function.as_deref().unwrap_or_default();
    ["{{closure}}", "{closure#", "{async_fn#", "{async_block#", "{closure_env#"]
        .iter()
        .any(|closure| name.contains(closure))
}

/// Whether debug information has only the last parts of these functions' names.
fn are_known_in_part(frames: &[Witness]) -> bool {
    let of =
        |frame: &Witness| frame.function.as_ref().is_some_and(|name| name.starts_with(MADE_UP));
    frames.iter().all(of)
}

/// Whether the frame's source line says `.await` and passes nothing to a runtime.
fn awaits(frame: &Witness) -> bool {
    let line = || {
        let number = usize::try_from(frame.line?.checked_sub(1)?).ok()?;
        let text = fs::read_to_string(Path::new(frame.file.as_deref()?)).ok()?;
        let text = text.lines().nth(number)?;
        Some(text.contains(".await") && !text.contains("block_on("))
    };
    line().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::APPS;

    const POLL: &str = "<core::pin::Pin<P> as core::future::future::Future>::poll";

    /// A frame of the tokio program, at the source line that contains these words.
    fn own(function: &str, words: &str) -> Witness {
        let file = format!("{APPS}/stacks/rust/tokio/src/main.rs");
        let text = fs::read_to_string(&file).unwrap();
        let line = text.lines().position(|line| line.contains(words)).unwrap() + 1;
        Witness {
            function: Some(function.into()),
            file: Some(file),
            line: Some(line.try_into().unwrap()),
        }
    }

    fn library(function: &str) -> Witness {
        Witness {
            function: Some(function.into()),
            file: Some("/rustc/library/x.rs".into()),
            line: None,
        }
    }

    fn names(told: &[Witness], traced: &[&Witness]) -> Vec<String> {
        let traced: Vec<Frame> = traced
            .iter()
            .map(|frame| Frame {
                function: frame.function.clone(),
                module: None,
                file: frame.file.clone(),
                line: frame.line,
                address: 0,
            })
            .collect();
        left_out(told, &traced).iter().filter_map(|frame| frame.function.clone()).collect()
    }

    #[test]
    fn what_lies_between_awaiting_functions_is_left_out_whether_traced_or_not() {
        let told = [
            own("shop::load::{{closure}}", "call_server().await?"),
            library(POLL),
            own("shop::checkout::{{closure}}", "load(black_box(order) + 1).await?"),
            library("run"),
        ];
        let expected = ["shop::load::{{closure}}", "shop::checkout::{{closure}}", "run"];
        assert_eq!(names(&told, &told.iter().collect::<Vec<_>>()), expected);
        assert_eq!(names(&told, &[&told[0], &told[2], &told[3]]), expected);
    }

    #[test]
    fn a_runtime_may_be_left_out_in_part_but_not_wholly() {
        let told = [
            own("shop::checkout::{{closure}}", "load(black_box(order) + 1).await?"),
            library(POLL),
            library("block_on"),
            own("enter::{{closure}}", "handle.block_on("),
            library("start"),
        ];
        let [checkout, poll, block_on, enter, start] =
            told.each_ref().map(|frame| frame.function.clone().unwrap());
        let without_poll = [&checkout, &block_on, &enter, &start].map(String::clone);
        assert_eq!(names(&told, &[&told[0], &told[2], &told[3], &told[4]]), without_poll);
        assert_eq!(names(&told, &[&told[0], &told[3]]), without_poll);
        let all = [checkout, poll, block_on, enter, start];
        assert_eq!(names(&told, &told.iter().collect::<Vec<_>>()), all);
    }

    #[test]
    fn only_closures_are_polled() {
        let told = [own("main", "runtime.block_on(visit(name))"), library("start")];
        assert_eq!(names(&told, &[&told[0]]), ["main", "start"]);
    }
}
