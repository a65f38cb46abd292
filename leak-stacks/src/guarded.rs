//! Keeps panics in other crates' parsers from ending the process.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs a parser over untrusted bytes; `None` when it panics.
///
/// The parsers of other crates are good but not infallible, and the tracer must outlive them. A
/// panic costs the one stack that led to it. It is not held against the binary: the cause may be
/// the bytes of the stack, and well-behaved processes may share the binary.
pub(crate) fn guarded<T>(parse: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(parse)).ok()
}
