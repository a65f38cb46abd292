//! Options of `pgsocktrace ls`.

use clap::Args;

use super::dsn::DsnParser;
use super::values::Output;
use crate::ls::LsSettings;
use crate::outputs::text::Paint;
use crate::sources::postgres::Dsn;
use crate::sources::procfs::name::CommPattern;

/// The options for listing what there is.
#[derive(Clone, Debug, Args)]
pub struct LsArgs {
    /// List only connections of this process (repeatable).
    #[arg(short, long, env = "PGSOCKTRACE_PID", value_delimiter = ',')]
    #[arg(value_parser = super::values::pid)]
    pub pid: Vec<u32>,
    /// List only connections of processes whose name matches this pattern (repeatable). `ps -o
    /// comm` shows the names.
    #[arg(short, long, value_name = "GLOB", env = "PGSOCKTRACE_COMM", value_delimiter = ',')]
    pub comm: Vec<CommPattern>,
    /// List connections to this server port (repeatable).
    #[arg(short = 'P', long, default_value = "5432", env = "PGSOCKTRACE_PORT")]
    #[arg(value_delimiter = ',', value_parser = super::values::port)]
    pub port: Vec<u16>,
    /// Also ask this PostgreSQL server for its sessions (repeatable; one per line in the variable).
    ///
    /// It adds their state, since when they are open, the age of the transaction, the user, the
    /// database, the application and the last statement without its literals.
    #[arg(long, value_name = "DSN", env = "PGSOCKTRACE_PG_DSN", hide_env_values = true)]
    #[arg(value_parser = DsnParser)]
    pub pg_dsn: Vec<Vec<Dsn>>,
    /// Format of the list. `ndjson` is the same as `json` here: see `pgsocktrace schema --ls`.
    #[arg(short, long, value_enum, ignore_case = true, default_value_t)]
    #[arg(env = "PGSOCKTRACE_OUTPUT")]
    pub output: Output,
}

impl LsArgs {
    /// What to list, and how.
    #[must_use]
    pub fn settings(&self, paint: Paint) -> LsSettings {
        LsSettings {
            ports: self.port.clone(),
            pids: self.pid.clone(),
            comm: self.comm.clone(),
            servers: self.pg_dsn.concat(),
            format: self.output.into(),
            paint,
        }
    }
}
