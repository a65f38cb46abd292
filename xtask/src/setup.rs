//! `cargo xtask setup`: installs what is missing, and touches nothing else.

mod cluster;
mod corpus;
mod packages;
mod runtimes;

use std::{fs, path::Path, process::Command, str::FromStr, time::SystemTime};

use anyhow::{Context as _, Error, Result, bail, ensure};
use support::{
    command::{check, output, which},
    corpus::Language,
    postgres,
    toolchain::{Compiler, SYSTEM_RUSTC, Toolchain},
    workspace::{cargo, target_directory, tools_directory},
};

use self::packages::Wanted;
use crate::{golang, python};

/// The release of `bpf-linker` that is installed where none is found.
const BPF_LINKER: &str = "0.13.0";

/// What a command of this repository asks of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Building the kernel programs and the binary.
    Build,
    /// Running a throwaway PostgreSQL.
    Database,
    /// Building the demo's order service.
    Demo,
    /// Building and running the tests' client programs.
    Tests,
    /// Measuring what tracing costs, and what others cost.
    Peers,
    /// Building the container image.
    Image,
    /// Building and running Kubernetes.
    Cluster,
    /// Building Go programs by other releases than the machine's.
    GoReleases,
    /// The same by every release that the mirror has.
    EveryGoRelease,
    /// Running newer releases of Python than the machine's.
    PythonReleases,
    /// Booting virtual machines.
    Machines,
    /// Building and running the corpus's programs in one language.
    Corpus(Language),
}

/// Every need, as it is named on the command line.
const NAMES: [(&str, Need); 18] = [
    ("build", Need::Build),
    ("database", Need::Database),
    ("demo", Need::Demo),
    ("tests", Need::Tests),
    ("peers", Need::Peers),
    ("image", Need::Image),
    ("cluster", Need::Cluster),
    ("go-releases", Need::GoReleases),
    ("every-go-release", Need::EveryGoRelease),
    ("python-releases", Need::PythonReleases),
    ("machines", Need::Machines),
    ("corpus-c", Need::Corpus(Language::C)),
    ("corpus-go", Need::Corpus(Language::Go)),
    ("corpus-java", Need::Corpus(Language::Java)),
    ("corpus-node", Need::Corpus(Language::Node)),
    ("corpus-php", Need::Corpus(Language::Php)),
    ("corpus-python", Need::Corpus(Language::Python)),
    ("corpus-ruby", Need::Corpus(Language::Ruby)),
];

impl FromStr for Need {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = NAMES.iter().find(|(name, _)| *name == text).map(|(_, need)| *need);
        found.with_context(|| {
            let names = NAMES.map(|(name, _)| name);
            format!("the needs are {}", names.join(", "))
        })
    }
}

/// All needs but the cluster's, which one command alone has and few will run.
pub(crate) const EVERYTHING: &[Need] = &[
    Need::Build,
    Need::Database,
    Need::Demo,
    Need::Tests,
    Need::Image,
    Need::GoReleases,
    Need::PythonReleases,
    Need::Machines,
    Need::Corpus(Language::C),
    Need::Corpus(Language::Go),
    Need::Corpus(Language::Java),
    Need::Corpus(Language::Node),
    Need::Corpus(Language::Php),
    Need::Corpus(Language::Python),
    Need::Corpus(Language::Ruby),
];

/// Something that must be there.
struct Requirement {
    need: Need,
    present: fn() -> bool,
    /// Debian's packages that bring it.
    packages: &'static [&'static str],
    /// What to install where those packages are not to be had.
    elsewhere: &'static str,
}

impl Requirement {
    /// What it takes to have it.
    fn wanted(&self) -> Wanted<'static> {
        Wanted { packages: self.packages, elsewhere: self.elsewhere }
    }
}

