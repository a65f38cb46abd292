//! Printing, on a thread of its own: a reader who stops reading delays nothing but what is printed.
//!
//! What is written between two flushes stays together. It is printed whole or, while too much waits
//! for the reader already, not at all, which is counted and said.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;

use tokio::sync::watch;

/// Beyond so many bytes that wait, nothing more is taken.
const MAX_WAITING: usize = 64 << 20;

/// Takes what is to be printed; never waits.
pub(crate) struct Printer {
    /// What was written since the last flush.
    part: Vec<u8>,
    parts: Sender<Vec<u8>>,
    progress: Arc<watch::Sender<Progress>>,
    most_waiting: usize,
    dropped: u64,
}

/// How far printing has come.
pub(crate) struct PrintProgress(watch::Receiver<Progress>);

#[derive(Debug, Default)]
struct Progress {
    /// Bytes that wait.
    waiting: usize,
    /// Why nothing more can be printed.
    error: Option<io::Error>,
}

impl Progress {
    fn check(&self) -> io::Result<()> {
        match &self.error {
            Some(error) => Err(io::Error::new(error.kind(), error.to_string())),
            None => Ok(()),
        }
    }
}

impl Printer {
    /// Starts the thread, which prints to `out`.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub(crate) fn start(out: impl Write + Send + 'static) -> io::Result<(Self, PrintProgress)> {
        Self::with_most_waiting(out, MAX_WAITING)
    }

    fn with_most_waiting(
        mut out: impl Write + Send + 'static,
        most_waiting: usize,
    ) -> io::Result<(Self, PrintProgress)> {
        let (parts, incoming) = mpsc::channel::<Vec<u8>>();
        let (progress, watched) = watch::channel(Progress::default());
        let progress = Arc::new(progress);
        let own = Arc::clone(&progress);
        thread::Builder::new().name("printer".into()).spawn(move || {
            for part in incoming {
                let printed = out.write_all(&part).and_then(|()| out.flush());
                let failed = printed.is_err();
                own.send_modify(|progress| {
                    progress.waiting -= part.len();
                    progress.error = printed.err();
                });
                if failed {
                    break;
                }
            }
        })?;
        let printer = Self { part: Vec::new(), parts, progress, most_waiting, dropped: 0 };
        Ok((printer, PrintProgress(watched)))
    }
}

impl Write for Printer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.progress.borrow().check()?;
        self.part.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let part = std::mem::take(&mut self.part);
        let waiting = {
            let progress = self.progress.borrow();
            progress.check()?;
            progress.waiting
        };
        if part.is_empty() {
            return Ok(());
        }
        if waiting > self.most_waiting {
            if self.dropped == 0 {
                log::warn!("stdout is not read: {} MiB wait, more is left out", waiting >> 20);
            }
            self.dropped += 1;
            return Ok(());
        }
        self.progress.send_modify(|progress| progress.waiting += part.len());
        // When the thread has ended, the next flush says why.
        let _ = self.parts.send(part);
        Ok(())
    }
}

impl Drop for Printer {
    fn drop(&mut self) {
        if self.dropped > 0 {
            log::warn!("{} parts of the output were left out: nobody read them", self.dropped);
        }
    }
}

impl PrintProgress {
    /// Waits until everything that was flushed is printed.
    ///
    /// # Errors
    ///
    /// When it cannot be printed.
    pub(crate) async fn wait(&mut self) -> io::Result<()> {
        let done = |progress: &Progress| progress.waiting == 0 || progress.error.is_some();
        match self.0.wait_for(done).await {
            Ok(progress) => progress.check(),
            // The printer is gone, and with it whoever would print.
            Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    /// A reader who takes a part each time that he is told to, and then nothing more.
    struct Reader {
        may_read: Receiver<()>,
        read: Sender<Vec<u8>>,
    }

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.may_read.recv().map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
            self.read.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_reader_who_stops_keeps_nobody_waiting_and_gets_whole_parts() {
        let ((permit, may_read), (read, printed)) = (channel(), channel());
        let reader = Reader { may_read, read };
        let (mut printer, mut progress) = Printer::with_most_waiting(reader, 8).unwrap();
        for part in ["one, ", "of two writes\n", "another\n", "left out\n"] {
            printer.write_all(part.as_bytes()).unwrap();
            if part.ends_with('\n') {
                printer.flush().unwrap();
            }
        }
        assert_eq!(printer.dropped, 2, "the first part alone is more than may wait");
        permit.send(()).unwrap();
        progress.wait().await.unwrap();
        assert_eq!(printed.recv().unwrap(), b"one, of two writes\n");
        printer.write_all(b"read again\n").unwrap();
        printer.flush().unwrap();
        permit.send(()).unwrap();
        progress.wait().await.unwrap();
        assert_eq!(printed.recv().unwrap(), b"read again\n");
    }

    #[tokio::test]
    async fn an_error_reaches_whoever_writes_and_whoever_waits() {
        let ((permit, may_read), (read, _printed)) = (channel::<()>(), channel());
        drop(permit);
        let (mut printer, mut progress) = Printer::start(Reader { may_read, read }).unwrap();
        printer.write_all(b"lost").unwrap();
        printer.flush().unwrap();
        let error = progress.wait().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(printer.write(b"more").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(printer.flush().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
