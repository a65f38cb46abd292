//! Stops single threads of a process, as a debugger does.

use std::fs;
use std::io;

use anyhow::{Result, ensure};

use crate::process::eventually;

/// A stopped thread; it goes on when this is dropped.
///
/// The kernel lets only the thread that stopped it do that, so this stays where it was made.
pub struct Stopped {
    tid: i32,
    stays: std::marker::PhantomData<*const ()>,
}

/// Stops the thread of this name, once it is there and sleeps: one that is stopped at work may hold
/// what the others wait for.
pub fn stop(pid: u32, name: &str) -> Result<Stopped> {
    let mut tid = 0;
    eventually(&format!("process {pid} has a thread {name} that sleeps"), || {
        tid = sleeping(pid, name)?.unwrap_or_default();
        Ok(tid != 0)
    })?;
    let none = std::ptr::null_mut::<libc::c_void>();
    let mut status = 0;
    // SAFETY: ptrace and waitpid act on the thread alone, and `status` is a valid place.
    let stopped = unsafe {
        libc::ptrace(libc::PTRACE_SEIZE, tid, none, none) == 0
            && libc::ptrace(libc::PTRACE_INTERRUPT, tid, none, none) == 0
            && libc::waitpid(tid, &raw mut status, libc::__WALL) == tid
    };
    ensure!(stopped, "thread {name}: {}", io::Error::last_os_error());
    Ok(Stopped { tid, stays: std::marker::PhantomData })
}

/// The thread of this name, if it sleeps.
fn sleeping(pid: u32, name: &str) -> Result<Option<i32>> {
    let start = format!("({name}) S");
    for entry in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        // A thread that has ended meanwhile is none of them.
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if let Some((tid, rest)) = stat.split_once(' ')
            && rest.starts_with(&start)
        {
            return Ok(Some(tid.parse()?));
        }
    }
    Ok(None)
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let none = std::ptr::null_mut::<libc::c_void>();
        let mut status = 0;
        // SAFETY: as above. It can be let go of unless it has been killed; then the process does
        // not end before whoever stopped the thread has heard of that.
        unsafe {
            if libc::ptrace(libc::PTRACE_DETACH, self.tid, none, none) != 0 {
                libc::waitpid(self.tid, &raw mut status, libc::__WALL);
            }
        }
    }
}