/// Everything but `bpf-linker`, whose installation depends on the compiler.
const REQUIREMENTS: &[Requirement] = &[
    Requirement {
        need: Need::Build,
        present: || which("cc").is_some(),
        packages: &["gcc", "libc6-dev"],
        elsewhere: "Install a C compiler.",
    },
    Requirement {
        need: Need::Build,
        present: || !Compiler::present().is_empty(),
        packages: &["rustc-web", "libstd-rust-web-dev-bpf"],
        elsewhere: "Install rustup's nightly toolchain and its sources: `rustup toolchain install \
                    nightly --component rust-src`.",
    },
    Requirement {
        need: Need::Database,
        present: || postgres::programs().is_some(),
        packages: &["postgresql"],
        elsewhere: "Install the PostgreSQL server, and put its initdb and postgres on the PATH.",
    },
    Requirement {
        need: Need::Demo,
        present: || which("go").is_some(),
        packages: &["golang-go"],
        elsewhere: "Install Go.",
    },
    Requirement {
        need: Need::Demo,
        present: || Path::new("/usr/share/gocode/src/github.com/lib/pq").is_dir(),
        packages: &["golang-github-lib-pq-dev"],
        elsewhere: "Put the sources of the Go package github.com/lib/pq under \
                    /usr/share/gocode/src.",
    },
    Requirement {
        need: Need::Tests,
        present: || which("ip").is_some(),
        packages: &["iproute2"],
        elsewhere: "Install iproute2.",
    },
    Requirement {
        need: Need::Tests,
        present: || which("runc").is_some(),
        packages: &["runc"],
        elsewhere: "Install runc.",
    },
    Requirement {
        need: Need::Tests,
        present: || which("openssl").is_some(),
        packages: &["openssl"],
        elsewhere: "Install the openssl command.",
    },
    Requirement {
        need: Need::Tests,
        present: || which("prometheus").is_some() && which("promtool").is_some(),
        packages: &["prometheus"],
        elsewhere: "Install Prometheus and promtool.",
    },
    Requirement {
        need: Need::Tests,
        present: || which("gdb").is_some(),
        packages: &["gdb"],
        elsewhere: "Install gdb, with Python.",
    },
    Requirement {
        need: Need::Tests,
        present: || which("g++").is_some(),
        packages: &["g++"],
        elsewhere: "Install g++.",
    },
    Requirement {
        need: Need::Tests,
        present: || which("clang++").is_some(),
        packages: &["clang"],
        elsewhere: "Install clang.",
    },
    Requirement {
        need: Need::Tests,
        present: || Path::new("/usr/lib/debug/.build-id").is_dir(),
        packages: &["libc6-dbg"],
        elsewhere: "Install the debug files of the C library.",
    },
    Requirement {
        need: Need::Machines,
        present: || which("qemu-system-x86_64").is_some(),
        packages: &["qemu-system-x86"],
        elsewhere: "Install QEMU for x86-64.",
    },
    Requirement {
        need: Need::Machines,
        present: || ["xz", "setpriv", "prlimit"].iter().all(|tool| which(tool).is_some()),
        packages: &["xz-utils", "util-linux"],
        elsewhere: "Install xz and util-linux.",
    },
    Requirement {
        need: Need::Peers,
        present: || which("gcc").is_some(),
        packages: &["gcc", "libc6-dev"],
        elsewhere: "Install gcc.",
    },
    Requirement {
        need: Need::Peers,
        present: || ["bpftrace", "tcptop"].iter().all(|program| which(program).is_some()),
        packages: &["bpftrace", "libbpf-tools"],
        elsewhere: "Install bpftrace and libbpf-tools.",
    },
];

/// The header of libpq, where Debian puts it.
const LIBPQ_HEADER: &str = "/usr/include/postgresql/libpq-fe.h";

