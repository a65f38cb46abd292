//! The first process of a test machine: mounts file systems, runs the steps of a plan, and reboots,
//! which ends the machine.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::ptr;

use anyhow::{Context, Result, ensure};
use harness::mounts::mount;
use harness::namespace::raise_loopback;
use harness::vm::protocol::{Cgroups, Line, MODULES, PLAN, PLANS, Plan, RESULTS, Step};

/// File systems with their types and options, in mount order.
const MOUNTS: &[(&str, &str, &str)] = &[
    ("/proc", "proc", ""),
    ("/sys", "sysfs", ""),
    ("/dev", "devtmpfs", ""),
    ("/dev/pts", "devpts", ""),
    ("/dev/shm", "tmpfs", "mode=1777"),
    ("/tmp", "tmpfs", "mode=1777"),
    ("/run", "tmpfs", "mode=755"),
    ("/sys/fs/bpf", "bpf", ""),
    ("/sys/kernel/tracing", "tracefs", ""),
    ("/sys/kernel/security", "securityfs", ""),
];

fn main() -> Result<()> {
    // SAFETY: getpid has no preconditions. On any machine but a test machine, this program would
    // reboot it.
    ensure!(unsafe { libc::getpid() } == 1, "this is the first process of test machines");
    if let Err(error) = work() {
        eprintln!("{error:#}");
        // If results cannot be written, the kernel's messages must do.
        let _ = say(&Line::Trouble(format!("{error:#}")));
    }
    // SAFETY: the call does not return, and this machine has no data to keep.
    unsafe { libc::reboot(libc::RB_AUTOBOOT) };
    Err(io::Error::last_os_error()).context("reboot")
}

fn work() -> Result<()> {
    for (target, kind, options) in MOUNTS {
        mount(target, kind, options)?;
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
    load_modules(&Path::new(MODULES).join(&release))?;
    let plan = read_plan()?;
    mount_cgroups(plan.cgroups)?;
    raise_loopback()?;
    say(&Line::Up(release))?;
    for step in plan.steps {
        say(&Line::Begin(step.name.clone()))?;
        let status = run(&step).with_context(|| format!("step {}", step.name))?;
        say(&Line::End(step.name, status))?;
    }
    say(&Line::Done)
}

fn read_plan() -> Result<Plan> {
    let line = fs::read_to_string("/proc/cmdline")?;
    let name = line
        .split_whitespace()
        .find_map(|word| word.strip_prefix(PLAN)?.strip_prefix('='))
        .with_context(|| format!("the kernel's command line has no {PLAN}"))?;
    let text = fs::read(format!("{PLANS}/{name}.json")).with_context(|| format!("plan {name}"))?;
    Ok(serde_json::from_slice(&text)?)
}

/// Runs a step to its end; returns its exit status unless a signal killed it.
fn run(step: &Step) -> Result<Option<i32>> {
    let (program, arguments) = step.command.split_first().context("nothing to run")?;
    let output = results()?;
    let mut child = Command::new(program)
        .args(arguments)
        .envs(&step.environment)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .with_context(|| program.clone())?;
    let status = child.wait()?;
    reap();
    Ok(status.code())
}

/// Waits for orphaned processes that have ended.
fn reap() {
    // SAFETY: a null pointer means that no status is written.
    while unsafe { libc::waitpid(-1, ptr::null_mut(), libc::WNOHANG) } > 0 {}
}

/// Writes a line of results and flushes it to the device.
fn say(line: &Line) -> Result<()> {
    let mut results = results()?;
    writeln!(results, "\n{}", line.text())?;
    // SAFETY: the descriptor is open.
    unsafe { libc::tcdrain(results.as_raw_fd()) };
    Ok(())
}

fn results() -> Result<File> {
    OpenOptions::new().append(true).open(RESULTS).context(RESULTS)
}

fn mount_cgroups(cgroups: Cgroups) -> Result<()> {
    const ROOT: &str = "/sys/fs/cgroup";
    if cgroups == Cgroups::Unified {
        return mount(ROOT, "cgroup2", "");
    }
    mount(ROOT, "tmpfs", "mode=755")?;
    mount(&format!("{ROOT}/systemd"), "cgroup", "none,name=systemd")?;
    mount(&format!("{ROOT}/pids"), "cgroup", "pids")?;
    if cgroups == Cgroups::Hybrid {
        mount(&format!("{ROOT}/unified"), "cgroup2", "")?;
    }
    Ok(())
}

/// Loads all modules in a directory, in the order of their names.
fn load_modules(directory: &Path) -> Result<()> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .with_context(|| format!("{} is missing", directory.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.sort_unstable();
    for path in files {
        let file = File::open(&path)?;
        let options = c"";
        // SAFETY: the descriptor is open, and the options are a terminated string.
        let result =
            unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), options.as_ptr(), 0) };
        let name = path.file_name().unwrap_or_default().as_bytes();
        let name = String::from_utf8_lossy(name);
        ensure!(result == 0, "loading {name}: {}", io::Error::last_os_error());
    }
    Ok(())
}
