//! Prerequisites of tests on the machine that runs them.

use std::fmt;
use std::net::TcpListener;
use std::path::Path;

use support::command::succeeds;
use support::postgres;
use support::process::is_root;
use support::python;

use crate::apps;
use crate::cluster::Image;
use crate::golang::Toolchain;
use crate::runtimes::Runtime;
use crate::suite::target;

/// A prerequisite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Root, to load BPF programs and to run PostgreSQL as another user.
    Root,
    /// A C compiler, for the client programs.
    Compiler,
    /// PostgreSQL's server and `psql`.
    PostgreSql,
    /// Headers of PostgreSQL's client library.
    Libpq,
    /// An IPv6 loopback address.
    Ipv6,
    /// A kernel that lets root use io_uring.
    IoUring,
    /// Python's psycopg2.
    Psycopg2,
    /// Python's SQLAlchemy with psycopg2.
    Sqlalchemy,
    /// Go, with the drivers of the corpus's Go programs.
    GoDrivers,
    /// `ip`, to bring up a network namespace's loopback.
    Ip,
    /// `setpriv`, to drop privileges.
    Setpriv,
    /// `strip`, to remove symbols.
    Strip,
    /// A Go toolchain.
    Go,
    /// Toolchains of three Go releases or more.
    GoReleases,
    /// Another release of Python than the machine's.
    PythonReleases,
    /// A runtime with its driver.
    Runtime(Runtime),
    /// `runc`, to make containers.
    Runc,
    /// The container image of the tracer.
    Image,
    /// The `openssl` command, and Python's `ssl` module.
    Openssl,
    /// Prometheus and promtool.
    Prometheus,
    /// gdb, for backtraces to compare with.
    Gdb,
    /// g++.
    Gpp,
    /// clang, for C and C++.
    Clang,
    /// The Rust compiler and cargo.
    Rust,
}

impl Need {
    /// The prerequisites of every test.
    pub const ALWAYS: [Self; 3] = [Self::Root, Self::Compiler, Self::PostgreSql];

    /// Whether this machine meets the prerequisite.
    #[must_use]
    pub fn is_met(self) -> bool {
        match self {
            Self::Root => is_root(),
            Self::Compiler => apps::are_ready_made() || succeeds("gcc", &["--version"]),
            Self::PostgreSql => postgres::programs().is_some() && succeeds("psql", &["-V"]),
            Self::Libpq => {
                apps::are_ready_made() || Path::new("/usr/include/postgresql/libpq-fe.h").exists()
            }
            Self::Ipv6 => TcpListener::bind("[::1]:0").is_ok(),
            Self::IoUring => io_uring_works(),
            Self::Psycopg2 => succeeds("/usr/bin/python3", &["-c", "import psycopg2"]),
            Self::Sqlalchemy => {
                succeeds("/usr/bin/python3", &["-c", "import psycopg2, sqlalchemy"])
            }
            Self::GoDrivers => {
                let packages = Path::new("/usr/share/gocode/src/github.com");
                let drivers = ["lib/pq", "jackc/pgx/v4"];
                succeeds("go", &["version"])
                    && drivers.iter().all(|name| packages.join(name).is_dir())
            }
            Self::Ip => succeeds("ip", &["-V"]),
            Self::Setpriv => succeeds("setpriv", &["--version"]),
            Self::Strip => succeeds("strip", &["--version"]),
            Self::Go => !Toolchain::all(&target()).is_empty(),
            Self::GoReleases => Toolchain::all(&target()).len() >= 3,
            Self::PythonReleases => !python::unpacked(&target()).is_empty(),
            Self::Runtime(runtime) => runtime.is_there(),
            Self::Runc => succeeds("runc", &["--version"]),
            Self::Image => Image::path().exists(),
            Self::Openssl => {
                succeeds("openssl", &["version"])
                    && succeeds("/usr/bin/python3", &["-c", "import ssl"])
            }
            Self::Prometheus => {
                succeeds("prometheus", &["--version"]) && succeeds("promtool", &["--version"])
            }
            Self::Gdb => succeeds("gdb", &["-batch", "-nx", "-ex", "python import json"]),
            Self::Gpp => succeeds("g++", &["--version"]),
            Self::Clang => succeeds("clang++", &["--version"]),
            Self::Rust => succeeds("rustc", &["--version"]) && succeeds("cargo", &["--version"]),
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Root => "root",
            Self::Compiler => "gcc",
            Self::PostgreSql => "PostgreSQL's server and psql",
            Self::Libpq => "libpq's headers",
            Self::Ipv6 => "IPv6",
            Self::IoUring => "io_uring",
            Self::Psycopg2 => "python3-psycopg2",
            Self::Sqlalchemy => "python3-sqlalchemy and python3-psycopg2",
            Self::GoDrivers => "Go with lib/pq and pgx",
            Self::Ip => "ip",
            Self::Setpriv => "setpriv",
            Self::Strip => "strip",
            Self::Go => "Go",
            Self::GoReleases => "three releases of Go",
            Self::PythonReleases => "another release of Python",
            Self::Runtime(runtime) => return write!(f, "{runtime:?}"),
            Self::Runc => "runc",
            Self::Image => "the container image, `cargo xtask image`",
            Self::Openssl => "openssl, and Python with it",
            Self::Prometheus => "Prometheus",
            Self::Gdb => "gdb",
            Self::Gpp => "g++",
            Self::Clang => "clang",
            Self::Rust => "rustc and cargo",
        })
    }
}

/// Calls `io_uring_setup` with a null pointer: EFAULT means that the call is allowed, ENOSYS or
/// EPERM that it is not.
fn io_uring_works() -> bool {
    // SAFETY: the kernel rejects the null pointer; it writes nothing and creates no descriptor.
    let result =
        unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, std::ptr::null_mut::<libc::c_void>()) };
    result < 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT)
}
