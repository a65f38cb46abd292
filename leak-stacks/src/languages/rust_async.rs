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

/// Beginnings of the names of functions that poll. Those of a type's trait begin with the type.
const POLLING: [&str; 8] = [
    "core::future::",
    "tokio::future::",
    "tokio::loom::",
    "tokio::runtime::context::",
    "tokio::runtime::coop::",
    "tokio::runtime::task::",
    "tokio::task::",
    "tokio::util::",
];
/// Beginnings of the names of functions that call what they are given, a poll among other things.
const CALLING: [&str; 5] = [
    "__rust_try",
    "core::ops::function::",
    "core::panic::unwind_safe::",
    "std::panic::",
    "std::panicking::",
];
/// Crates whose closures are not the application's.
const LIBRARIES: [&str; 4] = ["alloc::", "core::", "std::", "tokio::"];
/// The trait's method that all of this is about.
const POLL: &str = " as core::future::future::Future>::poll";

/// Names closures after their functions, and leaves out what only polls them.
fn fold(frames: &mut Vec<Frame>) {
    let mut kept = Vec::with_capacity(frames.len());
    // What lies outward of an application's closure and may only poll it.
    let mut between = Vec::new();
    let mut polls = false;
    let mut outward_of_closure = false;
    for mut frame in frames.drain(..) {
        let role = frame.function.as_mut().map_or(Role::Other, Role::name);
        if outward_of_closure && matches!(role, Role::Polls | Role::Calls) {
            polls |= role == Role::Polls;
            between.push(frame);
            continue;
        }
        if !polls {
            // They call a closure that is no asynchronous function.
            kept.append(&mut between);
        }
        between.clear();
        polls = false;
        outward_of_closure = role == Role::Closure;
        kept.push(frame);
    }
    if !polls {
        kept.append(&mut between);
    }
    *frames = kept;
}

/// What a function has to do with asynchronous ones.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// A closure of the application, as an asynchronous function is.
    Closure,
    /// It polls one.
    Polls,
    /// It calls what it is given.
    Calls,
    /// Nothing.
    Other,
}

impl Role {
    /// The role of a function, whose name loses what says that it is a closure.
    fn name(name: &mut String) -> Self {
        let plain = without_closures(name).len();
        let is_closure = plain < name.len();
        name.truncate(plain);
        let first = name.trim_start_matches(['<', '&']).trim_start_matches("mut ");
        let begins = |beginnings: &[&str]| beginnings.iter().any(|one| first.starts_with(one));
        let is_library = begins(&LIBRARIES);
        if begins(&POLLING) || (is_library && name.ends_with(POLL)) {
            Self::Polls
        } else if begins(&CALLING) {
            Self::Calls
        } else if is_closure && !is_library {
            Self::Closure
        } else {
            Self::Other
        }
    }
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
    fn who_calls_a_closure_that_is_not_polled_stays() {
        let names = folded(&["shop::work::{{closure}}", "std::panic::catch_unwind", "shop::work"]);
        assert_eq!(names, ["shop::work", "std::panic::catch_unwind", "shop::work"]);
        let names = folded(&["main::{{closure}}", "core::ops::function::FnOnce::call_once"]);
        assert_eq!(names, ["main", "core::ops::function::FnOnce::call_once"]);
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
