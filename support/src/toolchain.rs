//! What builds the kernel programs: a compiler that knows the BPF target, and `bpf-linker`.
//!
//! Not aya-build: that builds with rustup's nightly alone, and Debian's compiler needs none.
//! The build script of `leak-user` uses this, too, so it needs nothing but `std`.

use std::{
    env,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

/// The target of the kernel programs: BPF in this machine's byte order.
const TARGET: &str =
    if cfg!(target_endian = "big") { "bpfeb-unknown-none" } else { "bpfel-unknown-none" };

/// The distribution's compiler. Debian's `rustc-web` comes with `core` for the BPF target.
pub const SYSTEM_RUSTC: &str = "/usr/bin/rustc";

/// Where the distribution's compiler keeps its targets.
const SYSTEM_TARGETS: &str = "/usr/lib/rustlib";

/// The smallest program that shows whether a linker reads what a compiler writes.
const TRIAL: &str = "#![no_std] #[unsafe(no_mangle)] pub extern \"C\" fn trial() {}";

/// What the outer cargo says about its own compiler, flags and build script, which the inner one
/// must not hear: it would build for somebody else, or start over each time.
const OUTER: &[&str] = &[
    "CARGO_BUILD_RUSTC",
    "CARGO_BUILD_RUSTC_WORKSPACE_WRAPPER",
    "CARGO_BUILD_RUSTC_WRAPPER",
    "CARGO_BUILD_TARGET",
    "HOST",
    "RUSTC",
    "RUSTC_BOOTSTRAP",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTDOC",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
];

/// A compiler and a linker that were found and belong together.
#[derive(Debug)]
pub struct Toolchain {
    compiler: Compiler,
    linker: PathBuf,
}

/// A compiler that can build for the BPF target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compiler {
    /// The distribution's, with `core` built for the target.
    System,
    /// rustup's nightly, which builds `core` from `rust-src` each time.
    Nightly,
}

impl Toolchain {
    /// Looks for a toolchain; `target` is cargo's target directory of the workspace.
    ///
    /// # Errors
    ///
    /// One sentence about what is missing.
    pub fn find(target: &Path) -> Result<Self, String> {
        let compilers = Compiler::present();
        if compilers.is_empty() {
            return Err("There is no Rust compiler for the BPF target.".into());
        }
        for compiler in compilers {
            for linker in linkers(target) {
                let toolchain = Self { compiler, linker };
                if toolchain.links(target) {
                    return Ok(toolchain);
                }
            }
        }
        Err("There is no bpf-linker that reads what the compiler for the BPF target writes.".into())
    }

    /// Builds the kernel programs of `workspace` under `target`/ebpf and returns the object file.
    ///
    /// # Errors
    ///
    /// One sentence, when cargo cannot be run or fails; cargo itself has said why on stderr.
    pub fn build(&self, workspace: &Path, target: &Path) -> Result<PathBuf, String> {
        let directory = target.join("ebpf");
        let mut cargo = self.compiler.cargo();
        cargo
            .current_dir(workspace)
            .args(["build", "--release", "--package", "leak-ebpf", "--target", TARGET])
            .arg("--target-dir")
            .arg(&directory)
            .env("CARGO_ENCODED_RUSTFLAGS", self.flags(workspace).join("\u{1f}"))
            .stdout(Stdio::null());
        if self.compiler == Compiler::Nightly {
            cargo.args(["-Z", "build-std=core"]);
        }
        let status = cargo.status().map_err(|error| format!("Cannot run {cargo:?}: {error}."))?;
        if !status.success() {
            return Err("The kernel programs do not build.".into());
        }
        Ok(directory.join(TARGET).join("release/leak-ebpf"))
    }

    /// What the compiler is told; `--btf` keeps the type information that maps and logs need.
    fn flags(&self, workspace: &Path) -> Vec<String> {
        let mut flags = vec![
            format!("-Clinker={}", self.linker.display()),
            "-Cdebuginfo=2".into(),
            "-Clink-arg=--btf".into(),
        ];
        flags.extend(remapped(workspace));
        flags
    }

