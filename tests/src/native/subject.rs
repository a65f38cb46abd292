//! The programs whose stacks tests compare, and how they are built.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use support::command::output;

use crate::need::Need;
use crate::suite::{APPS, Suite};

/// A program in one kind of build.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    /// "C", "C++" or "Rust".
    pub language: &'static str,
    /// The compiler's executable.
    pub compiler: &'static str,
    /// A description of the build.
    pub build: &'static str,
    source: Source,
    options: &'static [&'static str],
    finish: Finish,
}

/// The source of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    C,
    Cpp,
    Rust,
    /// A package that cargo builds with its dependencies.
    Tokio,
}

/// What happens to the compiled program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finish {
    Nothing,
    /// Compresses its debug sections.
    Compressed(&'static str),
    /// Moves symbols and lines to a file beside it, named in `.gnu_debuglink`.
    DebugLink,
    /// Moves symbols and lines to a file named by the build id, below the program's
    /// `/usr/lib/debug`.
    BuildId,
}

/// A program that is ready to run.
pub(super) struct Built {
    program: PathBuf,
    /// The directory that the program sees as `/usr/lib/debug`.
    pub(super) debug_directory: Option<PathBuf>,
}

const C: Subject = Subject {
    language: "C",
    compiler: "gcc",
    build: "",
    source: Source::C,
    options: &[],
    finish: Finish::Nothing,
};

const fn c(
    compiler: &'static str,
    build: &'static str,
    options: &'static [&'static str],
    finish: Finish,
) -> Subject {
    Subject { compiler, build, options, finish, ..C }
}

const fn cpp(
    compiler: &'static str,
    build: &'static str,
    options: &'static [&'static str],
    finish: Finish,
) -> Subject {
    Subject { language: "C++", source: Source::Cpp, ..c(compiler, build, options, finish) }
}

