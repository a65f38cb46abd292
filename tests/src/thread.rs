//! Stops single threads of a process, as nothing but a debugger can.

use std::fs;
use std::io;

use anyhow::{Context, Result, ensure};

/// A stopped thread; it goes on when this is dropped.
///
/// The kernel lets only the thread that stopped it do that, so this stays where it was made.
pub struct Stopped {
    tid: i32,
    stays: std::marker::PhantomData<*const ()>,
}

/// Stops the thread of this name.
///
/// # Errors
///
/// When there is none, or the system refuses.
pub fn stop(pid: u32, name: &str) -> Result<Stopped> {
    let is_it = |tid: &str| {
        fs::read_to_string(format!("/proc/{pid}/task/{tid}/comm")).is_ok_and(|c| c.trim() == name)
    };
    let tid: i32 = fs::read_dir(format!("/proc/{pid}/task"))?
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .find(|tid| is_it(tid))
        .with_context(|| format!("process {pid} has no thread {name}"))?
        .parse()?;
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

impl Drop for Stopped {
    fn drop(&mut self) {
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: as above. It fails only when the thread has ended.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.tid, none, none) };
    }
}
