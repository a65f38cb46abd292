//! Stops single threads of a process, as a debugger does.

use std::fs;
use std::io;

use anyhow::{Result, ensure};

use crate::process::eventually;

/// A stopped thread, which continues on drop.
///
/// Not `Send`: ptrace accepts requests only from the thread that attached.
pub struct Stopped {
    tid: i32,
    stays: std::marker::PhantomData<*const ()>,
}

/// Waits until the thread of this name sleeps, and stops it. A thread that is stopped while it
/// works may hold a lock that the others need.
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
        // A thread may have ended since `read_dir`.
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
        // SAFETY: as above. Detaching fails only if the thread was killed. Then waitpid is
        // necessary, because the process cannot end before its tracer has collected the thread's
        // status.
        unsafe {
            if libc::ptrace(libc::PTRACE_DETACH, self.tid, none, none) != 0 {
                libc::waitpid(self.tid, &raw mut status, libc::__WALL);
            }
        }
    }
}
