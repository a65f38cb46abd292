//! Debian packages of other suites than the machine's, most of them unpacked below the build
//! directory.
//!
//! apt fetches and verifies them, with lists, archives and sources of its own for each suite: the
//! machine's stay as they are. Unpacking installs nothing and needs no root.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::command::{output, which};

/// The keys of Debian's suites. Newer suites are signed with the older keys as well, so that those
/// which a machine has suffice.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The user that apt would become must not be able to write below the build directory.
const AS_ROOT: &str = "APT::Sandbox::User=root";

/// One version of a package, as the suite's signed lists tell of it.
pub struct Package {
    /// Debian's version of it.
    pub version: String,
    /// Of its archive; apt refuses any other.
    pub sha256: String,
}

/// A suite of the machine's Debian mirror.
pub struct Suite {
    name: String,
    directory: PathBuf,
}

impl Suite {
    /// The suite of this name, such as `trixie-backports`, with its directory below `target`.
    pub fn new(target: &Path, name: &str) -> Self {
        Self { name: name.to_owned(), directory: target.join("debian").join(name) }
    }

    /// What was made of newer packages for the machine's release.
    pub fn backports(target: &Path) -> Result<Self> {
        Ok(Self::new(target, &format!("{}-backports", release()?)))
    }

    /// Whether other suites can be asked for at all.
    pub fn are_to_be_had() -> bool {
        ["apt-get", "dpkg-deb"].iter().all(|tool| which(tool).is_some())
            && Path::new(KEYS).exists()
            && mirror().is_ok()
    }

