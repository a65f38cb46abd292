//! Options that select processes by what they are.

use clap::Args;
use leak_stacks::Glob;

use crate::sources::procfs::container::ContainerName;
use crate::sources::procfs::name::CommPattern;
use crate::sources::procfs::selection::Selection;

/// Options that select processes by what they are.
#[derive(Clone, Debug, Args)]
pub struct SelectionArgs {
    /// Trace only processes whose name matches this pattern (repeatable). `ps -o comm` shows the
    /// names.
    #[arg(short, long, value_name = "GLOB", env = "PGSOCKTRACE_COMM", value_delimiter = ',')]
    pub comm: Vec<CommPattern>,
    /// Do not trace processes whose name matches this pattern (repeatable).
    #[arg(long, value_name = "GLOB", env = "PGSOCKTRACE_EXCLUDE_COMM", value_delimiter = ',')]
    pub exclude_comm: Vec<CommPattern>,
    /// Trace only processes whose program has a path that matches this pattern, for example
    /// `/opt/orders/*` (repeatable). Processes in containers have the path that they see.
    #[arg(long, value_name = "GLOB", env = "PGSOCKTRACE_EXE", value_delimiter = ',')]
    pub exe: Vec<Glob>,
    /// Trace only processes in this container: the first eight or more digits of its id, or the
    /// name that Docker gave it (repeatable).
    #[arg(long, value_name = "NAME|ID", env = "PGSOCKTRACE_CONTAINER", value_delimiter = ',')]
    pub container: Vec<ContainerName>,
    /// Trace only processes in this systemd unit, for example `orders` or `orders.service`
    /// (repeatable).
    #[arg(long, value_name = "UNIT", env = "PGSOCKTRACE_UNIT", value_delimiter = ',')]
    pub unit: Vec<String>,
}

impl SelectionArgs {
    /// Which processes that is.
    pub(super) fn selection(&self) -> Selection {
        let Self { comm, exclude_comm, exe, container, unit } = self.clone();
        Selection { comm, exclude_comm, exe, container, unit }
    }
}