const fn rust(build: &'static str, options: &'static [&'static str], finish: Finish) -> Subject {
    Subject { language: "Rust", source: Source::Rust, ..c("rustc", build, options, finish) }
}

const fn tokio(build: &'static str, options: &'static [&'static str], finish: Finish) -> Subject {
    Subject { language: "Rust", source: Source::Tokio, ..c("cargo", build, options, finish) }
}

/// A common setting for production services: names of inlined functions lack their paths.
const LINES: &[&str] = &["--release", "--config", "profile.release.debug='line-tables-only'"];

/// The builds that differ most: enough to notice that something broke.
#[must_use]
pub fn distinct() -> Vec<Subject> {
    use Finish::{BuildId, Compressed, DebugLink, Nothing};
    vec![
        c("gcc", "-O2, no frame pointers", &["-O2", "-fomit-frame-pointer"], Nothing),
        c("gcc", "-O2, .debug_frame only", &["-O2", "-fno-asynchronous-unwind-tables"], Nothing),
        c("gcc", "-O2, compressed debug sections", &["-O2"], Compressed("zlib")),
        c("gcc", "-O2, debug file by link", &["-O2"], DebugLink),
        c("gcc", "-O2, static PIE", &["-O2", "-static-pie"], Nothing),
        c("clang", "-O2, no frame pointers", &["-O2", "-fomit-frame-pointer"], Nothing),
        cpp("g++", "-O0", &["-O0"], Nothing),
        cpp("g++", "-O2, debug file by build id", &["-O2"], BuildId),
        cpp("clang++", "-O2, no frame pointers", &["-O2", "-fomit-frame-pointer"], Nothing),
        rust("debug", &[], Nothing),
        rust("release, v0 names", &["-O", "-Csymbol-mangling-version=v0"], Nothing),
        tokio("tokio, release", &["--release"], Nothing),
        tokio("tokio, release, line tables only", LINES, Nothing),
    ]
}

/// All builds.
#[must_use]
pub fn subjects() -> Vec<Subject> {
    use Finish::{BuildId, DebugLink, Nothing};
    let mut all = distinct();
    all.extend([
        c("gcc", "-O0", &["-O0"], Nothing),
        c("gcc", "-O3, link-time optimised", &["-O3", "-flto"], Nothing),
        c("gcc", "-O2, debug file by build id", &["-O2"], BuildId),
        c("gcc", "-O2, static", &["-O2", "-static"], Nothing),
        c("gcc", "-O2, DWARF 4", &["-O2", "-gdwarf-4"], Nothing),
        c("clang", "-O0", &["-O0"], Nothing),
        cpp("g++", "-O2, no frame pointers", &["-O2", "-fomit-frame-pointer"], Nothing),
        cpp("g++", "-O3, link-time optimised", &["-O3", "-flto"], Nothing),
        cpp("clang++", "-O0", &["-O0"], Nothing),
        rust("release", &["-O"], Nothing),
        rust("release, link-time optimised", &["-O", "-Clto=fat"], Nothing),
        rust("release, debug file by link", &["-O"], DebugLink),
        tokio("tokio, debug", &[], Nothing),
    ]);
    all.sort_by_key(|subject| (subject.language, subject.source, subject.compiler));
    all
}

impl Subject {
    /// The subject's name in test names.
    #[must_use]
    pub fn name(&self) -> String {
        let words = format!("{} {} {}", self.language, self.compiler, self.build).to_lowercase();
        let words = words.replace("c++", "cpp").replace("g++", "gpp");
        let parts =
            words.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty());
        parts.collect::<Vec<_>>().join("_")
    }

    /// The prerequisite for building it.
    #[must_use]
    pub fn need(&self) -> Need {
        match self.compiler {
            "gcc" => Need::Compiler,
            "g++" => Need::Gpp,
            "rustc" | "cargo" => Need::Rust,
            _ => Need::Clang,
        }
    }

    /// The compiler's version line.
    pub fn version(&self) -> Result<String> {
        let output = Command::new(self.compiler).arg("--version").output();
        let text = output.with_context(|| self.compiler.to_owned())?.stdout;
        let text = String::from_utf8_lossy(&text).into_owned();
        Ok(text.lines().next().unwrap_or_default().to_owned())
    }

    /// Builds the program.
    pub(super) fn build(&self, suite: &Suite) -> Result<Built> {
        let directory = suite.directory()?;
        let program = directory.join("places");
        let source = |name: &str| format!("{APPS}/stacks/{name}");
        let mut compile = Command::new(self.compiler);
        if self.source != Source::Tokio {
            compile.args(self.options);
        }
        match self.source {
            Source::C => {
                compile.args(["-g", "-pthread"]);
                compile.args(["c/places.c", "c/serve.c", "c/assembly.S"].map(source));
                output(compile.arg("-o").arg(&program))?;
            }
            Source::Cpp => {
                let object = directory.join("serve.o");
                let mut serve = Command::new("gcc");
                serve.args(["-O2", "-g", "-c"]).arg(source("c/serve.c"));
                output(serve.arg("-o").arg(&object))?;
                compile.args(["-std=c++20", "-g", "-pthread"]).arg(source("cpp/places.cpp"));
                output(compile.arg(object).arg("-o").arg(&program))?;
            }
            Source::Rust => {
                compile.args(["--edition=2024", "-g"]).arg(source("rust/places.rs"));
                output(compile.arg("-o").arg(&program))?;
            }
            Source::Tokio => {
                let manifest = source("rust/tokio/Cargo.toml");
                compile
                    .args(["build", "--quiet", "--locked", "--manifest-path", &manifest])
                    .args(self.options);
                // In the target directory, which is kept: building tokio takes longer than the
                // test.
                let target = Path::new(APPS).join("../../target/stacks");
                output(compile.arg("--target-dir").arg(&target))?;
                let profile = if self.options.is_empty() { "debug" } else { "release" };
                fs::copy(target.join(profile).join("places"), &program)?;
            }
        }
        let debug_directory = self.finish(&directory, &program)?;
        Ok(Built { program, debug_directory })
    }

    fn finish(&self, directory: &Path, program: &Path) -> Result<Option<PathBuf>> {
        let debug_file = match self.finish {
            Finish::Nothing => return Ok(None),
            Finish::Compressed(kind) => {
                output(
                    Command::new("objcopy")
                        .arg(format!("--compress-debug-sections={kind}"))
                        .arg(program),
                )?;
                return Ok(None);
            }
            Finish::DebugLink => directory.join("places.debug"),
            Finish::BuildId => {
                let id = build_id(program)?;
                let (first, rest) = id.split_at_checked(2).context("a short build id")?;
                let below = directory.join("debug/.build-id").join(first);
                fs::create_dir_all(&below)?;
                below.join(format!("{rest}.debug"))
            }
        };
        output(Command::new("objcopy").arg("--only-keep-debug").arg(program).arg(&debug_file))?;
        if self.finish == Finish::BuildId {
            // `nm` and `addr2line` look for the debug file beside the program.
            fs::hard_link(&debug_file, directory.join("places.debug"))?;
        }
        let mut strip = Command::new("objcopy");
        strip.arg("--strip-all");
        if self.finish == Finish::DebugLink {
            let mut link = std::ffi::OsString::from("--add-gnu-debuglink=");
            link.push(&debug_file);
            strip.arg(link);
        }
        output(strip.arg(program))?;
        Ok((self.finish == Finish::BuildId).then(|| directory.join("debug")))
    }
}

impl Built {
    /// The command that runs the program as a client of the server on this port.
    pub(super) fn command(&self, port: u16) -> Command {
        let mut command = match &self.debug_directory {
            None => Command::new(&self.program),
            // The mount is private to the program and ends with it.
            Some(directory) => {
                let mut command = Command::new("unshare");
                let script = "mount --bind \"$0\" /usr/lib/debug && exec \"$@\"";
                command.args(["--mount", "sh", "-c", script]).arg(directory).arg(&self.program);
                command
            }
        };
        command.arg(port.to_string());
        command
    }
}

/// The build id in hexadecimal.
fn build_id(program: &Path) -> Result<String> {
    let output = Command::new("readelf").arg("-n").arg(program).output().context("readelf")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let id = text.lines().find_map(|line| line.trim().strip_prefix("Build ID: "));
    Ok(id.context("the program has no build id")?.to_owned())
}
