//! What V8's compilers make: whose code it is, and where in it a call was made.

use std::cmp::Ordering;

use crate::bytes::{u32_at, u64_at};
use crate::languages::v8::function::Function;
use crate::languages::v8::heap::{Heap, pointer, small, weak_pointer};
use crate::languages::v8::layout::ARRAY_LENGTH;
use crate::languages::v8::positions::{SourcePosition, bytecode_offset_at, position_at};
use crate::languages::v8::safepoints::call_of_exit;
use crate::unwind::emulate::ends_with_call;

/// Largest piece of code whose beginning is looked for, and how much of it is read at once.
const MAX_CODE: u64 = 1 << 20;
const AT_ONCE: u64 = 4096;
/// The same for the first piece of a process, and most maps of such that are known.
const MAX_FIRST: u64 = 64 << 10;
const MAX_MAPS: usize = 8;
/// Longest call instruction.
const LONGEST_CALL: u64 = 7;
/// Most calls that were compiled into one another.
const MAX_INLINED: usize = 64;
/// Size of an inlined call's note: where it is, and of which function.
const INLINED: usize = 16;
/// In place of the number of an inlined function: the function itself.
const OWN: u32 = u32::MAX;
/// Longest table of calls.
const MAX_TABLE: usize = 256 << 10;
/// Longest bytecode.
const MAX_BYTECODE: u64 = 1 << 20;

/// A piece of compiled code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Code {
    /// The object that describes it.
    pub(crate) address: u64,
    pub(crate) kind: Kind,
    start: u64,
}

/// What objects that have code begin with: pointers to their maps.
#[derive(Debug, Default)]
pub(crate) struct CodeMaps(Vec<u64>);

/// What made a piece of code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// V8's own, such as a copy of what runs its interpreter.
    Builtin,
    Baseline,
    Optimised,
}

/// A call of a function at a place in its script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// What the function's closures share.
    pub(crate) shared: u64,
    /// Where in the script; `None`: where the function begins is all that is known.
    pub(crate) offset: Option<u32>,
}

impl Code {
    /// The code that goes on at this address after a call.
    pub(crate) fn that_goes_on_at(
        returns_to: u64,
        maps: &mut CodeMaps,
        heap: Heap<'_>,
    ) -> Option<Self> {
        let known = Self::before(returns_to, MAX_CODE, heap, |map| maps.0.contains(&map));
        let has = |(code, _): &(Self, u64)| code.has(returns_to, heap);
        if let Some((code, _)) = known.filter(has) {
            return Some(code);
        }
        // Nothing is known of the first piece of code that is met, or of an isolate's.
        let new = Self::before(returns_to, MAX_FIRST, heap, |map| !maps.0.contains(&map));
        let (code, map) = new.filter(has)?;
        if maps.0.len() < MAX_MAPS {
            maps.0.push(map);
        }
        Some(code)
    }

    /// The nearest object before an address that describes code, and the word that it begins with,
    /// which is a pointer to its map.
    fn before(
        address: u64,
        most: u64,
        heap: Heap<'_>,
        is_wanted: impl Fn(u64) -> bool,
    ) -> Option<(Self, u64)> {
        let lowest = address.saturating_sub(most);
        let mut end = address & !7;
        while end > lowest {
            let begin = lowest.max((end - 1) & !(AT_ONCE - 1));
            let length = usize::try_from(end - begin).ok()?;
            let words = heap.target.bytes(begin, length)?;
            for offset in (0..length).step_by(8).rev() {
                let map = u64_at(&words, offset)?;
                if pointer(map).is_none() || !is_wanted(map) {
                    continue;
                }
                if let Some(code) = Self::described_at(begin + offset as u64, heap) {
                    return code.map(|code| (code, map));
                }
            }
            end = begin;
        }
        None
    }

    /// The code whose machine instructions are in the object at this address; `None` when there is
    /// no such object, `Some(None)` when it is one that is not understood.
    fn described_at(object: u64, heap: Heap<'_>) -> Option<Option<Self>> {
        let layout = heap.layout;
        let kind = heap.instance_type(object)?;
        let Some(instructions) = layout.types.instructions else {
            return (kind == layout.types.code).then(|| Self::at(object, heap));
        };
        (kind == instructions).then(|| {
            let code = Self::at(heap.object(object, 8)?, heap)?;
            (code.start == object.checked_add(layout.code.instructions)?).then_some(code)
        })
    }

