//! A debug file that one process has put into its own view of the file system names the functions
//! of no other process, although both run the same file.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use harness::process::{Running, bound};
use harness::{FakeServer, Manner, Suite};

/// The function that connects; a forged debug file calls it otherwise.
const HONEST: &str = "connect_to_server";
const FORGED: &str = "innocent_function";

const SOURCE: &str = r#"
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

__attribute__((noinline)) int CONNECT(int port)
{
    struct sockaddr_in server = { .sin_family = AF_INET, .sin_port = htons(port) };
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    return connect(fd, (struct sockaddr *)&server, sizeof server) == 0 ? fd : -1;
}

int main(int count, char **words)
{
    printf("%d\n", count > 1 ? CONNECT(atoi(words[1])) : -1);
    fflush(stdout);
    return getchar();
}
"#;

/// What both builds claim to be.
const BUILD_ID: &str = "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00";

pub(super) fn forged_names_stay_with_the_forger(suite: &Suite) -> Result<()> {
    let directory = suite.directory()?;
    let program = directory.join("program");
    compile(&directory, HONEST, &program)?;
    run(Command::new("strip").arg(&program))?;
    let debug_files = directory.join("debug/.build-id").join(&BUILD_ID[..2]);
    fs::create_dir_all(&debug_files)?;
    let forged = debug_files.join(format!("{}.debug", &BUILD_ID[2..]));
    compile(&directory, FORGED, &forged)?;

    // Seen first, the forger's debug file is the one that a single answer for all would keep.
    let server = FakeServer::start(Manner::Mute)?;
    let trace = suite.trace_port(server.port()).start()?;
    let port = server.port().to_string();
    let script = format!(
        "mount --bind {} /usr/lib/debug && exec {} {port}",
        directory.join("debug").display(),
        program.display()
    );
    let mut forger = Command::new("unshare");
    forger.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
    let forger = connected(&mut forger)?;
    trace.let_intervals_pass(1);
    let victim = connected(Command::new(&program).arg(&port))?;
    trace.let_intervals_pass(1);

    let report = trace.stop()?;
    let functions = |pid: u32| -> Result<Vec<String>> {
        let of = report.connections.iter().find(|open| open.pid == Some(pid));
        let stack = report.stack(of.context("no connection")?.opened_by.as_ref())?;
        Ok(stack.frames.iter().filter_map(|frame| frame.function.clone()).collect())
    };
    let (own, others) = (functions(forger.pid())?, functions(victim.pid())?);
    assert!(own.iter().any(|name| name == FORGED), "the debug file is not read at all: {own:?}");
    assert!(!others.iter().any(|name| name == FORGED), "{others:?}");
    Ok(())
}

fn compile(directory: &Path, function: &str, to: &Path) -> Result<()> {
    let source = directory.join(format!("{function}.c"));
    fs::write(&source, SOURCE)?;
    run(Command::new("gcc")
        .args(["-g", "-O0", &format!("-Wl,--build-id=0x{BUILD_ID}")])
        .arg(format!("-DCONNECT={function}"))
        .arg("-o")
        .args([to, &source]))
}

fn run(command: &mut Command) -> Result<()> {
    ensure!(command.status()?.success(), "{command:?} fails");
    Ok(())
}

/// A process that has connected, and waits.
fn connected(command: &mut Command) -> Result<Running> {
    let mut process = Running::start(command)?;
    let deadline = Instant::now() + bound();
    let said = process.stdout.find_from(0, deadline, |line| line.parse::<i32>().ok());
    let (_, descriptor) = said.context("the program says nothing")?;
    ensure!(descriptor >= 0, "the program cannot connect");
    process.ensure_running()?;
    Ok(process)
}
