//! Writing a recording.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_setfl};
use serde::Serialize;

use crate::engine::Beginning;
use crate::model::{Event, Fact, Timestamp};
use crate::outputs::recording::disk::{Disk, warn_of_stop};
use crate::outputs::recording::{
    Entry, Header, Line, MAX_TEXT, SCHEMA, SOCKETS_AT_ONCE, VERSION, Written,
};

/// A member has about this many bytes of text, or what came in [`MEMBER_TIME`].
const MEMBER_BYTES: usize = 256 << 10;
/// Nothing stays out of the file for longer.
const MEMBER_TIME: Duration = Duration::from_secs(1);
/// What may wait for the disk: this much, and an interval's counters of a full table.
const WAITING_BYTES: usize = 64 << 20;
const WAITING_BYTES_A_CONNECTION: usize = 2048;

/// Only its owner may read and write it.
const MODE: u32 = 0o600;

/// Keeps facts as the engine is told them.
///
/// It never fails and never waits once it has begun: when the disk is full, or cannot keep up, it
/// says so and records no more, and what it has recorded stays good.
pub struct Recorder {
    /// `None` when it has stopped.
    disk: Option<Disk>,
    text: Vec<u8>,
    text_began: Timestamp,
    unrecorded: u64,
}

impl Recorder {
    /// Begins a recording; a file of that name is overwritten.
    ///
    /// # Errors
    ///
    /// When the file cannot be made.
    pub fn create(path: &Path, beginning: &Beginning) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(MODE);
        // A FIFO that nobody reads is refused; without the flag it would be waited for.
        let file = options.custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)?;
        fcntl_setfl(&file, OFlags::empty())?;
        if file.metadata()?.is_file() {
            // It may have been there before.
            file.set_permissions(Permissions::from_mode(MODE))?;
        }
        Self::begin(file, beginning)
    }

    fn begin(file: File, beginning: &Beginning) -> io::Result<Self> {
        let waiting = WAITING_BYTES + WAITING_BYTES_A_CONNECTION * beginning.capacity;
        let mut recorder = Self {
            disk: Some(Disk::start(file, waiting)?),
            text: Vec::new(),
            text_began: Timestamp::default(),
            unrecorded: 0,
        };
        recorder.line(&Header { schema: format!("{SCHEMA}{VERSION}"), beginning });
        recorder.hand_over();
        Ok(recorder)
    }

    /// Keeps a fact that becomes known `now`.
    pub fn record(&mut self, now: Timestamp, fact: &Fact) {
        if self.has_stopped() {
            self.unrecorded += 1;
            return;
        }
        match fact {
            Fact::Event(Event::Unchanged { ids }) => self.entry(now, Entry::Unchanged(ids)),
            Fact::Event(Event::Inventory { began, sockets, complete }) => {
                for some in sockets.chunks(SOCKETS_AT_ONCE) {
                    self.entry(now, Entry::Sockets(some));
                }
                let (began, sockets, complete) = (*began, Vec::new(), *complete);
                let rest = Fact::Event(Event::Inventory { began, sockets, complete });
                self.entry(now, Entry::Fact(&rest));
            }
            _ => self.entry(now, Entry::Fact(fact)),
        }
        self.flush_if_due(now);
    }

    /// Hands over what has waited for long enough.
    pub fn flush_if_due(&mut self, now: Timestamp) {
        if now.since(self.text_began) >= MEMBER_TIME {
            self.hand_over();
            self.text_began = now;
        }
    }

    /// Whether it has had to stop.
    #[must_use]
    pub fn has_stopped(&self) -> bool {
        self.disk.is_none()
    }

    /// Ends the recording, and says when it is not whole.
    pub fn finish(mut self) {
        self.hand_over();
        if let Some(disk) = self.disk.take() {
            disk.finish();
        }
        if self.unrecorded > 0 {
            log::warn!("the recording lacks the last {} entries", self.unrecorded);
        }
    }

    fn entry(&mut self, at: Timestamp, entry: Written<'_>) {
        self.line(&Line { at, entry });
        if self.text.len() >= MEMBER_BYTES {
            self.hand_over();
        }
    }

    fn line(&mut self, line: &impl Serialize) {
        let written = serde_json::to_writer(&mut self.text, line);
        self.text.push(b'\n');
        if let Err(error) = written {
            self.stop(&error);
        } else if self.text.len() > MAX_TEXT {
            self.stop(&"an entry is too large");
        }
    }

    fn stop(&mut self, why: &impl std::fmt::Display) {
        warn_of_stop(why);
        self.text.clear();
        self.disk = None;
        self.unrecorded += 1;
    }

    fn hand_over(&mut self) {
        if !self.text.is_empty()
            && let Some(disk) = self.disk.take()
        {
            self.disk = disk.send(std::mem::take(&mut self.text));
        }
    }
}
