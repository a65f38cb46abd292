//! Options of `pgsocktrace run`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::trace::TraceArgs;
use crate::trace::CommandLine;

/// What of the options for tracing has no meaning for a command.
pub(super) const WITHOUT: [&str; 3] = ["pid", "children", "duration"];

/// The options for tracing a command.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Write the report to this file instead of stderr. An existing file is overwritten.
    #[arg(long, value_name = "FILE", env = "PGSOCKTRACE_REPORT")]
    pub report: Option<PathBuf>,
    /// How to trace it.
    #[command(flatten)]
    pub trace: TraceArgs,
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    #[arg(value_name = "CMD", help_heading = None::<&str>)]
    pub command: Vec<OsString>,
}

impl RunArgs {
    /// The command.
    pub(super) fn command_line(&self) -> Option<CommandLine> {
        let (program, arguments) = self.command.split_first()?;
        Some(CommandLine { program: program.clone(), arguments: arguments.to_vec() })
    }
}
