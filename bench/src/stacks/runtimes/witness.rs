//! The stack of a request, as gdb reports it.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use harness::process::{Guarded, Signal};

/// The script that gdb runs.
const SCRIPT: &str = include_str!("witness.py");

/// How long gdb may take to detach.
const FAREWELL: Duration = Duration::from_secs(30);

/// The functions on the stack of the last request that `work` makes a process send, innermost
/// first: as far as gdb can follow, which is to the first code that lies in no file.
pub(super) fn frames(
    directory: &Path,
    pid: u32,
    work: impl FnOnce() -> Result<()>,
) -> Result<Vec<String>> {
    let script = directory.join("witness.py");
    fs::write(&script, SCRIPT)?;
    let mut gdb = Guarded::spawn(
        Command::new("gdb")
            .args(["-q", "-batch", "-nx", "-p", &pid.to_string(), "-x"])
            .arg(&script)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null()),
        Signal::INT,
    )?;
    let stdout = gdb.child().stdout.take().context("gdb has no output.")?;
    let mut lines = BufReader::new(stdout).lines();
    loop {
        let line = lines.next().context("gdb cannot attach.")??;
        if line == "READY" {
            break;
        }
    }
    let sockets = sockets(pid)?;
    // Only the last request counts, and it may be the first on a new connection.
    work()?;
    let sockets = [sockets, self::sockets(pid)?].concat();
    let mut last = None;
    for line in lines {
        let line = line?;
        let mut fields = line.split('\t');
        if fields.next() == Some("STOP")
            && fields.next().and_then(|fd| fd.parse().ok()).is_some_and(|fd| sockets.contains(&fd))
        {
            last = Some(fields.map(str::to_owned).collect::<Vec<_>>());
        }
    }
    gdb.wait(FAREWELL)?;
    let frames = last.context("gdb saw no request.")?;
    ensure!(frames.len() > 1, "gdb tells no stack.");
    Ok(frames)
}

/// The descriptors of a process that are sockets.
fn sockets(pid: u32) -> Result<Vec<i32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let path = entry?.path();
        let is_socket = fs::read_link(&path)
            .is_ok_and(|target| target.to_string_lossy().starts_with("socket:"));
        let number = path.file_name().and_then(|name| name.to_str()?.parse::<i32>().ok());
        found.extend(number.filter(|_| is_socket));
    }
    Ok(found)
}
