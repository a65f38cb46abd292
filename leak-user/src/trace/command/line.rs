//! What to execute.

use std::ffi::OsString;

/// What to execute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// The program; it is searched for in `PATH`.
    pub program: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}
