//! The kernels for virtual machines, from `tests/kernels.toml`.

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use support::debian::{Package, Suite};

/// The list's path in the workspace.
const FILE: &str = "tests/kernels.toml";

/// The list's first lines.
const PREFACE: &str = "\
# The kernels that `cargo xtask vm` boots, oldest first. The packages come from the machine's own Debian
# mirror. `cargo xtask vm update` takes the newest that match `packages` and writes this file anew.
#
# flavours: the kinds of hooks that must work there (a: BTF tracepoints, b: fentry and fexit, c: kprobes);
#           none: the kernel must be refused in plain words.

";

/// All kernels.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kernels {
    pub(super) kernel: Vec<Kernel>,
}

/// One kernel.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kernel {
    /// The kernel's name in the names of runs.
    pub(super) name: String,
    /// The Debian suite that has the kernel.
    pub(super) suite: String,
    /// The flavours of hooks that must work on the kernel.
    pub(super) flavours: Vec<String>,
    /// The packages of the kernel and its modules; `*` matches anything.
    packages: Vec<String>,
    /// The pinned versions of these packages.
    pins: Vec<Pin>,
}

/// A package of one version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pin {
    package: String,
    version: String,
    sha256: String,
}

/// An unpacked kernel.
#[derive(Clone, Debug)]
pub(super) struct Unpacked {
    /// The bootable image.
    pub(super) kernel: PathBuf,
    /// The kernel's release, as `uname -r` prints it.
    pub(super) release: String,
    /// Debian's version of the package.
    pub(super) version: String,
    /// The modules that tests need, in load order.
    pub(super) modules: Vec<PathBuf>,
}

/// The modules for listing sockets, in load order.
const MODULES: [&str; 2] = ["inet_diag", "tcp_diag"];

impl Kernels {
    /// Reads the list.
    pub(super) fn read(workspace: &Path) -> Result<Self> {
        let text = fs::read_to_string(workspace.join(FILE)).context(FILE)?;
        toml::from_str(&text).context(FILE)
    }

    /// Writes the list with the newest versions.
    pub(super) fn update(mut self, workspace: &Path, target: &Path) -> Result<()> {
        for kernel in &mut self.kernel {
            let suite = Suite::new(target, &kernel.suite);
            suite.update()?;
            let pins = kernel.newest(&suite)?;
            if pins == kernel.pins {
                println!("vm: {} is up to date: {}", kernel.name, pins[0].version);
            } else {
                println!("vm: {} is now {}", kernel.name, pins[0].version);
            }
            kernel.pins = pins;
        }
        Ok(fs::write(workspace.join(FILE), format!("{PREFACE}{}", toml::to_string(&self)?))?)
    }
}

impl Kernel {
    /// Downloads missing packages and unpacks them. If Debian no longer has the pinned version,
    /// takes a newer one and prints a note.
    pub(super) fn unpack(&self, target: &Path) -> Result<Unpacked> {
        let suite = Suite::new(target, &self.suite);
        let mut pins = self.pins.clone();
        if !suite.has_unpacked(&names(&pins)) {
            suite.update()?;
            let mut gone = false;
            for pin in &pins {
                gone |= !suite.versions(&pin.package)?.iter().any(|package| pin.is(package));
            }
            if gone {
                pins = self.newest(&suite)?;
                println!(
                    "vm: {} no longer has {} of {}; taking {} instead (`cargo xtask vm update`)",
                    self.suite, self.pins[0].version, self.pins[0].package, pins[0].version
                );
            }
            suite.unpack(&names(&pins))?;
        }
        Self::find(&suite.root(), &pins[0]).context(self.name.clone())
    }

    /// The newest version of each package.
    fn newest(&self, suite: &Suite) -> Result<Vec<Pin>> {
        ensure!(!self.packages.is_empty(), "{} has no packages.", self.name);
        self.packages.iter().map(|pattern| newest(suite, pattern)).collect()
    }

    fn find(root: &Path, pin: &Pin) -> Result<Unpacked> {
        let release = pin
            .package
            .trim_start_matches("linux-image-")
            .trim_start_matches("linux-binary-unsigned-")
            .trim_end_matches("-unsigned");
        let first = |places: [String; 2]| {
            let places = places.map(|place| root.join(place));
            places.iter().find(|place| place.exists()).cloned().context("the package lacks a file")
        };
        let kernel = first([
            format!("boot/vmlinuz-{release}"),
            format!("usr/lib/modules/{release}/vmlinuz.unsigned"),
        ])?;
        let modules =
            first([format!("lib/modules/{release}"), format!("usr/lib/modules/{release}")])?;
        let module = |name: &str| {
            let plain = modules.join(format!("kernel/net/ipv4/{name}.ko"));
            let packed = plain.with_extension("ko.xz");
            if packed.exists() { packed } else { plain }
        };
        let modules = MODULES.iter().copied().map(module).collect();
        Ok(Unpacked { kernel, release: release.into(), version: pin.version.clone(), modules })
    }
}

impl Pin {
    fn is(&self, package: &Package) -> bool {
        self.version == package.version && self.sha256 == package.sha256
    }
}

/// `NAME=VERSION` of each package, for apt-get.
fn names(pins: &[Pin]) -> Vec<String> {
    pins.iter().map(|pin| format!("{}={}", pin.package, pin.version)).collect()
}

/// The newest package whose name matches `pattern`.
fn newest(suite: &Suite, pattern: &str) -> Result<Pin> {
    let (prefix, suffix) = pattern.split_once('*').context("a package's pattern lacks its *")?;
    let mut newest: Option<Pin> = None;
    for name in suite.names(prefix)? {
        if !name.strip_prefix(prefix).is_some_and(|rest| rest.ends_with(suffix)) {
            continue;
        }
        for Package { version, sha256 } in suite.versions(&name)? {
            let is_newer = match &newest {
                Some(known) => compare(&version, &known.version)? == Ordering::Greater,
                None => true,
            };
            if is_newer {
                newest = Some(Pin { package: name.clone(), version, sha256 });
            }
        }
    }
    newest.with_context(|| format!("{suite} has no package like {pattern}"))
}

/// Compares two versions with Debian's rules.
fn compare(left: &str, right: &str) -> Result<Ordering> {
    if left == right {
        return Ok(Ordering::Equal);
    }
    let greater = Command::new("dpkg").args(["--compare-versions", left, "gt", right]).status()?;
    Ok(if greater.success() { Ordering::Greater } else { Ordering::Less })
}

/// The modules' decompressed contents, by file name; names sort in load order.
pub(super) fn modules(unpacked: &Unpacked) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut modules = BTreeMap::new();
    for (number, path) in unpacked.modules.iter().enumerate() {
        let bytes = if path.extension().is_some_and(|extension| extension == "xz") {
            let command = Command::new("xz").arg("-dc").arg(path).output()?;
            ensure!(command.status.success(), "xz cannot read {}", path.display());
            command.stdout
        } else {
            fs::read(path).with_context(|| path.display().to_string())?
        };
        modules.insert(format!("{number}-{}", MODULES[number]), bytes);
    }
    Ok(modules)
}
