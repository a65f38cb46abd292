//! PHP's engine in a process: where its current frame is, and how its functions are laid out.

use crate::bytes::u64_at;
use crate::languages::php::binary::EngineFile;
use crate::languages::php::layout::{Current, FUNCTION, LINE, Layout, OPCODE, PREVIOUS};
use crate::languages::php::string::{MAX_PATH, string};
use crate::languages::php::thread::Slot;
use crate::languages::target::Target;

/// Most bytes of variables in which the globals are looked for.
const MAX_VARIABLES: u64 = 8 << 20;
/// They are read in pieces of this size.
const PIECE: u64 = 4096;
/// Most frames that are tried to find out how functions are laid out.
const MAX_FRAMES: usize = 64;
/// The kind of a function of a script: its first byte.
const SCRIPT: u8 = 2;
/// Where it may have its file's name.
const FILES: std::ops::RangeInclusive<u64> = 120..=200;
/// Sizes of a page of frames that are believed.
const PAGES: std::ops::RangeInclusive<u64> = 4096..=16 << 20;

/// The engine of one process: what holds as long as it runs its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Engine {
    pub(crate) current: Current,
    /// In the function of a script: its file's name.
    pub(crate) file: u64,
}

impl Engine {
    /// The engine of this file, which is `bias` bytes further up than it is numbered.
    ///
    /// Of a release that is not known, and where the globals have no symbol, they are found while
    /// the process runs PHP; `None` until then.
    pub(crate) fn find(file: &EngineFile, bias: u64, target: &dyn Target) -> Option<Self> {
        let known = file.version.and_then(Layout::of);
        if let Some((slot, offset)) = file.of_threads {
            let layout = known?;
            let slot = match slot {
                Slot::At(slot) => slot,
                Slot::WrittenAt(at) => {
                    let slot = target.u64(at.wrapping_add(bias))?;
                    i32::try_from(slot.cast_signed()).ok()?
                }
            };
            let globals = target.u64(offset.wrapping_add(bias))?;
            if globals == 0 {
                // Not reserved yet.
                return None;
            }
            let offset = globals.checked_add(layout.current)?;
            let current = Current::OfThread { slot, offset };
            return Some(Self { current, file: layout.file });
        }
        let of_symbol = file.globals.map(|at| at.wrapping_add(bias));
        if let Some((globals, layout)) = of_symbol.zip(known) {
            let current = Current::OfProcess(globals.checked_add(layout.current)?);
            return Some(Self { current, file: layout.file });
        }
        let current = match of_symbol {
            Some(globals) => current_in(globals, PIECE, target)?,
            None => {
                file.version?;
                let mut variables = file.variables.iter();
                variables.find_map(|&(start, size)| {
                    // What the file does not hold follows: variables that begin as zeroes.
                    let most = size.checked_add(MAX_VARIABLES)?;
                    current_in(start.wrapping_add(bias), most, target)
                })?
            }
        };
        let file = match known {
            Some(layout) => layout.file,
            None => file_by_trial(target.u64(current)?, target)?,
        };
        Some(Self { current: Current::OfProcess(current), file })
    }
}

/// Where the pointer to the current frame lies in memory of at most `most` bytes from `start` on,
/// by what lies before it: the top and the end of the page of frames, that page, and its size.
fn current_in(start: u64, most: u64, target: &dyn Target) -> Option<u64> {
    let mut before: Vec<u8> = Vec::new();
    let mut at = start & !7;
    let end = start.checked_add(most)?;
    while at < end {
        let length = PIECE - at % PIECE;
        let piece = target.bytes(at, usize::try_from(length).ok()?)?;
        let first = at.checked_sub(before.len() as u64)?;
        before.extend_from_slice(&piece);
        for (index, words) in before.windows(40).enumerate().step_by(8) {
            if is_before_current(words, target) {
                return first.checked_add(index as u64 + 32);
            }
        }
        let kept = before.len().saturating_sub(32);
        before.drain(..kept);
        at = at.checked_add(length)?;
    }
    None
}

fn is_before_current(words: &[u8], target: &dyn Target) -> bool {
    let word = |index: usize| u64_at(words, index * 8).unwrap_or(0);
    let (top, end, page, size, current) = (word(0), word(1), word(2), word(3), word(4));
    let is_page = size.is_power_of_two()
        && PAGES.contains(&size)
        && page != 0
        && page < top
        && top <= end
        && (end - page).is_multiple_of(size)
        && (page..end).contains(&current);
    // The page begins with its top, when it was left, and its end.
    is_page && page.checked_add(8).and_then(|at| target.u64(at)) == Some(end)
}

/// Where a script's function has its file's name, by the functions that run: only there lies a
/// string whose neighbours are a first and a last line with the executed one between them.
fn file_by_trial(innermost: u64, target: &dyn Target) -> Option<u64> {
    let mut frame = innermost;
    for _ in 0..MAX_FRAMES {
        if frame == 0 {
            break;
        }
        let field = |offset| target.u64(frame.checked_add(offset)?);
        let (function, opcode) = (field(FUNCTION)?, field(OPCODE)?);
        let fits = |place: &u64| {
            let field = |offset| function.checked_add(*place)?.checked_add(offset);
            string(target.u64(field(0)?)?, MAX_PATH, target)?;
            let (first, last) = (target.u32(field(8)?)?, target.u32(field(12)?)?);
            let line = target.u32(opcode.checked_add(LINE)?)?;
            (first > 0 && (first..=last).contains(&line)).then_some(())
        };
        if function != 0 && target.u8(function) == Some(SCRIPT) {
            let mut fitting = FILES.step_by(8).filter(|place| fits(place).is_some());
            if let (Some(only), None) = (fitting.next(), fitting.next()) {
                return Some(only);
            }
        }
        frame = field(PREVIOUS)?;
    }
    None
}
