//! Complete stacks of programs in other namespaces and file systems, and of programs that were
//! deleted, replaced or have exited before their stacks are resolved.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use harness::container::confine;
use harness::{
    Container, FakeServer, Manner, Namespace, Need, Program, Report, Running, Shop, Suite, Test,
    test,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("c_in_a_container", |suite| in_a_container(suite, false)).needs(Need::Runc),
        test("c_in_a_container_with_users", |suite| in_a_container(suite, true)).needs(Need::Runc),
        test("stripped_go_in_a_container", stripped_go_in_a_container)
            .needs(Need::Runc)
            .needs(Need::Go),
        test("below_another_root", below_another_root),
        test("from_memory", from_memory),
        test("deleted_before_tracing", deleted_before_tracing),
        test("upgraded_before_tracing", upgraded_before_tracing),
        test("upgraded_while_traced", upgraded_while_traced).needs(Need::Libpq),
        test("gone_at_once", gone_at_once),
        test("executed_another_program", executed_another_program),
    ]
}

/// A server in a new network namespace.
fn namespace() -> Result<(Namespace, FakeServer)> {
    Namespace::create(|| FakeServer::start(Manner::Postgres))
}

/// Checks both stacks of the only connection: complete, and from the client program.
fn check_c(report: &Report) -> Result<()> {
    let connection = report.only_connection()?;
    let opened = report.stack(connection.opened_by.as_ref())?;
    let used = report.stack(connection.last_used_by.as_ref())?;
    for (stack, function) in [(opened, "do_connect"), (used, "do_query")] {
        let frame = stack.frame(function)?;
        ensure!(frame.file.as_deref().is_some_and(|file| file.ends_with("client.c")), "{frame:?}");
        ensure!(frame.line.is_some(), "{frame:?}");
        ensure!(stack.quality == "complete", "{:?} {:?}", stack.quality_reason, stack.functions());
        ensure!(stack.quality_reason.is_none());
    }
    Ok(())
}

/// Lets the client open and use a connection, and waits until the connection is silent.
fn trace_client(suite: &Suite, pid: u32, client: &mut Program, port: u16) -> Result<Report> {
    let trace = suite.trace_port(port).pid(pid).start()?;
    client.ok(&format!("connect 4 {port}"))?;
    client.ok("startup")?;
    client.ok("query SELECT 1")?;
    trace.finding(|finding| finding.is_silence())?;
    trace.stop()
}

fn in_a_container(suite: &Suite, users: bool) -> Result<()> {
    let (namespace, server) = namespace()?;
    let mut container = Container::start(suite, &suite.static_client_path()?, &namespace, users)?;
    let pid = container.pid();
    let report = trace_client(suite, pid, &mut container, server.port())?;
    check_c(&report)?;
    let process = report.process(pid)?;
    assert_eq!(process.container_pid, Some(1), "PID 1 of its PID namespace");
    assert_eq!(process.container_id.as_deref(), Some(container.id()));
    let connection = report.only_connection()?;
    assert_eq!((connection.pid, &connection.held_by), (Some(pid), &vec![pid]));
    let stack = report.stack(connection.opened_by.as_ref())?;
    assert_eq!(stack.frame("main")?.module.as_deref(), Some("/srv/program"));
    container.delete()
}

fn stripped_go_in_a_container(suite: &Suite) -> Result<()> {
    let (namespace, server) = namespace()?;
    let mut container = Container::start(suite, &suite.go_client_path()?, &namespace, false)?;
    let pid = container.pid();
    let trace = suite.trace_port(server.port()).pid(pid).start()?;
    container.ok(&format!("connect {}", server.port()))?;
    container.ok("deep 3")?;
    trace.finding(|finding| finding.is_silence())?;
    let report = trace.stop()?;
    let connection = report.only_connection()?;
    let opened = report.stack(connection.opened_by.as_ref())?;
    let used = report.stack(connection.last_used_by.as_ref())?;
    for (stack, function) in [(opened, "main.openSession"), (used, "main.queryAtDepth")] {
        assert_eq!((stack.quality.as_str(), stack.language.as_str()), ("complete", "go"));
        let frame = stack.frame(function)?;
        assert!(frame.file.as_deref().is_some_and(|file| file.ends_with("client.go")), "{frame:?}");
    }
    assert_eq!(report.process(pid)?.container_pid, Some(1));
    container.delete()
}

/// A chroot(2) into a bind mount, in another mount namespace: the path in /proc does not lead to
/// the program.
fn below_another_root(suite: &Suite) -> Result<()> {
    let (root, mounted) = (suite.directory()?, suite.directory()?);
    fs::copy(suite.static_client_path()?, root.join("client"))?;
    let mut command = Command::new("/client");
    confine(&mut command, &root, &mounted)?;
    let mut client = Program::start(&mut command)?;
    let pid = client.pid();
    let report = trace_client(suite, pid, &mut client, suite.port())?;
    check_c(&report)?;
    assert_eq!(report.process(pid)?.container_pid, None);
    assert_eq!(report.process(pid)?.container_id, None);
    Ok(())
}

