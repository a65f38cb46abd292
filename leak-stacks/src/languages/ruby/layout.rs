//! Where a release of Ruby keeps what is read of it.
//!
//! Releases and even patches move fields, and nothing in the process describes them. So each place
//! is found by what must be true of it in all the calls that the main thread has at the moment: a
//! sequence's names are strings, its table of lines is no longer than the sequence, and the
//! sequence of the program itself is its own outermost one. What does not fit is not read at all.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::languages::ruby::class::ClassLayout;
use crate::languages::ruby::find::{Place, Stack, Thread};
use crate::languages::ruby::object::{ARRAY, SEQUENCE, STRING, TextForm, is, is_internal};
use crate::languages::target::Target;
use crate::raw::{InterpreterProfile, PROFILE_PARAMETERS, walker};

/// In a control frame (`rb_control_frame_t`): its instruction sequence.
const SEQUENCE_OF_FRAME: u64 = 16;
/// In an instruction sequence (`rb_iseq_t`): its body.
pub(crate) const BODY: u64 = 16;
/// In a body (`struct rb_iseq_constant_body`): its type and length, both of 32 bits, and the
/// address of its instructions.
pub(crate) const KIND: u64 = 0;
pub(crate) const LENGTH: u64 = 4;
pub(crate) const INSTRUCTIONS: u64 = 8;
/// From a body's file: its name with that of the blocks around it.
pub(crate) const LABEL: u64 = 16;
/// From a body's table of lines: a pointer that is only used while it is made, its length, and its
/// set of bits.
const LINES_SPARE: u64 = 8;
pub(crate) const LINES_COUNT: u64 = 16;
pub(crate) const LINES_PLACES: u64 = 24;
/// Longest sequence that is believed, in words.
pub(crate) const MAX_LENGTH: u32 = 1 << 24;
/// Values of [`KIND`]: `ISEQ_TYPE_METHOD` and `ISEQ_TYPE_MAIN`.
const METHOD: u32 = 1;
const MAIN: u32 = 7;
/// Marks a parameter that does not apply.
pub(crate) const ABSENT: u32 = u32::MAX;

/// Sizes of a control frame.
const FRAME_SIZES: [u32; 4] = [56, 64, 48, 72];
/// Most frames that are looked at.
const MAX_FRAMES: usize = 64;
/// Where in a body fields are looked for.
const BODY_SIZE: u64 = 400;

/// Everything about a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Layout {
    /// Size of a control frame.
    pub(crate) frame_size: u32,
    /// In a body: its file.
    pub(crate) file: u64,
    /// In a body: its table of lines.
    pub(crate) lines: u64,
    /// In a body: the sequence of the method around it; right before, the next one outward.
    pub(crate) method: u64,
    /// Size of an entry of the table of lines.
    pub(crate) line_size: u32,
    /// How strings keep their bytes.
    pub(crate) text: TextForm,
    /// How classes keep their names; `None` where that was not recognised.
    pub(crate) class: Option<ClassLayout>,
}

impl Layout {
    /// The layout by the calls of a thread; `None` while there are too few, and when it is not
    /// recognised.
    pub(crate) fn find(place: &Place, thread: &Thread, target: &dyn Target) -> Option<Self> {
        let text = target.text(place.version, 16)?;
        let version = text.split_once('.').and_then(|(major, rest)| {
            let minor = rest.split('.').next()?;
            Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
        })?;
        let line_size = if version < (3, 1) { 8 } else { 12 };
        let stack = Stack::of(thread.context, target)?;
        let found = FRAME_SIZES.iter().find_map(|&size| Some((size, frames(stack, size, target)?)));
        let (frame_size, sequences) = found?;
        let bodies = Bodies { sequences, target };
        let file = bodies.find(BODY, |body, at| bodies.is_file(body + at))?;
        let from = file + LABEL + 8;
        let lines = bodies.find(from, |body, at| bodies.are_lines(body, at))?;
        let method = bodies.find_method(lines + LINES_PLACES + 8)?;
        let [class, text] = TextForm::FORMS.map(|form| ClassLayout::find(place, form, target));
        let (text, class) = match (class, text) {
            (Some(class), _) => (TextForm::Bare, Some(class)),
            (None, Some(class)) => (TextForm::Counted, Some(class)),
            (None, None) => {
                (if version < (3, 2) { TextForm::Bare } else { TextForm::Counted }, None)
            }
        };
        Some(Self { frame_size, file, lines, method, line_size, text, class })
    }

