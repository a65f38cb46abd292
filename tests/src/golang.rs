//! Go toolchains, and the program of `tests/apps/stacks/go` built by each of them in many ways.
//!
//! At each call, the program prints the stack that the Go runtime reports; [`Witness`] parses it.

mod observe;
mod strip;
mod witness;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

pub use self::observe::{Observation, observe, shapes};
pub use self::witness::{Comparison, Witness};
use crate::program::{Program, Reply};
use crate::suite::APPS;

/// The call shapes that every build of the program has, except "deep", whose stack exceeds any
/// copy. "recursion" comes first: its stack exceeds the copy that a new process gets.
pub const SHAPES: [&str; 18] = [
    "recursion",
    "plain",
    "inlined",
    "method",
    "value",
    "expression",
    "interface",
    "closure",
    "deferred",
    "panicking",
    "generic",
    "genericmethod",
    "goroutine",
    "timer",
    "once",
    "sort",
    "fields",
    "moved",
];

/// A Go release on this machine.
#[derive(Clone, Debug)]
pub struct Toolchain {
    root: PathBuf,
    /// For example "1.19.8".
    pub version: String,
    /// Major and minor version.
    pub release: (u32, u32),
}

/// How a program is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoBuild {
    /// Linked with C code, by the C linker.
    pub cgo: bool,
    /// Position-independent.
    pub pie: bool,
    /// Without symbols and debug information.
    pub stripped: bool,
    /// Without inlining in the program's own package.
    pub inlining_off: bool,
    /// Without section headers.
    pub headless: bool,
}

impl GoBuild {
    /// The defaults of `go build`, without cgo.
    pub const PLAIN: Self =
        Self { cgo: false, pie: false, stripped: false, inlining_off: false, headless: false };

    /// Every combination that the benchmark measures.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let plain = Self::PLAIN;
        let stripped = Self { stripped: true, ..plain };
        let mut all = vec![plain, Self { inlining_off: true, ..plain }];
        for cgo in [false, true] {
            all.extend([Self { cgo, ..stripped }, Self { cgo, pie: true, ..stripped }]);
            all.push(Self { cgo, headless: true, ..stripped });
            all.push(Self { cgo, pie: true, headless: true, ..stripped });
        }
        all.extend([Self { pie: true, ..plain }, Self { cgo: true, ..plain }]);
        all
    }
}

impl std::fmt::Display for GoBuild {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words = [
            (self.cgo, "cgo"),
            (self.pie, "PIE"),
            (self.stripped, "stripped"),
            (self.inlining_off, "no inlining"),
            (self.headless, "no section headers"),
        ];
        let words: Vec<_> = words.iter().filter(|(is, _)| *is).map(|(_, word)| *word).collect();
        f.write_str(if words.is_empty() { "plain" } else { "" })?;
        f.write_str(&words.join(", "))
    }
}

impl Toolchain {
    /// The toolchains that are installed or unpacked below `target`: one per release, oldest first.
    #[must_use]
    pub fn all(target: &Path) -> Vec<Self> {
        let unpacked = directories(&target.join("debian"));
        let roots = unpacked.iter().map(|suite| suite.join("root/usr/lib"));
        let found = roots
            .chain([PathBuf::from("/usr/lib")])
            .flat_map(|library| directories(&library))
            .filter_map(|root| Some((Self::at(&root)?.release, Self::at(&root)?)));
        found.collect::<BTreeMap<_, _>>().into_values().collect()
    }

    fn at(root: &Path) -> Option<Self> {
        // The file says "go1.27.3"; newer releases add a second line with the time.
        let text = fs::read_to_string(root.join("VERSION")).ok()?;
        let version = text.lines().next()?.strip_prefix("go")?.to_owned();
        let mut numbers = version.split('.').map(str::parse);
        let release = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        root.join("bin/go").exists().then(|| Self { root: root.to_owned(), version, release })
    }

