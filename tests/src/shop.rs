//! The order service that leaks on command, in C and in Python.

use std::fs;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::program::Program;
use crate::server::USER;
use crate::suite::{APPS, Suite};

/// How the order service was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// C, optimised, with debug information, without frame pointers.
    Debug,
    /// C, optimised, with symbols but without debug information.
    Symbols,
    /// C, optimised, stripped of everything.
    Stripped,
    /// Like [`Build::Debug`], with a thread per request.
    Threaded,
    /// Python with psycopg2.
    Python,
}

/// A running order service.
pub struct Shop {
    program: Program,
}

impl Shop {
    /// Starts the order service; `settings` are appended to its connection string.
    pub fn start(suite: &Suite, build: Build, settings: &[&str]) -> Result<Self> {
        let mut command = Self::command(suite, build)?;
        command.arg(connection_string(suite.port(), settings));
        if build == Build::Threaded {
            command.arg("threaded");
        }
        Ok(Self { program: Program::start(&mut command)? })
    }

    /// Starts the order service as a client of the server on this port.
    pub fn start_at(suite: &Suite, port: u16, settings: &[&str]) -> Result<Self> {
        let mut command = Self::command(suite, Build::Debug)?;
        command.arg(connection_string(port, settings));
        Ok(Self { program: Program::start(&mut command)? })
    }

    /// Starts a copy of the program at `path`, which the test may delete or replace.
    pub fn start_copy(suite: &Suite, path: &Path) -> Result<Self> {
        fs::copy(Self::compile(suite, Build::Debug)?, path)?;
        let mut command = Command::new(path);
        command.arg(connection_string(suite.port(), &[]));
        Ok(Self { program: Program::start(&mut command)? })
    }

    /// The program and its argument, for a tracer that is to start it.
    pub fn command_line(suite: &Suite) -> Result<[String; 2]> {
        let program = Self::compile(suite, Build::Debug)?;
        Ok([program.to_string_lossy().into_owned(), connection_string(suite.port(), &[])])
    }

    fn command(suite: &Suite, build: Build) -> Result<Command> {
        if build == Build::Python {
            let mut command = Command::new("/usr/bin/python3");
            command.arg(format!("{APPS}/shop.py"));
            return Ok(command);
        }
        Ok(Command::new(Self::compile(suite, build)?))
    }

    fn compile(suite: &Suite, build: Build) -> Result<PathBuf> {
        let (name, options) = match build {
            Build::Symbols => ("shop-symbols", &["-g0"][..]),
            Build::Stripped => ("shop-stripped", &["-g0", "-s"][..]),
            _ => ("shop", &["-g"][..]),
        };
        suite.apps().with_libpq_and(name, "shop", options)
    }

    /// The source line of the last request in the handler with this leak.
    pub fn line_of(build: Build, leak: &str) -> Result<u32> {
        let (file, marker) = match build {
            Build::Python => ("shop.py", format!("# LEAK {leak}")),
            _ => ("shop.c", format!("/* LEAK {leak} */")),
        };
        let source = fs::read_to_string(format!("{APPS}/{file}"))?;
        let index = source.lines().position(|line| line.ends_with(&marker));
        Ok(u32::try_from(index.with_context(|| format!("no line is marked {marker}"))? + 1)?)
    }
}

impl Deref for Shop {
    type Target = Program;

    fn deref(&self) -> &Program {
        &self.program
    }
}

impl DerefMut for Shop {
    fn deref_mut(&mut self) -> &mut Program {
        &mut self.program
    }
}

fn connection_string(port: u16, settings: &[&str]) -> String {
    let plain = ["sslmode=disable"];
    let settings = if settings.is_empty() { &plain[..] } else { settings };
    format!(
        "host=127.0.0.1 port={port} user={USER} dbname=postgres application_name=shop \
         gssencmode=disable {}",
        settings.join(" ")
    )
}
