//! Threads that are blocked in a system call, as procfs shows them without stopping them.

use std::fs::{self, File};
use std::io::Read;

/// Longest line that is read of a thread's files.
const MAX_LINE: u64 = 256;
/// Fields of `/proc/PID/task/TID/syscall` for a thread that is blocked in a system call: the call's
/// number, its six arguments, the stack pointer and the instruction pointer.
const FIELDS: usize = 9;

/// A thread that is blocked in a system call. Two that are equal are of a thread that has not run
/// in between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Blocked {
    /// `/proc/PID/task/TID/syscall`.
    call: String,
    /// How often it has been given a processor: the third field of `/proc/PID/task/TID/schedstat`.
    /// `None` where the kernel does not count it; then only the call tells.
    turns: Option<u64>,
    pub(crate) sp: u64,
    pub(crate) ip: u64,
}

impl Blocked {
    /// Looks at a thread; `None` when it runs, or has ended.
    pub(crate) fn read(pid: u32, tid: u32) -> Option<Self> {
        // The turns come first: if they are the same later, it was blocked here all the time.
        let turns = line(pid, tid, "schedstat").as_deref().and_then(turns);
        Self::parse(line(pid, tid, "syscall")?, turns)
    }

    fn parse(call: String, turns: Option<u64>) -> Option<Self> {
        let fields: Vec<&str> = call.split_ascii_whitespace().collect();
        let [number, .., sp, ip] = fields[..] else { return None };
        let number: i64 = number.parse().ok()?;
        if fields.len() != FIELDS || number < 0 {
            return None;
        }
        let (sp, ip) = (hexadecimal(sp)?, hexadecimal(ip)?);
        Some(Self { call, turns, sp, ip })
    }
}

/// The threads of a process, at most `most`, and whether there are more.
pub(crate) fn threads_of(pid: u32, most: usize) -> (Vec<u32>, bool) {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return (Vec::new(), false) };
    let mut names = tasks.flatten().filter_map(|task| task.file_name().to_str()?.parse().ok());
    let threads = names.by_ref().take(most).collect();
    (threads, names.next().is_some())
}

/// Whether a process has this thread.
pub(crate) fn has_thread(pid: u32, tid: u32) -> bool {
    fs::exists(format!("/proc/{pid}/task/{tid}")).unwrap_or(true)
}

fn line(pid: u32, tid: u32, file: &str) -> Option<String> {
    let mut text = String::new();
    let file = File::open(format!("/proc/{pid}/task/{tid}/{file}")).ok()?;
    file.take(MAX_LINE).read_to_string(&mut text).ok()?;
    Some(text)
}

fn turns(line: &str) -> Option<u64> {
    let turns = line.split_ascii_whitespace().nth(2)?.parse().ok()?;
    (turns > 0).then_some(turns)
}

fn hexadecimal(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_thread_in_a_system_call_is_blocked() {
        let blocked = |call: &str| Blocked::parse(call.into(), Some(7));
        let read = blocked("0 0x3 0x7ffd 0xc8 0x0 0x0 0x0 0x7ffd01 0x7f9e02\n").unwrap();
        assert_eq!((read.sp, read.ip), (0x7ffd01, 0x7f9e02));
        // It runs; it waits for a page; broken.
        for other in
            ["running\n", "-1 0x7ffd01 0x7f9e02\n", "", "0 1 2 3", "\0", "-1 2 3 4 5 6 7 8 9"]
        {
            assert_eq!(blocked(other), None, "{other}");
        }
        let wide = "0 0x3 0x7ffd 0xc8 0x0 0x0 0x0 0x7ffd01 0x17f9e020000000000\n";
        assert_eq!(blocked(wide), None);
    }

    #[test]
    fn a_thread_that_has_run_is_not_the_same() {
        let call = || "0 0x3 0x7ffd 0xc8 0x0 0x0 0x0 0x7ffd01 0x7f9e02\n".to_owned();
        let before = Blocked::parse(call(), turns("123 45 6\n"));
        assert_eq!(before, Blocked::parse(call(), turns("123 45 6\n")));
        assert_ne!(before, Blocked::parse(call(), turns("124 45 7\n")));
        assert_eq!(turns("0 0 0\n"), None, "the kernel does not count");
        assert_eq!(turns("x"), None);
    }

    #[test]
    fn own_threads() {
        let pid = std::process::id();
        let (threads, more) = threads_of(pid, 4096);
        assert!(threads.contains(&pid) && !more);
        assert_eq!(threads_of(pid, 1).0.len(), 1);
        assert!(has_thread(pid, pid) && !has_thread(pid, u32::MAX));
        assert_eq!(threads_of(u32::MAX, 1), (Vec::new(), false));
    }
}