    /// The code that an object describes.
    pub(crate) fn at(address: u64, heap: Heap<'_>) -> Option<Self> {
        let layout = &heap.layout.code;
        heap.is(address, heap.layout.types.code).then_some(())?;
        let start = match layout.start {
            Some(start) => heap.word(address, start)?,
            None => address.checked_add(layout.instructions)?,
        };
        let flags = heap.target.u32(address.checked_add(layout.flags)?)?;
        // Kinds are numbered from the interpreter's code to the most optimised.
        let kind = match (flags & layout.kind_mask).cmp(&layout.kind_baseline) {
            Ordering::Less => Kind::Builtin,
            Ordering::Equal => Kind::Baseline,
            Ordering::Greater => Kind::Optimised,
        };
        Some(Self { address, kind, start })
    }

    /// Whether it goes on at this address after a call.
    fn has(&self, returns_to: u64, heap: Heap<'_>) -> bool {
        let size = self.number(heap.layout.code.size, heap).unwrap_or(0);
        returns_to > self.start && returns_to - self.start <= size.into()
    }

    fn number(&self, offset: u64, heap: Heap<'_>) -> Option<u32> {
        heap.target.u32(self.address.checked_add(offset)?)
    }

    /// Where in its instructions it goes on at this address, which must be after a call.
    fn place_of(&self, returns_to: u64, heap: Heap<'_>) -> Option<u32> {
        let call =
            heap.target.bytes(returns_to.checked_sub(LONGEST_CALL)?, LONGEST_CALL as usize)?;
        ends_with_call(&call).then_some(())?;
        u32::try_from(returns_to.checked_sub(self.start)?).ok()
    }

    /// The same for optimised code that may be no longer valid.
    fn place_before_exit(&self, returns_to: u64, data: u64, heap: Heap<'_>) -> Option<u32> {
        let exits = heap.element(data, heap.layout.code.inlined.checked_add(1)?)?;
        let exits = u32::try_from(small(exits)?).ok()?;
        let exit = u32::try_from(returns_to.checked_sub(self.start)?).ok()?;
        if exit <= exits {
            return self.place_of(returns_to, heap);
        }
        // The table is behind the instructions.
        let size = self.number(heap.layout.code.size, heap)?;
        let table = self.start.checked_add(size.into())?;
        let table = heap.target.bytes_up_to(table, MAX_TABLE)?;
        let place = call_of_exit(&table, exit, exits)?;
        self.place_of(self.start.checked_add(place.into())?, heap)
    }

    /// The bytecode that baseline code was made from.
    pub(crate) fn bytecode(&self, heap: Heap<'_>) -> Option<u64> {
        let data = heap.object(self.address, heap.layout.code.data)?;
        bytecode_in(data, heap)
    }

    /// Where in its bytecode baseline code goes on at this address.
    pub(crate) fn bytecode_offset(
        &self,
        returns_to: u64,
        sizes: &BytecodeSizes,
        heap: Heap<'_>,
    ) -> Option<u32> {
        let table = heap.bytes(heap.object(self.address, heap.layout.code.positions)?)?;
        let bytecode = instructions_of(self.bytecode(heap)?, heap)?;
        bytecode_offset_at(&table, self.place_of(returns_to, heap)?, sizes.lengths(&bytecode))
    }

    /// The function that optimised code is of.
    pub(crate) fn shared(&self, heap: Heap<'_>) -> Option<u64> {
        let layout = heap.layout;
        let data = heap.object(self.address, layout.code.data)?;
        shared_in(heap.element(data, layout.code.shared)?, heap)
    }

    /// The calls at the place in optimised code that goes on at this address, innermost first.
    pub(crate) fn places(&self, returns_to: u64, heap: Heap<'_>) -> Option<Vec<Place>> {
        let layout = &heap.layout.code;
        let data = heap.object(self.address, layout.data)?;
        let own = self.shared(heap)?;
        let table = heap.bytes(heap.object(self.address, layout.positions)?)?;
        // The call is before the place where it goes on.
        let place = self.place_before_exit(returns_to, data, heap)?.checked_sub(1)?;
        let Some(mut position) = position_at(&table, place) else {
            return Some(vec![Place { shared: own, offset: None }]);
        };
        let inlined = heap.bytes(pointer(heap.element(data, layout.inlined)?)?)?;
        let literals = pointer(heap.element(data, layout.literals)?)?;
        let mut places = Vec::new();
        while let Some(index) = position.inlined {
            // Calls are noted before those that were compiled into them.
            let note = usize::try_from(index).ok()?.checked_mul(INLINED)?;
            let literal = u32_at(&inlined, note.checked_add(8)?)?;
            let shared = match literal {
                OWN => own,
                _ => shared_in(heap.element(literals, literal.into())?, heap)?,
            };
            places.push(Place::of(shared, position, heap)?);
            let outer = SourcePosition::of(u64_at(&inlined, note)?.cast_signed())?;
            if places.len() > MAX_INLINED || outer.inlined.is_some_and(|outer| outer >= index) {
                return None;
            }
            position = outer;
        }
        places.push(Place::of(own, position, heap)?);
        Some(places)
    }
}

