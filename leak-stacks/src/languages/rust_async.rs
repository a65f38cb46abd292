//! Makes chains of asynchronous Rust readable.
//!
//! An `async fn` is compiled to a closure that another closure or a runtime polls. So a closure is
//! named after the function that contains it (`shop::checkout` for `shop::checkout::{{closure}}`),
//! and frames that only pass the poll on to an application's closure are left out.

use crate::languages::language::{Language, Process, Runtime};
use crate::stack::{self, Frame};

/// Asynchronous Rust. It has no runtime that can be seen from outside: any native code may be it.
#[derive(Debug)]
pub(crate) struct RustAsync;

impl Language for RustAsync {
    fn find(&mut self, _process: &Process<'_>) -> Option<Box<dyn Runtime>> {
        Some(Box::new(Folded))
    }

    fn value(&self) -> Option<stack::Language> {
        None
    }
}

#[derive(Debug)]
struct Folded;

impl Runtime for Folded {
    fn tidy(&self, frames: &mut Vec<Frame>) {
        fold(frames);
    }
}

/// Beginnings of the names of functions that pass a poll on. Those of a type's trait begin with the
/// type.
const PASSING_ON: [&str; 13] = [
    "__rust_try",
    "core::future::",
    "core::ops::function::",
    "core::panic::unwind_safe::",
    "std::panic::",
    "std::panicking::",
    "tokio::future::",
    "tokio::loom::",
    "tokio::runtime::context::",
    "tokio::runtime::coop::",
    "tokio::runtime::task::",
    "tokio::task::",
    "tokio::util::",
];
/// Crates whose closures are not the application's.
const LIBRARIES: [&str; 4] = ["alloc::", "core::", "std::", "tokio::"];
/// The trait's method that all of this is about.
const POLL: &str = " as core::future::future::Future>::poll";

/// Names closures after their functions, and leaves out what only polls them.
fn fold(frames: &mut Vec<Frame>) {
    let mut outward_of_closure = false;
    frames.retain_mut(|frame| {
        let Some(name) = frame.function.as_mut() else {
            outward_of_closure = false;
            return true;
        };
        let plain = without_closures(name).len();
        let is_closure = plain < name.len();
        name.truncate(plain);
        let first = name.trim_start_matches(['<', '&']).trim_start_matches("mut ");
        let is_library = LIBRARIES.iter().any(|library| first.starts_with(library));
        let passes_on = PASSING_ON.iter().any(|beginning| first.starts_with(beginning))
            || (is_library && name.ends_with(POLL));
        if outward_of_closure && passes_on {
            return false;
        }
        outward_of_closure = is_closure && !is_library;
        true
    });
}

/// The name without `::{{closure}}` or, as newer compilers and debug information write it,
/// `::{closure#0}`, `::{async_fn#0}` or `::{async_block#0}` at its end.
fn without_closures(name: &str) -> &str {
    let mut rest = name;
    while let Some((before, last)) = rest.rsplit_once("::")
        && (last == "{{closure}}"
            || ["{closure#", "{async_fn#", "{async_block#"].iter().any(|beginning| {
                last.strip_prefix(beginning).is_some_and(|number| number.ends_with('}'))
            }))
    {
        rest = before;
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(names: &[&str]) -> Vec<String> {
        let frame = |name: &&str| Frame {
            function: Some((*name).to_owned()),
            module: None,
            file: None,
            line: None,
            address: 0,
        };
        let mut frames = names.iter().map(frame).collect();
        fold(&mut frames);
        frames.into_iter().filter_map(|frame| frame.function).collect()
    }

    #[test]
    fn a_chain_of_async_functions_reads_like_one_of_calls() {
        let names = folded(&[
            "shop::load::{{closure}}",
            "<core::pin::Pin<P> as core::future::future::Future>::poll",
            "shop::checkout::{async_fn#0}::{closure#1}",
            "tokio::runtime::task::core::Core<T,S>::poll::{{closure}}",
            "tokio::loom::std::unsafe_cell::UnsafeCell<T>::with_mut",
            "std::panicking::catch_unwind",
            "tokio::runtime::scheduler::multi_thread::worker::run",
            "tokio::runtime::task::raw::poll",
        ]);
        let expected = [
            "shop::load",
            "shop::checkout",
            "tokio::runtime::scheduler::multi_thread::worker::run",
            "tokio::runtime::task::raw::poll",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn what_an_application_wrote_stays() {
        let own = "<shop::Retry<F> as core::future::future::Future>::poll";
        assert_eq!(folded(&["shop::load::{{closure}}", own]), ["shop::load", own]);
        for name in
            ["main", "{{closure}}", "shop::{closure#x", "a::{lambda()#1}::operator()() const"]
        {
            assert_eq!(folded(&[name]), [name]);
        }
    }
}