    /// The first instruction of the outermost call of a thread.
    pub(crate) fn some_instruction(&self, thread: &Thread, target: &dyn Target) -> Option<u64> {
        let stack = Stack::of(thread.context, target)?;
        let sequence = *frames(stack, self.frame_size, target)?.last()?;
        let body = target.u64(sequence.checked_add(BODY)?)?;
        target.u64(target.u64(body.checked_add(INSTRUCTIONS)?)?)
    }

    /// What the kernel programs need.
    pub(crate) fn profile(&self, thread: &Thread) -> InterpreterProfile {
        let mut parameters = [0; PROFILE_PARAMETERS];
        let context = thread.context_offset.unwrap_or(ABSENT);
        let known = [thread.slot.cast_unsigned(), context, self.frame_size];
        parameters[..known.len()].copy_from_slice(&known);
        let mut hasher = DefaultHasher::new();
        (self, parameters).hash(&mut hasher);
        let hash = hasher.finish();
        let tag = (hash ^ (hash >> 32)) as u32;
        InterpreterProfile { kind: walker::RUBY, tag, parameters }
    }
}

/// The sequences of a stack's frames, when frames of this size lie there.
fn frames(stack: Stack, size: u32, target: &dyn Target) -> Option<Vec<u64>> {
    let length = stack.end - stack.innermost;
    if !length.is_multiple_of(size.into()) {
        return None;
    }
    let mut sequences = Vec::new();
    for index in 0..(length / u64::from(size)).min(MAX_FRAMES as u64) {
        let frame = stack.innermost + index * u64::from(size);
        let sequence = target.u64(frame + SEQUENCE_OF_FRAME)?;
        if sequence == 0 {
            continue;
        }
        if !is_internal(sequence, SEQUENCE, target) {
            return None;
        }
        sequences.push(sequence);
    }
    (!sequences.is_empty()).then_some(sequences)
}

/// The sequences that a layout must fit.
struct Bodies<'a> {
    sequences: Vec<u64>,
    target: &'a dyn Target,
}

impl Bodies<'_> {
    fn iter(&self) -> impl Iterator<Item = (u64, Option<u64>)> {
        // Far from where adding to it could overflow.
        let body = |sequence| self.target.u64(sequence + BODY).filter(|&body| body < 1 << 56);
        self.sequences.iter().map(move |&sequence| (sequence, body(sequence)))
    }

    /// The first place from `from` on that fits all bodies.
    fn find(&self, from: u64, fits: impl Fn(u64, u64) -> bool) -> Option<u64> {
        let fits_all = |at: &u64| self.iter().all(|(_, body)| body.is_some_and(|b| fits(b, *at)));
        (from..BODY_SIZE).step_by(8).find(fits_all)
    }

    /// A file, a name, and a name with those of the blocks around it.
    fn is_file(&self, at: u64) -> bool {
        let is_string = |offset| {
            let object = self.target.u64(at + offset);
            object.is_some_and(|object| is(object, STRING, self.target))
        };
        let file = self.target.u64(at);
        let is_pair = file.is_some_and(|file| is(file, ARRAY, self.target));
        (is_pair || is_string(0)) && is_string(8) && is_string(LABEL)
    }

    fn are_lines(&self, body: u64, at: u64) -> bool {
        let target = self.target;
        let looks = || {
            let length = target.u32(body + LENGTH)?;
            let entries = target.u64(body + at)?;
            let spare = target.u64(body + at + LINES_SPARE)?;
            let count = u32::try_from(target.u64(body + at + LINES_COUNT)?).ok()?;
            let places = target.u64(body + at + LINES_PLACES)?;
            // Some are of no line, 0.
            let is_line = i32::try_from(target.u32(entries)?).is_ok();
            let fits = spare == 0 && (1..=length.min(MAX_LENGTH)).contains(&count);
            Some(fits && is_line && places.is_multiple_of(8) && target.u64(places).is_some())
        };
        looks() == Some(true)
    }

    /// The sequence of the method around each: of methods and of the program themselves.
    fn find_method(&self, from: u64) -> Option<u64> {
        let is_own = |(sequence, body): (u64, Option<u64>), at| {
            let (Some(around), Some(kind)) = (
                body.and_then(|body| self.target.u64(body + at)),
                body.and_then(|body| self.target.u32(body + KIND)),
            ) else {
                return false;
            };
            match kind {
                METHOD | MAIN => around == sequence,
                _ => is_internal(around, SEQUENCE, self.target),
            }
        };
        (from..BODY_SIZE).step_by(8).find(|&at| self.iter().all(|body| is_own(body, at)))
    }
}
