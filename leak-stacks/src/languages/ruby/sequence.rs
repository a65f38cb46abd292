//! Reads instruction sequences: which method a call is of, and on which line it is.

use crate::languages::call::Call;
use crate::languages::ruby::layout::{
    BODY, INSTRUCTIONS, KIND, LABEL, LENGTH, LINES_COUNT, LINES_PLACES, Layout, MAX_LENGTH,
};
use crate::languages::ruby::lines::Lines;
use crate::languages::ruby::object::{
    ARRAY, CLASSES_AROUND, METHOD_ENTRY, SEQUENCE, first_item, is, is_internal, text,
};
use crate::languages::target::Target;
use crate::raw::InterpreterFrame;

/// User-space addresses have no more bits than this.
const ADDRESS_BITS: u32 = 48;
/// Longest name and path, in bytes, that are believed.
const MAX_NAME: u64 = 512;
const MAX_PATH: u64 = 1024;
/// Most parts of a method that lie in one another, as a `rescue` in an `ensure`.
const MAX_PARTS: usize = 8;
/// Values of [`KIND`] of what is told by the name of what it is in: `ISEQ_TYPE_RESCUE`,
/// `ISEQ_TYPE_ENSURE` and `ISEQ_TYPE_EVAL`.
const PARTS: [u32; 3] = [4, 5, 6];
/// In a method entry (`rb_callable_method_entry_t`): its definition, and the class that has it.
const DEFINITION: u64 = 16;
const OWNER: u64 = 32;
/// In a definition: its type, in the lowest bits, and the sequence.
const DEFINITION_MASK: u32 = 0xf;
const DEFINED_SEQUENCE: u64 = 8;
/// Types of definitions: a method in Ruby, and one that is a block.
const IN_RUBY: u32 = 0;
const BLOCK: u32 = 4;

/// A call as the kernel programs note it.
#[derive(Clone, Copy, Debug)]
struct Noted {
    /// The instruction sequence.
    sequence: u64,
    /// The next instruction.
    instruction: u64,
    /// The method entry, 0 where there is none.
    method: u64,
}

impl From<InterpreterFrame> for Noted {
    fn from(frame: InterpreterFrame) -> Self {
        let low = (frame.position >> ADDRESS_BITS) << 32 | u64::from(frame.cookie);
        let instruction = frame.position & ((1 << ADDRESS_BITS) - 1);
        Self { sequence: frame.pointer, instruction, method: low << 3 }
    }
}

/// What tells a call's sequence from all others of its process: compared before what was read
/// earlier is used again, because a sequence may be freed and its memory reused.
pub(crate) type Fingerprint = [u64; 6];

/// Reads calls of a process.
pub(crate) struct Reader<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) target: &'a dyn Target,
}

/// An instruction sequence that a call is in.
#[derive(Debug)]
pub(crate) struct Found {
    noted: Noted,
    body: u64,
    /// The sequence of the method around it.
    method: u64,
    /// Place of the instruction, in words.
    place: u64,
}

impl Reader<'_> {
    /// The sequence of a call; `None` when there is none any more, or another.
    pub(crate) fn find(&self, frame: InterpreterFrame) -> Option<Found> {
        let noted = Noted::from(frame);
        let body = self.body(noted.sequence)?;
        let length = self.target.u32(body.checked_add(LENGTH)?)?;
        let start = self.target.u64(body.checked_add(INSTRUCTIONS)?)?;
        let offset = noted.instruction.checked_sub(start)?;
        let next = offset / 8;
        if !offset.is_multiple_of(8) || length > MAX_LENGTH || next > u64::from(length) {
            return None;
        }
        let method = self.target.u64(body.checked_add(self.layout.method)?)?;
        // The instruction before the next one, unless nothing has run yet.
        Some(Found { noted, body, method, place: next.saturating_sub(1) })
    }

    pub(crate) fn fingerprint(&self, found: &Found) -> Option<Fingerprint> {
        let field = |at| self.target.u64(found.body.checked_add(at)?);
        let definition = match found.noted.method {
            0 => 0,
            method => self.target.u64(method.checked_add(DEFINITION)?)?,
        };
        let label = field(self.layout.file + LABEL)?;
        Some([
            found.body,
            field(INSTRUCTIONS)?,
            field(self.layout.file)?,
            label,
            found.method,
            definition,
        ])
    }

    /// Names a call.
    pub(crate) fn call(&self, found: &Found) -> Option<Call> {
        let class = self.class(found)?;
        let file = self.file(found.body)?;
        let function = self.function(found, class)?;
        Some(Call {
            function: Some(function),
            module: Some(file.clone()),
            file: Some(file),
            line: self.lines(found.body).and_then(|lines| lines.at(found.place, self.target)),
            offset: found.place,
        })
    }

    /// What comes before the method's name. `Some(None)`: it has no class, or that has no name;
    /// `None`: the noted method is another's by now.
    fn class(&self, found: &Found) -> Option<Option<String>> {
        let (method, target) = (found.noted.method, self.target);
        if method == 0 || is_internal(method, CLASSES_AROUND, target) {
            return Some(None);
        }
        if !is_internal(method, METHOD_ENTRY, target) {
            return None;
        }
        let definition = target.u64(method.checked_add(DEFINITION)?)?;
        match target.u32(definition)? & DEFINITION_MASK {
            IN_RUBY => {
                let sequence = target.u64(definition.checked_add(DEFINED_SEQUENCE)?)?;
                if sequence != found.method {
                    return None;
                }
                let owner = target.u64(method.checked_add(OWNER)?)?;
                let Layout { class, text, .. } = *self.layout;
                Some(class.and_then(|class| class.prefix(owner, text, target)))
            }
            // Its name is the block's, which lies in no method.
            BLOCK => Some(None),
            _ => None,
        }
    }

    fn file(&self, body: u64) -> Option<String> {
        let mut file = self.target.u64(body.checked_add(self.layout.file)?)?;
        if is(file, ARRAY, self.target) {
            file = first_item(file, self.target)?;
        }
        text(file, self.layout.text, MAX_PATH, self.target)
    }

    /// The method's name, with what the call is in of it.
    fn function(&self, found: &Found, class: Option<String>) -> Option<String> {
        let mut body = found.body;
        for _ in 0..MAX_PARTS {
            if !PARTS.contains(&self.target.u32(body.checked_add(KIND)?)?) {
                break;
            }
            body = self.body(self.target.u64(body.checked_add(self.layout.method - 8)?)?)?;
        }
        let label = self.label(body)?;
        let Some(class) = class else { return Some(label) };
        let method = self.label(self.body(found.method)?)?;
        // Blocks are told by where they are: `block in pay` becomes `block in Shop#pay`.
        Some(match label.strip_suffix(method.as_str()) {
            Some(start) => format!("{start}{class}{method}"),
            None => label,
        })
    }

    fn label(&self, body: u64) -> Option<String> {
        let label = self.target.u64(body.checked_add(self.layout.file + LABEL)?)?;
        text(label, self.layout.text, MAX_NAME, self.target)
    }

    fn lines(&self, body: u64) -> Option<Lines> {
        let at = body.checked_add(self.layout.lines)?;
        Some(Lines {
            entries: self.target.u64(at)?,
            count: self.target.u32(at.checked_add(LINES_COUNT)?)?,
            entry_size: self.layout.line_size,
            places: self.target.u64(at.checked_add(LINES_PLACES)?)?,
        })
    }

    fn body(&self, sequence: u64) -> Option<u64> {
        if !is_internal(sequence, SEQUENCE, self.target) {
            return None;
        }
        self.target.u64(sequence.checked_add(BODY)?)
    }
}
