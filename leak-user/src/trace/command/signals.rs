//! Signals that are passed on to the command instead of ending the trace.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd as _, OwnedFd};

use rustix::process::Signal;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// What is passed on.
const PASSED_ON: [Signal; 6] =
    [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM, Signal::USR1, Signal::USR2];

/// Size of `struct signalfd_siginfo`, signalfd(2).
const SIGNAL_BYTES: usize = 128;

/// The blocked signals, as a file.
pub(super) struct Signals {
    file: AsyncFd<OwnedFd>,
    before: libc::sigset_t,
}

impl Signals {
    /// Blocks the signals in this thread, and so in all that it starts.
    pub(super) fn block() -> io::Result<Self> {
        let mut set = MaybeUninit::uninit();
        let mut before = MaybeUninit::uninit();
        // SAFETY: the functions fill what they are given, or fail. The new descriptor has no other
        // owner.
        let (file, before) = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in PASSED_ON {
                libc::sigaddset(set.as_mut_ptr(), signal.as_raw());
            }
            let blocked = libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), before.as_mut_ptr());
            if blocked != 0 {
                return Err(io::Error::from_raw_os_error(blocked));
            }
            let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
            let file = libc::signalfd(-1, set.as_ptr(), flags);
            if file < 0 {
                return Err(io::Error::last_os_error());
            }
            (OwnedFd::from_raw_fd(file), before.assume_init())
        };
        // SAFETY: the descriptor is owned by what watches it, so it stays the same and open.
        let watched = unsafe { AsyncFd::register_with_interest(file, Interest::READABLE) };
        Ok(Self { file: watched.map_err(io::Error::from)?, before })
    }

    /// The mask before.
    pub(super) fn before(&self) -> libc::sigset_t {
        self.before
    }

    /// Gives this thread its mask back.
    pub(super) fn unblock(&self) {
        // SAFETY: the set was filled by the kernel.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut());
        }
    }

    /// Waits for the next signal; `None` when the command has it already.
    pub(super) async fn next(&self) -> io::Result<Option<Signal>> {
        let mut bytes = [0; SIGNAL_BYTES];
        let read = |file: &OwnedFd| Ok(rustix::io::read(file, &mut bytes)?);
        self.file.async_io(Interest::READABLE, read).await?;
        Ok(to_pass_on(&bytes))
    }
}

/// The signal to pass on, if it is one that a process has sent. What the terminal sends goes to the
/// whole group of processes, the command among them.
fn to_pass_on(bytes: &[u8; SIGNAL_BYTES]) -> Option<Signal> {
    let number = |at: usize| bytes.get(at..)?.first_chunk().map(|chunk| i32::from_ne_bytes(*chunk));
    let (signal, code) = (number(0)?, number(8)?);
    let is_sent = code <= 0;
    PASSED_ON.into_iter().find(|known| is_sent && known.as_raw() == signal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(signal: i32, code: i32) -> Option<Signal> {
        let mut bytes = [0; SIGNAL_BYTES];
        bytes[..4].copy_from_slice(&signal.to_ne_bytes());
        bytes[8..12].copy_from_slice(&code.to_ne_bytes());
        to_pass_on(&bytes)
    }

    #[test]
    fn what_the_terminal_sends_is_not_sent_twice() {
        assert_eq!(told(libc::SIGTERM, libc::SI_USER), Some(Signal::TERM));
        assert_eq!(told(libc::SIGINT, libc::SI_TKILL), Some(Signal::INT));
        assert_eq!(told(libc::SIGINT, 0x80), None, "SI_KERNEL");
        assert_eq!(told(libc::SIGSEGV, libc::SI_USER), None);
    }

    #[tokio::test]
    async fn a_signal_to_this_thread_is_read() {
        let signals = Signals::block().unwrap();
        // SAFETY: the signal is blocked in this thread.
        unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGUSR2) };
        assert_eq!(signals.next().await.unwrap(), Some(Signal::USR2));
        signals.unblock();
    }
}