    /// Builds the module in `source` to the file `to`, with Go's caches below `caches`.
    pub fn build(&self, how: GoBuild, source: &Path, caches: &Path, to: &Path) -> Result<()> {
        let mut linker = if how.stripped { "-s -w".to_owned() } else { String::new() };
        if self.release >= (1, 23) {
            // The program replaces a variable of package net, which newer linkers refuse by
            // default.
            linker.push_str(" -checklinkname=0");
        }
        let mut go = Command::new(self.root.join("bin/go"));
        go.current_dir(source)
            .args(["build", "-buildvcs=false", "-ldflags", linker.trim()])
            .args(how.pie.then_some("-buildmode=pie"))
            .args(how.inlining_off.then_some("-gcflags=-l"))
            .arg("-o")
            .arg(to)
            .env("CGO_ENABLED", if how.cgo { "1" } else { "0" })
            .env("GOCACHE", caches.join("build"))
            .env("GOPATH", caches.join("path"))
            .env_remove("GOROOT")
            .envs([("GOENV", "off"), ("GOFLAGS", ""), ("GOPROXY", "off"), ("GOTOOLCHAIN", "local")])
            .envs([("GO111MODULE", "on"), ("GOWORK", "off")]);
        let output = go.output().context("go")?;
        ensure!(output.status.success(), "go: {}", String::from_utf8_lossy(&output.stderr));
        if how.headless {
            strip::section_headers(to)?;
        }
        Ok(())
    }
}

/// The subdirectories of a directory; none if it cannot be read.
fn directories(of: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(of).into_iter().flatten().flatten();
    let mut paths: Vec<_> =
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    paths.sort();
    paths
}

/// A running Go program.
pub struct GoProgram {
    program: Program,
}

/// A call that the program made, with the stack that its runtime reported.
#[derive(Debug)]
pub struct Call {
    /// Socket cookie of the connection.
    pub cookie: u64,
    /// The stack that the runtime reported.
    pub witness: Witness,
}

impl GoProgram {
    /// The directory of the program's source.
    #[must_use]
    pub fn source() -> PathBuf {
        Path::new(APPS).join("stacks/go")
    }

    /// Starts the program as a client of the server on this port.
    pub fn start(path: &Path, port: u16) -> Result<Self> {
        let mut command = Command::new(path);
        command.env("SERVER", format!("127.0.0.1:{port}"));
        Ok(Self { program: Program::start(&mut command)? })
    }

    /// The program's PID.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.program.pid()
    }

    /// Makes the program connect, through this call shape.
    pub fn open(&mut self, shape: &str) -> Result<Call> {
        let reply = self.program.ok(&format!("open {shape}"))?;
        Self::call(&reply)
    }

    /// Makes the program send a request with `net.Conn.Write`, through this call shape.
    pub fn request(&mut self, cookie: u64, shape: &str) -> Result<Call> {
        let reply = self.program.ok(&format!("use {cookie} {shape}"))?;
        Self::call(&reply)
    }

    /// Makes the program send a request by a raw system call, through this call shape.
    pub fn send(&mut self, cookie: u64, shape: &str) -> Result<Call> {
        let reply = self.program.ok(&format!("send {cookie} {shape}"))?;
        Self::call(&reply)
    }

    /// Makes the program send `count` requests, each after the answer to the previous one.
    pub fn rounds(&mut self, cookie: u64, count: u32) -> Result<()> {
        self.program.ok(&format!("rounds {cookie} {count}")).map(drop)
    }

    fn call(reply: &Reply) -> Result<Call> {
        let text = from_hex(reply.word("stack")?).context("the stack is not UTF-8")?;
        Ok(Call { cookie: reply.number("cookie")?, witness: Witness::read(&text)? })
    }
}

fn from_hex(hex: &str) -> Option<String> {
    let digits = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    String::from_utf8(hex.as_bytes().chunks(2).map(digits).collect::<Option<_>>()?).ok()
}