    /// Whether a trial program links: a linker made for an older LLVM refuses newer bitcode.
    fn links(&self, scratch: &Path) -> bool {
        if self.compiler == Compiler::Nightly {
            // Without a ready `core` a trial costs a full build: the build itself will tell.
            return true;
        }
        let source = scratch.join(format!("bpf-trial-{}.rs", std::process::id()));
        let bitcode = source.with_extension("bc");
        let object = source.with_extension("o");
        // Not as one program: linking all of `core` takes seconds.
        let compile = || {
            fs::create_dir_all(scratch)?;
            fs::write(&source, TRIAL)?;
            Command::new(SYSTEM_RUSTC)
                .args(["--crate-type=lib", "--crate-name=trial", "--emit=llvm-bc", "--target"])
                .args([TARGET, "-Cdebuginfo=2", "-o"])
                .args([&bitcode, &source])
                .env("RUSTC_BOOTSTRAP", "1")
                .stderr(Stdio::null())
                .status()
        };
        let link = || {
            Command::new(&self.linker)
                .args(["--target", TARGET, "--btf", "--export", "trial", "--output"])
                .args([&object, &bitcode])
                .stderr(Stdio::null())
                .status()
        };
        let works = succeeds(compile()) && succeeds(link());
        for file in [source, bitcode, object] {
            // Nothing is left to remove where the trial ended early.
            let _ = fs::remove_file(file);
        }
        works
    }
}

impl Compiler {
    /// The compilers that this machine has, best first.
    #[must_use]
    pub fn present() -> Vec<Self> {
        let mut found = Vec::new();
        if Path::new(SYSTEM_RUSTC).exists() && Path::new(SYSTEM_TARGETS).join(TARGET).exists() {
            found.push(Self::System);
        }
        if nightly_has_source() {
            found.push(Self::Nightly);
        }
        found
    }

    /// A cargo that uses this compiler and nothing of the cargo that may be running us.
    fn cargo(self) -> Command {
        let mut command = match self {
            Self::System => {
                let mut command =
                    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
                command.env_remove("RUSTUP_TOOLCHAIN");
                command
            }
            Self::Nightly => {
                let mut command = Command::new("rustup");
                command.args(["run", "nightly", "cargo"]);
                command
            }
        };
        for name in OUTER {
            command.env_remove(name);
        }
        if self == Self::System {
            // The distribution's compiler is a stable one; the target's intrinsics are not.
            command.env("RUSTC", SYSTEM_RUSTC).env("RUSTC_BOOTSTRAP", "1");
        }
        command
    }
}

/// Whether a program could be run and did what it was asked.
fn succeeds(ended: io::Result<ExitStatus>) -> bool {
    ended.is_ok_and(|status| status.success())
}

/// Every `bpf-linker` in reach; the checkout's own first, because it was installed for a reason.
fn linkers(target: &Path) -> Vec<PathBuf> {
    let mut directories = vec![target.join("tools/bin")];
    directories.extend(env::var_os("PATH").iter().flat_map(env::split_paths));
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    directories.extend(cargo_home.map(|home| home.join("bin")));
    let mut found: Vec<PathBuf> = Vec::new();
    for path in directories.into_iter().map(|directory| directory.join("bpf-linker")) {
        if !found.contains(&path) && File::open(&path).is_ok() {
            found.push(path);
        }
    }
    found
}

/// Compiler options that give the sources the same paths on every machine, so that what is built
/// is the same, too.
#[must_use]
pub fn remapped(workspace: &Path) -> Vec<String> {
    let home = || Some(PathBuf::from(env::var_os("HOME")?).join(".cargo"));
    let cargo = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home);
    let names = [(Some(workspace.to_owned()), "/pgsocktrace"), (cargo, "/cargo")];
    names
        .into_iter()
        .filter_map(|(path, name)| Some(format!("--remap-path-prefix={}={name}", path?.display())))
        .collect()
}

/// Whether rustup has a nightly with the sources that `-Z build-std` compiles.
fn nightly_has_source() -> bool {
    Command::new("rustup")
        .args(["run", "nightly", "rustc", "--print", "sysroot"])
        .stderr(Stdio::null())
        .output()
        .is_ok_and(|output| {
            output.status.success()
                && Path::new(String::from_utf8_lossy(&output.stdout).trim())
                    .join("lib/rustlib/src/rust/library/core/Cargo.toml")
                    .exists()
        })
}
