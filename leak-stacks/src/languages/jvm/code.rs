//! The code cache: which piece of code holds an address, and what kind it is.

use crate::languages::jvm::layout::{Heaps, Layout};
use crate::languages::target::Target;

/// Most code heaps; there are three today.
const MAX_HEAPS: u64 = 16;
/// Most bytes of a code heap: the VM allows 2 GiB in all.
const MAX_HEAP: u64 = 4 << 30;
/// Most steps from a segment back to where its block begins. Each goes over up to 254 segments of
/// 64 or more bytes, so this allows for blocks of many MiB.
const MAX_STEPS: usize = 1024;
/// Longest name of a piece of code.
const MAX_NAME: usize = 128;
/// What the map of segments says of those that nobody uses.
const FREE: u8 = 0xff;

/// Memory that the VM keeps code in.
#[derive(Clone, Copy, Debug)]
struct Heap {
    low: u64,
    high: u64,
    segments: u64,
    shift: u32,
}

/// What a piece of code is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A method that was compiled, with those that were compiled into it.
    Compiled,
    /// What calls a native function for Java code.
    NativeWrapper,
    Interpreter,
    /// Anything else.
    Stub,
}

/// A piece of code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blob {
    pub(crate) address: u64,
    pub(crate) kind: Kind,
    /// Bytes of its frames.
    pub(crate) frame: u64,
    /// Where its instructions begin.
    pub(crate) code: u64,
}

/// The code cache of a process.
#[derive(Debug)]
pub(crate) struct CodeCache(Vec<Heap>);

impl CodeCache {
    /// Finds its heaps; `None` before the VM has made them. They stay where they are.
    pub(crate) fn find(layout: &Layout, target: &dyn Target) -> Option<Self> {
        let heaps = match layout.heaps {
            Heaps::One(variable) => vec![target.u64(variable)?],
            Heaps::Many { array, length, elements } => {
                let array = target.u64(array).filter(|&array| array != 0)?;
                let count = length.read(array, target).filter(|&count| count <= MAX_HEAPS)?;
                let first = elements.read(array, target)?;
                let all = (0..count).map(|index| target.u64(first.checked_add(index * 8)?));
                all.collect::<Option<_>>()?
            }
        };
        let heap = |at: u64| {
            let word = |offset: u64| target.u64(at.checked_add(offset)?);
            let shift = layout.heap.shift.read(at, target).filter(|shift| (4..=20).contains(shift));
            let (low, high) = (word(layout.heap.low)?, word(layout.heap.high)?);
            (at != 0 && low < high && high - low <= MAX_HEAP).then_some(Heap {
                low,
                high,
                segments: word(layout.heap.segments)?,
                shift: u32::try_from(shift?).ok()?,
            })
        };
        let heaps: Vec<_> = heaps.into_iter().map(heap).collect::<Option<_>>()?;
        (!heaps.is_empty()).then_some(Self(heaps))
    }

    /// Whether an address lies in it.
    pub(crate) fn holds(&self, address: u64) -> bool {
        self.heap_of(address).is_some()
    }

    fn heap_of(&self, address: u64) -> Option<&Heap> {
        self.0.iter().find(|heap| (heap.low..heap.high).contains(&address))
    }

    /// The piece of code that lies at `address` now.
    pub(crate) fn blob(&self, address: u64, layout: &Layout, target: &dyn Target) -> Option<Blob> {
        let heap = self.heap_of(address)?;
        let mut segment = (address - heap.low) >> heap.shift;
        let mut steps = 0..MAX_STEPS;
        loop {
            steps.next()?;
            match target.u8(heap.segments.checked_add(segment)?)? {
                0 => break,
                FREE => return None,
                back => segment = segment.checked_sub(back.into())?,
            }
        }
        let block = heap.low.checked_add(segment << heap.shift)?;
        let length = layout.heap.length.read(block, target)?;
        let is_used = layout.heap.is_used.read(block, target)? == 1;
        let end = block.checked_add(length.checked_shl(heap.shift)?)?;
        if !is_used || address >= end || end > heap.high {
            return None;
        }
        let blob = block.checked_add(layout.heap.header)?;
        let name = target.text(layout.blob.name.read(blob, target)?, MAX_NAME)?;
        let code = layout.blob.code.find(blob, target)?;
        let words = layout.blob.frame_size.read(blob, target)?;
        // -1 and 0: it has no frame of its own.
        let frame = if words as u32 as i32 > 0 { words as u32 } else { 0 };
        ((block..=address).contains(&code)).then_some(Blob {
            address: blob,
            kind: match name.as_str() {
                "nmethod" => Kind::Compiled,
                "native nmethod" => Kind::NativeWrapper,
                "Interpreter" => Kind::Interpreter,
                _ => Kind::Stub,
            },
            frame: u64::from(frame) * 8,
            code,
        })
    }
}