impl Place {
    /// The position of a function that it is no longer in, as V8 has not worked out where its
    /// instructions are in the script, is where it begins.
    fn of(shared: u64, position: SourcePosition, heap: Heap<'_>) -> Option<Self> {
        let function = Function::read(shared, heap)?;
        let start = function.range.map(|range| range.start);
        let offset = Some(position.offset).filter(|offset| start != Some(*offset));
        Some(Self { shared, offset })
    }
}

/// The `SharedFunctionInfo` that a word leads to.
fn shared_in(word: u64, heap: Heap<'_>) -> Option<u64> {
    let types = &heap.layout.types;
    let object = weak_pointer(word)?;
    let kind = heap.instance_type(object)?;
    if kind == types.shared {
        return Some(object);
    }
    (Some(kind) == types.shared_wrapper).then_some(())?;
    heap.object(object, 8).filter(|shared| heap.is(*shared, types.shared))
}

/// The bytecode of a function, given what its closures share.
pub(crate) fn bytecode_of(shared: u64, heap: Heap<'_>) -> Option<u64> {
    let data = heap.object(shared, heap.layout.shared.data)?;
    if !heap.is(data, heap.layout.types.code) {
        return bytecode_in(data, heap);
    }
    Code::at(data, heap).filter(|code| code.kind == Kind::Baseline)?.bytecode(heap)
}

/// The bytecode that an object is, or has beside a trampoline.
fn bytecode_in(object: u64, heap: Heap<'_>) -> Option<u64> {
    let types = &heap.layout.types;
    let kind = heap.instance_type(object)?;
    if kind == types.bytecode {
        return Some(object);
    }
    (kind == types.interpreter_data).then_some(())?;
    heap.object(object, 8).filter(|bytecode| heap.is(*bytecode, types.bytecode))
}

/// Where in its script the instruction at a place in bytecode is; `None` when V8 has not worked it
/// out, which it does only when something asks for a trace.
pub(crate) fn place_in_script(bytecode: u64, offset: u32, heap: Heap<'_>) -> Option<u32> {
    let table = heap.bytes(heap.object(bytecode, heap.layout.bytecode.positions)?)?;
    Some(position_at(&table, offset)?.offset)
}

/// Whether an instruction begins at a place in bytecode. Where V8's table of their lengths is not
/// known, any place may be one.
pub(crate) fn is_instruction(
    bytecode: u64,
    offset: u32,
    sizes: &BytecodeSizes,
    heap: Heap<'_>,
) -> Option<bool> {
    let instructions = instructions_of(bytecode, heap)?;
    if sizes.0.is_empty() {
        return Some((offset as usize) < instructions.len());
    }
    let mut at = 0;
    for length in sizes.lengths(&instructions) {
        if at >= offset {
            break;
        }
        at = at.checked_add(length)?;
    }
    Some(at == offset && (offset as usize) < instructions.len())
}

/// How many bytes the registers of bytecode take in a frame.
pub(crate) fn frame_size_of(bytecode: u64, heap: Heap<'_>) -> Option<u64> {
    let size = heap.target.u32(bytecode.checked_add(heap.layout.bytecode.frame_size)?)?;
    Some(size.into())
}

fn instructions_of(bytecode: u64, heap: Heap<'_>) -> Option<Vec<u8>> {
    let length = u64::try_from(heap.small(bytecode, ARRAY_LENGTH)?).ok()?;
    (length <= MAX_BYTECODE).then_some(())?;
    let first = bytecode.checked_add(heap.layout.bytecode.data)?;
    heap.target.bytes(first, usize::try_from(length).ok()?)
}

/// How long bytecodes are: alone, and behind each of two prefixes that widen their operands.
#[derive(Debug, Default)]
pub(crate) struct BytecodeSizes(Vec<u8>);

impl BytecodeSizes {
    /// V8's table, which has the three rows one after the other.
    pub(crate) fn new(table: Vec<u8>) -> Self {
        Self(table)
    }

    /// The length of each instruction with its prefix.
    fn lengths<'a>(&'a self, bytecode: &'a [u8]) -> impl Iterator<Item = u32> + 'a {
        let mut at = 0;
        std::iter::from_fn(move || {
            let first = usize::from(*bytecode.get(at)?);
            // `Wide`, `ExtraWide`, and the same for debugging.
            let (prefix, row) = if first < 4 { (1, 1 + first % 2) } else { (0, 0) };
            let code = usize::from(*bytecode.get(at + prefix)?);
            let count = self.0.len() / 3;
            let size = self.0.get(row * count + code).filter(|size| **size > 0 && code < count)?;
            let length = prefix + usize::from(*size);
            at += length;
            u32::try_from(length).ok()
        })
    }
}