/// Makes sure that what `needs` name is there.
pub(crate) fn run(workspace: &Path, needs: &[Need]) -> Result<()> {
    let lacking = || -> Vec<&Requirement> {
        REQUIREMENTS
            .iter()
            .chain(runtimes::REQUIREMENTS)
            .chain(corpus::REQUIREMENTS)
            .chain(cluster::REQUIREMENTS)
            .filter(|requirement| needs.contains(&requirement.need) && !(requirement.present)())
            .collect()
    };
    let missing = lacking();
    if !missing.is_empty() {
        let wanted: Vec<Wanted<'_>> =
            missing.iter().map(|requirement| requirement.wanted()).collect();
        packages::install(&target_directory(workspace), &wanted)?;
        let still: Vec<&str> = lacking().iter().map(|requirement| requirement.elsewhere).collect();
        ensure!(
            still.is_empty(),
            "The packages did not bring all they should. {}",
            still.join(" ")
        );
    }
    if needs.contains(&Need::Build) {
        linker(workspace)?;
    }
    if needs.contains(&Need::GoReleases) {
        golang::set_up(&target_directory(workspace))?;
    }
    if needs.contains(&Need::EveryGoRelease) {
        golang::fetch_all(&target_directory(workspace))?;
    }
    if needs.contains(&Need::PythonReleases) {
        python::set_up(&target_directory(workspace))?;
    }
    if needs.contains(&Need::Corpus(Language::Node)) {
        runtimes::node_pg(workspace)?;
    }
    Ok(())
}

/// Makes sure that there is a `bpf-linker` that fits the compiler.
fn linker(workspace: &Path) -> Result<()> {
    let target = target_directory(workspace);
    if Toolchain::find(&target).is_ok() {
        return Ok(());
    }
    let advice = "Install bpf-linker for the LLVM of the compiler: `cargo install bpf-linker`.";
    let version = output(Command::new(SYSTEM_RUSTC).arg("-vV")).context(advice)?;
    let llvm = llvm(&version).context(advice)?;
    let headers = format!("llvm-{llvm}-dev");
    let prefix = format!("/usr/lib/llvm-{llvm}");
    let mut packages = Vec::new();
    if !Path::new(&prefix).join("include/llvm-c").is_dir() {
        packages.push(headers.as_str());
    }
    if !Path::new("/usr/include/zstd.h").exists() {
        packages.push("libzstd-dev");
    }
    if !packages.is_empty() {
        packages::install(&target, &[Wanted { packages: &packages, elsewhere: advice }])?;
    }
    let tools = tools_directory(&target)?;
    println!("setup: installing bpf-linker {BPF_LINKER} into {}", tools.display());
    check(
        cargo(workspace)
            .args(["install", "bpf-linker", "--locked", "--force", "--version", BPF_LINKER])
            .args(["--no-default-features", "--features", &format!("llvm-{llvm}"), "--root"])
            .arg(&tools)
            // Built where cargo cleans up after itself.
            .env_remove("CARGO_TARGET_DIR")
            .env("LLVM_PREFIX", prefix),
    )?;
    // Seen by the build script of leak-user, which may have run without a toolchain before.
    fs::write(tools.join("installed"), format!("{:?}\n", SystemTime::now()))?;
    Toolchain::find(&target).map_or_else(|missing| bail!("{missing}"), |_| Ok(()))
}

/// The major version of the compiler's LLVM, from what `rustc -vV` prints.
fn llvm(version: &str) -> Option<u32> {
    let line = version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    line.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_of_the_corpus_are_named_alike() {
        use Language::{C, Go, Java, Node, Php, Python, Ruby};
        for language in [C, Go, Java, Node, Php, Python, Ruby] {
            let need: Need = language.need().unwrap().parse().unwrap();
            assert_eq!(need, Need::Corpus(language));
        }
        assert!("corpus".parse::<Need>().is_err());
    }

    #[test]
    fn reads_the_major_version_of_llvm() {
        assert_eq!(llvm("rustc 1.96.0\nrelease: 1.96.0\nLLVM version: 22.1.8\n"), Some(22));
        assert_eq!(llvm("rustc 1.96.0\n"), None);
        assert_eq!(llvm("LLVM version: new\n"), None);
    }
}
