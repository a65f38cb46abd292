//! A command whose output is read line by line, and which is stopped once it prints nothing more: a
//! test that hangs fails, and does not take the whole run with it.

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
use support::process::ensure_not_stopped;

/// How often an interruption by the user is looked for.
const POLL: Duration = Duration::from_secs(1);

/// Runs `command` and lets `hear` have what it prints; stderr goes where ours does.
pub(super) fn listen(
    command: &mut Command,
    silence: Duration,
    mut hear: impl FnMut(&str),
) -> Result<ExitStatus> {
    let mut running = command.stdout(Stdio::piped()).spawn()?;
    let output = running.stdout.take().context("The command has no output.")?;
    let (to, lines) = mpsc::channel();
    thread::spawn(move || send_lines(output, &to));
    let mut silent = Duration::ZERO;
    loop {
        match lines.recv_timeout(POLL.min(silence)) {
            Ok(line) => {
                silent = Duration::ZERO;
                hear(&line);
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(running.wait()?),
            Err(RecvTimeoutError::Timeout) => {
                silent += POLL.min(silence);
                let interrupted = ensure_not_stopped();
                if interrupted.is_err() || silent >= silence {
                    stop(running.id());
                    running.wait()?;
                    interrupted?;
                    bail!(
                        "Nothing was printed for {silence:?}: a test hangs, and all were stopped."
                    );
                }
            }
        }
    }
}

fn send_lines(from: impl Read, to: &Sender<String>) {
    for bytes in BufReader::new(from).split(b'\n').map_while(Result::ok) {
        if to.send(String::from_utf8_lossy(&bytes).into_owned()).is_err() {
            break;
        }
    }
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
    fn hears_lines_and_how_it_ended() {
        let mut heard = Vec::new();
        let mut command = shell("echo one; echo two; exit 3");
        let status =
            listen(&mut command, Duration::from_secs(60), |line| heard.push(line.to_owned()));
        assert_eq!(status.unwrap().code(), Some(3));
        assert_eq!(heard, ["one", "two"]);
    }

    #[test]
    fn what_hangs_is_stopped_with_all_that_it_started() {
        let mut pids = Vec::new();
        let mut command = shell("sleep 1000 & echo $!; sh -c 'echo $$; sleep 1000; :'; :");
        let error = listen(&mut command, Duration::from_secs(2), |pid| pids.push(pid.to_owned()));
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