    /// Where packages are unpacked.
    pub fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    /// A program that was unpacked, run with the suite's own loader and C library.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let root = self.root();
        let mut command = Command::new(root.join("usr/lib64/ld-linux-x86-64.so.2"));
        command.arg("--library-path").arg(root.join("usr/lib/x86_64-linux-gnu"));
        command.arg(root.join("usr/bin").join(program));
        command
    }

    /// Asks the mirror which packages there are.
    pub fn update(&self) -> Result<()> {
        self.update_kind("deb")
    }

    /// The same for binary packages, `deb`, or sources, `deb-src`.
    fn update_kind(&self, kind: &str) -> Result<()> {
        for place in ["state/lists/partial", "cache/archives/partial", "unpacked", "root"] {
            fs::create_dir_all(self.directory.join(place))?;
        }
        self.write_sources(kind)?;
        println!("setup: asking for the packages of {}", self.name);
        output(self.apt("apt-get").args(["-q", "update", "--error-on=any"])).map(drop)
    }

    fn write_sources(&self, kind: &str) -> Result<()> {
        let source = format!("{kind} [signed-by={KEYS}] {} {} main\n", mirror()?, self.name);
        Ok(fs::write(self.directory.join("sources.list"), source)?)
    }

    /// The options with which apt has this suite beside the machine's own, and prefers it. The
    /// machine's lists and sources stay as they are.
    pub fn beside(&self) -> Result<Vec<String>> {
        let (lists, archives) = (self.directory.join("lists"), self.directory.join("archives"));
        for place in [&lists, &archives] {
            fs::create_dir_all(place.join("partial"))?;
        }
        self.write_sources("deb")?;
        let place = |option: &str, path: &Path| format!("{option}={}", path.display());
        Ok(vec![
            place("Dir::Etc::SourceList", &self.directory.join("sources.list")),
            place("Dir::State::lists", &lists),
            place("Dir::Cache::archives", &archives),
            AS_ROOT.to_owned(),
            format!("APT::Default-Release={}", self.name),
        ])
    }

    /// Fetches a package's sources and unpacks them, patched, into a directory that does not exist
    /// yet.
    pub fn unpack_source(&self, package: &str, to: &Path) -> Result<()> {
        self.update_kind("deb-src")?;
        println!("setup: fetching the sources of {package}");
        let archives = tempfile::tempdir_in(&self.directory)?;
        let mut fetch = self.apt("apt-get");
        fetch.args(["-q", "source", "--download-only", package]).current_dir(&archives);
        output(&mut fetch)?;
        let is_description = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "dsc");
        let files: Vec<PathBuf> =
            fs::read_dir(&archives)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        let description = files.iter().find(|path| is_description(path));
        let description = description.context("apt-get fetched no sources.")?;
        // apt has verified them.
        output(Command::new("dpkg-source").args(["--no-check", "-x"]).arg(description).arg(to))
            .map(drop)
    }

    /// The packages whose names begin like this, once [`Self::update`] has asked.
    pub fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let names = output(self.apt("apt-cache").args(["pkgnames", prefix]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// The versions of a package that there are, once [`Self::update`] has asked.
    pub fn versions(&self, package: &str) -> Result<Vec<Package>> {
        // It fails when there is none.
        let text = output(self.apt("apt-cache").args(["show", package])).unwrap_or_default();
        let read = |paragraph: &str| {
            let field = |name| paragraph.lines().find_map(|line| line.strip_prefix(name));
            Some(Package {
                version: field("Version: ")?.to_owned(),
                sha256: field("SHA256: ")?.to_owned(),
            })
        };
        Ok(text.split("\n\n").filter_map(read).collect())
    }

    /// Whether [`Self::unpack`] has nothing left to do.
    pub fn has_unpacked(&self, packages: &[impl AsRef<str>]) -> bool {
        let mark = |package: &str| self.directory.join("unpacked").join(package);
        packages.iter().all(|package| mark(package.as_ref()).exists())
    }

    /// Fetches and unpacks packages, given as `NAME` or `NAME=VERSION`, without what they depend
    /// on; those that are unpacked already stay.
    pub fn unpack(&self, packages: &[impl AsRef<str>]) -> Result<()> {
        let mark = |package: &str| self.directory.join("unpacked").join(package);
        let wanted: Vec<&str> =
            packages.iter().map(AsRef::as_ref).filter(|package| !mark(package).exists()).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        println!("setup: fetching {} of {}", wanted.join(" "), self.name);
        let archives = tempfile::tempdir_in(&self.directory)?;
        output(self.apt("apt-get").args(["-q", "download"]).args(&wanted).current_dir(&archives))?;
        let mut unpacked = 0;
        for archive in fs::read_dir(&archives)? {
            let archive = archive?.path();
            output(Command::new("dpkg-deb").arg("-x").args([&archive, &self.root()]))?;
            unpacked += 1;
        }
        ensure!(unpacked == wanted.len(), "apt-get fetched {unpacked} of {wanted:?}.");
        wanted.iter().try_for_each(|package| Ok(fs::write(mark(package), "")?))
    }

    /// One of apt's programs, told to use this suite's directory alone.
    fn apt(&self, program: &str) -> Command {
        let mut apt = Command::new(program);
        let directories = [
            ("Dir::State", "state"),
            ("Dir::Cache", "cache"),
            ("Dir::Etc::SourceList", "sources.list"),
        ];
        for (option, place) in directories {
            apt.arg("-o").arg(format!("{option}={}", self.directory.join(place).display()));
        }
        let settings = [
            "Dir::State::status=/dev/null",
            "Dir::Etc::SourceParts=/dev/null",
            "Dir::Etc::Preferences=/dev/null",
            "Dir::Etc::PreferencesParts=/dev/null",
            AS_ROOT,
            "Acquire::Languages=none",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
        ];
        for setting in settings {
            apt.args(["-o", setting]);
        }
        apt.env("LC_ALL", "C").stdin(Stdio::null());
        apt
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// The mirror that the machine gets its own release from.
fn mirror() -> Result<String> {
    let release = release()?;
    let format = "$(CREATED_BY) $(RELEASE) $(COMPONENT) $(REPO_URI)";
    let targets = output(Command::new("apt-get").args(["indextargets", "--format", format]))?;
    let wanted = format!("Packages {release} main ");
    let mirror = targets.lines().find_map(|line| line.strip_prefix(&wanted));
    Ok(mirror.with_context(|| format!("apt's sources do not have {release} main."))?.to_owned())
}

/// The name of the machine's release.
fn release() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("Which system is this?")?;
    Ok(codename(&text).context("The system's release has no name.")?.to_owned())
}

/// The release's name in a file like /etc/os-release; `None` when the system is not Debian.
fn codename(text: &str) -> Option<&str> {
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
        Some(value.trim_matches('"'))
    };
    (field("ID")? == "debian").then(|| field("VERSION_CODENAME")).flatten()
}

#[cfg(test)]
mod tests {
    use super::codename;

    #[test]
    fn reads_the_name_of_debian_releases_alone() {
        let text = "NAME=\"Debian GNU/Linux\"\nVERSION_CODENAME=bookworm\nID=debian\n";
        assert_eq!(codename(text), Some("bookworm"));
        assert_eq!(codename("ID=ubuntu\nVERSION_CODENAME=noble\n"), None);
        assert_eq!(codename("ID=debian\n"), None);
        assert_eq!(codename(""), None);
    }
}