/// A program in no file system: created by memfd_create(2), then executed.
fn from_memory(suite: &Suite) -> Result<()> {
    // SAFETY: the name is a zero-terminated literal.
    let descriptor = unsafe { libc::memfd_create(c"client".as_ptr(), libc::MFD_CLOEXEC) };
    ensure!(descriptor >= 0, "memfd_create: {}", std::io::Error::last_os_error());
    // SAFETY: the kernel has just returned this descriptor, and nothing else owns it.
    let mut file = File::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
    file.write_all(&fs::read(suite.client_path()?)?)?;
    // Reopened read-only, because execve(2) fails with ETXTBSY on a file that is open for writing.
    let program = File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    drop(file);
    let mut client =
        Program::start(&mut Command::new(format!("/proc/self/fd/{}", program.as_raw_fd())))?;
    let pid = client.pid();
    check_c(&trace_client(suite, pid, &mut client, suite.port())?)
}

fn deleted_before_tracing(suite: &Suite) -> Result<()> {
    let path = suite.directory()?.join("client");
    let mut client = started_copy(suite, &path)?;
    fs::remove_file(&path)?;
    let pid = client.pid();
    check_c(&trace_client(suite, pid, &mut client, suite.port())?)
}

/// An upgrade as package managers do it: a rename puts the new file in place of the old one.
fn upgraded_before_tracing(suite: &Suite) -> Result<()> {
    let path = suite.directory()?.join("client");
    let mut client = started_copy(suite, &path)?;
    // The kernel refuses to write into a running program's file.
    let busy = fs::copy("/bin/true", &path).map_err(|error| error.kind());
    assert_eq!(busy, Err(std::io::ErrorKind::ExecutableFileBusy));
    let upgrade = path.with_extension("new");
    fs::copy("/bin/true", &upgrade)?;
    fs::rename(&upgrade, &path)?;
    let pid = client.pid();
    check_c(&trace_client(suite, pid, &mut client, suite.port())?)
}

fn started_copy(suite: &Suite, path: &Path) -> Result<Program> {
    fs::copy(suite.client_path()?, path)?;
    Program::start(&mut Command::new(path))
}

fn upgraded_while_traced(suite: &Suite) -> Result<()> {
    let path = suite.directory()?.join("shop");
    let mut shop = Shop::start_copy(suite, &path)?;
    let trace = suite.trace().pid(shop.pid()).start()?;
    let upgrade = path.with_extension("new");
    fs::copy(suite.client_path()?, &upgrade)?;
    fs::rename(&upgrade, &path)?;
    shop.ok("transaction")?;
    trace.finding(|finding| {
        finding.reason == "idle_in_transaction" && finding.function() == Some("refund_order")
    })?;
    trace.stop()?;
    Ok(())
}

/// Each process connects, makes one request, and exits at once. On a busy machine, a process may
/// exit before the tracer looks at it: that is rare, and reported.
fn gone_at_once(suite: &Suite) -> Result<()> {
    const RUNS: u64 = 20;
    let name = "gone-at-once";
    let path = suite.directory()?.join(name);
    fs::copy(suite.client_path()?, &path)?;
    let trace = suite.trace().option("--comm", name).start()?;
    for _ in 0..RUNS {
        let mut client = Running::start(&mut Command::new(&path))?;
        client.say(&format!("connect 4 {}\nstartup\nquery SELECT 1\nexit 0", suite.port()))?;
        client.wait()?;
    }
    let report = trace.stop()?;
    let quality = &report.stack_quality;
    let gone = quality.reasons.get("process_gone").copied().unwrap_or(0);
    // A connection that ends while its record is being fetched takes the record along.
    let ended = quality.reasons.get("not_recorded").copied().unwrap_or(0);
    let told = quality.complete + gone;
    // A process that exits slowly also has the stack of its request.
    assert!(told >= RUNS && quality.truncated == 0, "{quality:?}");
    assert_eq!(quality.none, gone + ended, "{quality:?}");
    assert!(quality.complete >= told * 3 / 4, "{quality:?}");
    Ok(())
}

/// Connections survive execve(2). The stack belongs to the program that ran when the stack was
/// copied, even if the process has executed another program before it is resolved.
fn executed_another_program(suite: &Suite) -> Result<()> {
    let directory = suite.directory()?;
    let (before, after) = (directory.join("before"), directory.join("after"));
    fs::copy(suite.client_path()?, &after)?;
    let mut client = started_copy(suite, &before)?;
    let trace = suite.trace().pid(client.pid()).start()?;
    let connect = format!("connect 4 {}", suite.port());
    let first = client.ok(&connect)?.number("cookie")?;
    client.ok("startup")?;
    client.ok("query SELECT 1")?;
    client.ok(&format!("exec {}", after.display()))?;
    let second = client.ok(&connect)?.number("cookie")?;
    client.ok("startup")?;
    trace.finding(|finding| finding.is_silence() && finding.connections.contains(&second))?;
    let report = trace.stop()?;
    for (id, path) in [(first, &before), (second, &after)] {
        let connection = report.connection(id)?;
        for stack in [&connection.opened_by, &connection.last_used_by] {
            let stack = report.stack(stack.as_ref())?;
            assert_eq!(stack.quality, "complete", "{:?}", stack.quality_reason);
            assert_eq!(stack.frame("main")?.module.as_deref(), path.to_str());
        }
    }
    Ok(())
}
