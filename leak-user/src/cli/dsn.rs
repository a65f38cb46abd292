//! Connection strings as values of options.

use std::ffi::OsStr;

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;

use crate::sources::postgres::{Dsn, DsnError};

/// Parses connection strings, one per line. Errors do not quote them: they may hold passwords.
#[derive(Clone)]
pub(super) struct DsnParser;

impl TypedValueParser for DsnParser {
    type Value = Vec<Dsn>;

    fn parse_ref(
        &self,
        command: &clap::Command,
        _: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<Self::Value, clap::Error> {
        let wrong = |why: &dyn std::fmt::Display| {
            let message = format!("invalid value for '--pg-dsn <DSN>': {why}");
            command.clone().error(ErrorKind::ValueValidation, message)
        };
        let text = value.to_str().ok_or_else(|| wrong(&"it is not UTF-8"))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let servers: Vec<Dsn> =
            lines.map(Dsn::parse).collect::<Result<_, _>>().map_err(|error| wrong(&error))?;
        if servers.is_empty() { Err(wrong(&DsnError::NoHost)) } else { Ok(servers) }
    }
}
