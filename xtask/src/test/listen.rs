//! A command whose words are heard line by line as it says them, and which is stopped once it says
//! nothing more: a test that hangs fails, and does not take the whole run with it.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read},
    process::{Command, ExitStatus, Stdio},
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// No test takes so long, and no crate so long to compile.
pub(super) const LONGEST_SILENCE: Duration = Duration::from_secs(15 * 60);

/// One line of what was said.
pub(super) enum Line {
    /// By the test binaries, on standard output.
    Test(String),
    /// By cargo, on standard error.
    Cargo(String),
}

/// Runs `command`, repeats what it says, and lets `hear` have it.
pub(super) fn listen(
    command: &mut Command,
    silence: Duration,
    mut hear: impl FnMut(&Line),
) -> Result<ExitStatus> {
    let mut running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (said, lines) = mpsc::channel();
    let output = running.stdout.take().context("The command has no output.")?;
    repeat(output, said.clone(), Line::Test);
    let errors = running.stderr.take().context("The command has no error output.")?;
    repeat(errors, said, Line::Cargo);
    loop {
        match lines.recv_timeout(silence) {
            Ok(line) => {
                match &line {
                    Line::Test(line) => println!("{line}"),
                    Line::Cargo(line) => eprintln!("{line}"),
                }
                hear(&line);
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(running.wait()?),
            Err(RecvTimeoutError::Timeout) => {
                stop(running.id());
                running.wait()?;
                bail!("Nothing was said for {silence:?}: a test hangs, and all were stopped.");
            }
        }
    }
}

/// Sends every line on, until the last one.
fn repeat(from: impl Read + Send + 'static, to: Sender<Line>, line: fn(String) -> Line) {
    thread::spawn(move || {
        for bytes in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            if to.send(line(String::from_utf8_lossy(&bytes).into_owned())).is_err() {
                break;
            }
        }
    });
}

/// Kills a process and what descends from it, from the top, so that nobody starts anew what ended.
fn stop(process: u32) {
    let children = children(process);
    if let Some(process) = i32::try_from(process).ok().and_then(Pid::from_raw) {
        // It may have ended by itself.
        let _ = kill_process(process, Signal::KILL);
    }
    children.into_iter().for_each(stop);
}

/// The processes that any thread of this one started.
fn children(process: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    threads
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|children| {
            children.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<_>>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn shell(script: &str) -> Command {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]);
        shell
    }

    #[test]
    fn hears_both_and_how_it_ended() {
        let (mut tests, mut cargo) = (Vec::new(), Vec::new());
        let mut command = shell("echo one; echo two; echo three >&2; exit 3");
        let status = listen(&mut command, LONGEST_SILENCE, |line| match line {
            Line::Test(line) => tests.push(line.clone()),
            Line::Cargo(line) => cargo.push(line.clone()),
        });
        assert_eq!(status.unwrap().code(), Some(3));
        assert_eq!((tests, cargo), (vec!["one".into(), "two".into()], vec!["three".into()]));
    }

    #[test]
    fn what_hangs_is_stopped_with_all_that_it_started() {
        let mut pids = Vec::new();
        let mut command = shell("sleep 1000 & echo $!; sh -c 'echo $$; sleep 1000; :'; :");
        let error = listen(&mut command, Duration::from_secs(2), |line| {
            if let Line::Test(pid) = line {
                pids.push(pid.clone());
            }
        });
        assert!(error.unwrap_err().to_string().contains("a test hangs"));
        assert_eq!(pids.len(), 2);
        let deadline = Instant::now() + Duration::from_secs(10);
        for pid in pids {
            // It takes a moment to end, and who adopts it may be slow to wait for it.
            let lives = || {
                fs::read_to_string(format!("/proc/{pid}/stat"))
                    .is_ok_and(|stat| !stat.contains(") Z "))
            };
            while lives() {
                assert!(Instant::now() < deadline, "{pid} was not stopped");
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
}
