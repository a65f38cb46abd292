//! Scripts: their names and lines.

use std::collections::HashMap;
use std::rc::Rc;

use crate::languages::v8::heap::{Heap, pointer, small};

/// Longest name of a script, in characters.
const MAX_NAME: u32 = 4096;
/// Longest source whose lines are counted, in characters, and most lines of one.
const MAX_SOURCE: u32 = 16 << 20;
const MAX_LINES: u64 = 1 << 20;
/// Most scripts whose lines are remembered.
const MAX_REMEMBERED: usize = 256;
const LINE_FEED: u16 = 10;

/// The lines of the scripts of one process.
#[derive(Debug, Default)]
pub(crate) struct Scripts(HashMap<(u64, u64, u32), Rc<Lines>>);

/// Where each line ends, in characters from the script's beginning.
type Lines = Vec<u32>;

/// The name of a script, as a path where it is one; `None` when it has none.
pub(crate) fn name(script: u64, heap: Heap<'_>) -> Option<String> {
    let name = heap.object(script, heap.layout.script.name)?;
    let name = heap.string(name, MAX_NAME)?;
    let path = name.strip_prefix("file://").unwrap_or(&name);
    (!path.is_empty() && !path.contains(char::is_control)).then(|| path.to_owned())
}

impl Scripts {
    /// The line, from 1, of a place in a script.
    pub(crate) fn line(&mut self, script: u64, place: u32, heap: Heap<'_>) -> Option<u32> {
        let layout = &heap.layout.script;
        let source = heap.object(script, layout.source)?;
        let length = heap.string_length(source).filter(|length| place <= *length)?;
        let first = u32::try_from(heap.small(script, layout.line_offset)?).ok()?;
        let lines = match self.0.get(&(script, source, length)) {
            Some(known) => Rc::clone(known),
            None => {
                let read = Rc::new(lines(script, source, length, heap)?);
                if self.0.len() >= MAX_REMEMBERED {
                    self.0.clear();
                }
                self.0.insert((script, source, length), Rc::clone(&read));
                read
            }
        };
        let before = lines.partition_point(|end| *end < place);
        u32::try_from(before).ok()?.checked_add(1)?.checked_add(first)
    }
}

/// Where the lines of a script end: as V8 has noted, or as its source says.
fn lines(script: u64, source: u64, length: u32, heap: Heap<'_>) -> Option<Lines> {
    let noted = || {
        let ends = pointer(heap.word(script, heap.layout.script.line_ends)?)?;
        let ends = heap.elements(ends, MAX_LINES)?;
        let ends = ends.into_iter().map(|end| u32::try_from(small(end)?).ok());
        ends.collect::<Option<Lines>>().filter(|ends| ends.is_sorted() && !ends.is_empty())
    };
    if let Some(ends) = noted() {
        return Some(ends);
    }
    (length <= MAX_SOURCE).then_some(())?;
    let (mut ends, mut at) = (Vec::new(), 0);
    heap.characters(source, 0..length, &mut |unit| {
        if unit == LINE_FEED {
            ends.push(at);
        }
        at += 1;
    })?;
    Some(ends)
}
