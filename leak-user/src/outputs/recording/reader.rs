//! Reading a recording.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::Path;

use flate2::bufread::GzDecoder;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::engine::Beginning;
use crate::model::{Event, Fact, ListedSocket, Timestamp};
use crate::outputs::recording::{
    Entry, Header, Line, MAX_TEXT, Read, RecordingError, SCHEMA, VERSION,
};

/// Most sockets that an inventory may list: no machine has more to one server's port.
const MAX_SOCKETS: usize = 1 << 20;

/// A recording, read from its beginning.
///
/// Its memory is bounded by what the recorded run could have used: one member's text, one
/// inventory.
pub struct Recording<R = BufReader<File>> {
    input: Counted<R>,
    /// The present member, and how much of it was read.
    text: Vec<u8>,
    read: usize,
    /// Where the last whole member ended.
    whole: u64,
    beginning: Beginning,
    sockets: Vec<ListedSocket>,
}

impl Recording {
    /// Opens a file and reads how the run began.
    ///
    /// # Errors
    ///
    /// When it is not a recording that this version can read.
    pub fn open(path: &Path) -> Result<Self, RecordingError> {
        let file = File::open(path).map_err(RecordingError::Unreadable)?;
        Self::read(BufReader::new(file))
    }
}

impl<R: BufRead> Recording<R> {
    /// The same from any source.
    ///
    /// # Errors
    ///
    /// When it is not a recording that this version can read.
    pub fn read(input: R) -> Result<Self, RecordingError> {
        let mut input = Counted { inner: input, count: 0 };
        let mut text = Vec::new();
        match read_member(&mut input, &mut text) {
            Ok(true) => {}
            Ok(false) | Err(Unread::CutOff) => return Err(RecordingError::Empty),
            Err(Unread::Damaged(_)) => return Err(RecordingError::Foreign),
            Err(Unread::Io(error)) => return Err(RecordingError::Unreadable(error)),
        }
        let line = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let beginning = header(line)?;
        let read = line.len() + 1;
        let whole = input.count;
        Ok(Self { input, text, read, whole, beginning, sockets: Vec::new() })
    }

    /// How the run began.
    #[must_use]
    pub fn beginning(&self) -> &Beginning {
        &self.beginning
    }

    /// What was told next, and when; `None` at the end of the file.
    ///
    /// # Errors
    ///
    /// When the file breaks off, is damaged, or cannot be read any further.
    pub fn next_fact(&mut self) -> Result<Option<(Timestamp, Fact)>, RecordingError> {
        loop {
            if self.read >= self.text.len() && !self.next_member()? {
                return Ok(None);
            }
            let rest = self.text.get(self.read..).unwrap_or_default();
            let line = rest.split(|&byte| byte == b'\n').next().unwrap_or_default();
            self.read += line.len() + 1;
            let line = parse(line).map_err(|error| self.damaged(format!("an entry: {error}")))?;
            if let Some(next) = self.take(line)? {
                return Ok(Some(next));
            }
        }
    }

    fn next_member(&mut self) -> Result<bool, RecordingError> {
        self.whole = self.input.count;
        self.read = 0;
        read_member(&mut self.input, &mut self.text).map_err(|unread| match unread {
            Unread::CutOff => RecordingError::CutOff(self.whole),
            Unread::Damaged(why) => self.damaged(why),
            Unread::Io(error) => RecordingError::Unreadable(error),
        })
    }

    /// Makes a fact of an entry, unless it is a part of one.
    fn take(&mut self, line: Line<Read>) -> Result<Option<(Timestamp, Fact)>, RecordingError> {
        let Line { at, entry } = line;
        Ok(match entry {
            Entry::Sockets(mut some) => {
                if self.sockets.len() + some.len() > MAX_SOCKETS {
                    return Err(self.damaged("an inventory has no end".into()));
                }
                self.sockets.append(&mut some);
                None
            }
            Entry::Unchanged(ids) => Some((at, Fact::Event(Event::Unchanged { ids }))),
            Entry::Fact(mut fact) => {
                if let Fact::Event(Event::Inventory { sockets, .. }) = &mut fact {
                    sockets.append(&mut self.sockets);
                }
                Some((at, fact))
            }
        })
    }

    fn damaged(&self, why: String) -> RecordingError {
        RecordingError::Damaged { at: self.whole, why }
    }
}

fn parse<T: DeserializeOwned>(line: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(line)
}

/// Reads the first line; the schema before anything else, since the rest depends on it.
fn header(line: &[u8]) -> Result<Beginning, RecordingError> {
    #[derive(Deserialize)]
    struct Maker {
        run: Version,
    }
    #[derive(Deserialize)]
    struct Version {
        version: String,
    }
    let Header { schema, beginning: _ } =
        parse::<Header<serde_json::Value>>(line).map_err(|_| RecordingError::Foreign)?;
    let version = schema.strip_prefix(SCHEMA).and_then(|version| version.parse::<u32>().ok());
    let version = version.ok_or(RecordingError::Foreign)?;
    if version > VERSION {
        let maker = parse(line).map(|Maker { run: Version { version } }| version);
        return Err(RecordingError::Newer { version: maker.unwrap_or("of later days".into()) });
    }
    let damaged = |why: String| RecordingError::Damaged { at: 0, why };
    let Header::<Beginning> { schema: _, beginning } =
        parse(line).map_err(|error| damaged(format!("its header: {error}")))?;
    if !beginning.is_plausible() {
        return Err(damaged("its header holds settings that no run can have".into()));
    }
    Ok(beginning)
}

/// Why there is no further member.
enum Unread {
    CutOff,
    Damaged(String),
    Io(io::Error),
}

/// Reads the next member's text; `false` at the end of the file.
fn read_member(input: &mut impl BufRead, text: &mut Vec<u8>) -> Result<bool, Unread> {
    text.clear();
    if input.fill_buf().map_err(Unread::Io)?.is_empty() {
        return Ok(false);
    }
    let limit = MAX_TEXT as u64 + 1;
    match GzDecoder::new(input).take(limit).read_to_end(text) {
        Ok(_) if text.len() > MAX_TEXT => Err(Unread::Damaged("a part is too large".into())),
        Ok(_) => Ok(true),
        Err(error) => Err(match error.kind() {
            io::ErrorKind::UnexpectedEof => Unread::CutOff,
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => {
                Unread::Damaged(error.to_string())
            }
            _ => Unread::Io(error),
        }),
    }
}

/// Counts what is read.
struct Counted<R> {
    inner: R,
    count: u64,
}

impl<R: BufRead> io::Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count += read as u64;
        Ok(read)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.count += amount as u64;
        self.inner.consume(amount);
    }
}
