//! From a JavaScript frame to what it runs, by the words of the copied stack.
//!
//! The stack is as it was at the time of the call, the heap as it is now. What the frame says of
//! its function, of its bytecode and of its code must agree, or the frame is not told.

use crate::languages::v8::code::{
    BytecodeSizes, Code, CodeMaps, Kind, bytecode_of, frame_size_of, is_instruction,
};
use crate::languages::v8::heap::{Heap, pointer, small};
use crate::languages::v8::index::Index;
use crate::languages::v8::layout::Layout;
use crate::time::Timestamp;

/// Most bytes of arguments of one call.
const MAX_ARGUMENTS: u64 = 4096;
/// Greatest type of a frame; Node.js 24 has 31.
const MAX_FRAME_TYPE: u64 = 63;

/// What a frame is named by later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A function, given what its closures share, at a place in its bytecode.
    Bytecode { shared: u64, offset: u32 },
    /// Optimised code, and where it goes on.
    Optimised { code: u64, returns_to: u64 },
}

/// The code that a frame is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Region {
    /// V8's own, such as its interpreter.
    Library,
    /// What was compiled at run time.
    Compiled,
}

/// A frame, by its frame pointer.
pub(crate) struct Frame<'a> {
    pub(crate) bp: u64,
    pub(crate) returns_to: u64,
    pub(crate) region: Region,
    /// The words of the stack.
    pub(crate) word: &'a dyn Fn(u64) -> Option<u64>,
    pub(crate) sizes: &'a BytecodeSizes,
    /// The end of what it has called.
    pub(crate) sp: u64,
    /// What V8's code has the isolate's roots by.
    pub(crate) roots: Option<u64>,
    pub(crate) now: Timestamp,
}

impl Frame<'_> {
    fn slot(&self, offset: i64) -> Option<u64> {
        (self.word)(self.bp.checked_add_signed(offset)?)
    }

    fn object(&self, offset: i64) -> Option<u64> {
        pointer(self.slot(offset)?)
    }

    /// Whether it is one of V8's, by what is right below the frame pointer: a context, or the type
    /// of a frame without one, times two.
    pub(crate) fn is_marked(&self, layout: &Layout) -> bool {
        let is_type =
            |word: u64| word.is_multiple_of(2) && (1..=MAX_FRAME_TYPE).contains(&(word / 2));
        self.slot(layout.frame.context).is_some_and(|word| is_type(word) || pointer(word).is_some())
    }

    /// What the frame runs; `None` when it is none of JavaScript's, or not what it was any more.
    pub(crate) fn find(
        &self,
        index: &mut Index,
        maps: &mut CodeMaps,
        heap: Heap<'_>,
    ) -> Option<Found> {
        let frame = &heap.layout.frame;
        // V8's other frames have their type there.
        self.object(frame.context)?;
        self.object(frame.function)?;
        let code = match self.region {
            Region::Library => None,
            Region::Compiled => Code::that_goes_on_at(self.returns_to, maps, heap),
        };
        match code {
            Some(code) if code.kind == Kind::Optimised => self.optimised(code, heap),
            Some(code) if code.kind == Kind::Baseline => self.unoptimised(Some(code), index, heap),
            _ => self.unoptimised(None, index, heap),
        }
    }

    fn optimised(&self, code: Code, heap: Heap<'_>) -> Option<Found> {
        let shared = code.shared(heap)?;
        let said = self.shared_of_function(heap);
        // A closure may have moved since; then the slot is of no use.
        if said.is_some_and(|said| said != shared) {
            return None;
        }
        Some(Found::Optimised { code: code.address, returns_to: self.returns_to })
    }

    fn unoptimised(
        &self,
        baseline: Option<Code>,
        index: &mut Index,
        heap: Heap<'_>,
    ) -> Option<Found> {
        let bytecode = self.object(heap.layout.frame.bytecode)?;
        heap.is(bytecode, heap.layout.types.bytecode).then_some(())?;
        let offset = match baseline {
            Some(code) => {
                (code.bytecode(heap)? == bytecode).then_some(())?;
                code.bytecode_offset(self.returns_to, self.sizes, heap)?
            }
            None => {
                // Counted from the pointer to the array, which has its tag.
                let place = small(self.slot(heap.layout.frame.bytecode_offset)?)?;
                let first = heap.layout.bytecode.data.checked_sub(1)?;
                u32::try_from(u64::try_from(place).ok()?.checked_sub(first)?).ok()?
            }
        };
        let is_its = is_instruction(bytecode, offset, self.sizes, heap)?
            && self.has_room(frame_size_of(bytecode, heap)?, heap);
        is_its.then_some(())?;
        let said = [self.shared_of_function(heap), self.shared_of_feedback(heap)];
        let mut said = said.into_iter().flatten();
        let Some(shared) = said.find(|&shared| bytecode_of(shared, heap) == Some(bytecode)) else {
            let shared = index.find(bytecode, self.roots, self.now, heap)?;
            return Some(Found::Bytecode { shared, offset });
        };
        index.meet(bytecode, shared);
        Some(Found::Bytecode { shared, offset })
    }

    /// Whether so many bytes of registers are what is between the frame's fixed part and what it
    /// has called, but for the arguments of that.
    fn has_room(&self, registers: u64, heap: Heap<'_>) -> bool {
        let fixed = heap.layout.frame.bytecode_offset;
        let used = self.bp.checked_add_signed(fixed).and_then(|end| end.checked_sub(registers));
        used.and_then(|used| used.checked_sub(self.sp)).is_some_and(|rest| rest <= MAX_ARGUMENTS)
    }

    /// What the closure in the frame shares with others of its function; `None` when there is none
    /// any more.
    fn shared_of_function(&self, heap: Heap<'_>) -> Option<u64> {
        let function = self.object(heap.layout.frame.function)?;
        let kind = heap.instance_type(function)?;
        heap.layout.types.functions.contains(&kind).then_some(())?;
        let shared = heap.object(function, heap.layout.function_shared)?;
        heap.is(shared, heap.layout.types.shared).then_some(shared)
    }

    /// The same by the function's feedback, which moves less than closures do.
    fn shared_of_feedback(&self, heap: Heap<'_>) -> Option<u64> {
        let layout = heap.layout;
        let slots = layout.frame.feedback.iter().filter_map(|slot| self.object(*slot));
        let mut feedback = slots.filter(|slot| heap.is(*slot, layout.types.feedback));
        let shared = heap.object(feedback.next()?, layout.shared.of_feedback)?;
        heap.is(shared, layout.types.shared).then_some(shared)
    }
}
