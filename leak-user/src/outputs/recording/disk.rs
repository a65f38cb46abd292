//! Compressing and writing, on a thread of its own: a slow disk never delays an event.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;

/// How long the last members may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The thread, seen from the event loop.
pub(super) struct Disk {
    texts: Sender<Vec<u8>>,
    /// Bytes that wait.
    waiting: Arc<AtomicUsize>,
    most_waiting: usize,
    /// Is disconnected when the thread has ended.
    ended: Receiver<()>,
}

impl Disk {
    /// Starts the thread; at most `most_waiting` bytes may wait for it.
    pub(super) fn start(mut file: File, most_waiting: usize) -> io::Result<Self> {
        let (texts, incoming) = mpsc::channel::<Vec<u8>>();
        let (alive, ended) = mpsc::channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let taken = Arc::clone(&waiting);
        thread::Builder::new().name("recorder".into()).spawn(move || {
            let _alive: Sender<()> = alive;
            for text in incoming {
                if let Err(error) = write(&mut file, &text) {
                    warn_of_stop(&error);
                    break;
                }
                taken.fetch_sub(text.len(), Ordering::Relaxed);
            }
        })?;
        Ok(Self { texts, waiting, most_waiting, ended })
    }

    /// Has a member of this text written. Gives itself back unless recording has stopped.
    pub(super) fn send(self, text: Vec<u8>) -> Option<Self> {
        let waiting = self.waiting.fetch_add(text.len(), Ordering::Relaxed);
        if waiting > self.most_waiting {
            warn_of_stop(&format!("{} MiB wait for the disk", waiting >> 20));
            return None;
        }
        // When it fails, the thread has said why.
        self.texts.send(text).is_ok().then_some(self)
    }

    /// Waits until everything is written, but not for ever.
    pub(super) fn finish(self) {
        let Self { texts, ended, waiting: _, most_waiting: _ } = self;
        drop(texts);
        if ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            log::warn!("the recording lacks its end: the disk has not taken it in time");
        }
    }
}

/// In one go, so that a member is whole or visibly cut off.
fn write(file: &mut File, text: &[u8]) -> io::Result<()> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text)?;
    file.write_all(&encoder.finish()?)
}

/// Says that no more is recorded.
pub(super) fn warn_of_stop(why: &impl std::fmt::Display) {
    log::warn!("recording stopped: {why}; the trace goes on");
}
