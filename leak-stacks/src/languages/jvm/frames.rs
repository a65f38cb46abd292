//! From a frame in the code cache to its caller.
//!
//! Copied stacks end in a system call, so every frame of Java's is one that has made a call: none
//! is still being set up.

use crate::languages::jvm::code::{Blob, CodeCache, Kind};
use crate::languages::jvm::layout::{INTERPRETED_METHOD, INTERPRETED_SENDER, Layout};
use crate::languages::target::Target;
use crate::processor::FRAME_POINTER;
use crate::unwind::registers::Registers;

/// What a frame is named by later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Compiled code, and where it goes on.
    Compiled { code: u64, returns_to: u64 },
    /// An interpreted method, and the address of its present bytecode.
    Interpreted { method: u64, instruction: u64 },
    /// The VM's own code, which is no call of Java's.
    Stub,
}

/// A caller's frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Caller {
    returns_to: u64,
    sp: u64,
    bp: u64,
}

/// Where Java frames are.
#[derive(Debug)]
pub(crate) struct Frames<'a> {
    pub(crate) cache: &'a CodeCache,
    pub(crate) layout: &'a Layout,
    pub(crate) call_stub_return: u64,
    pub(crate) target: &'a dyn Target,
}

impl std::fmt::Debug for dyn Target + '_ {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Target")
    }
}

impl Frames<'_> {
    /// Goes to the caller of the frame that goes on at `returns_to`, given the words of the copied
    /// stack: says what the frame was and where its caller goes on.
    ///
    /// `None` when something does not fit. The code may have been replaced since the call was made;
    /// then what was found there is not what ran.
    pub(crate) fn step(
        &self,
        returns_to: u64,
        registers: &mut Registers,
        word: &dyn Fn(u64) -> Option<u64>,
    ) -> Option<(Found, u64)> {
        let bp = registers.get(FRAME_POINTER);
        let (found, caller) = if returns_to == self.call_stub_return {
            (Found::Stub, by_frame_pointer(bp?, registers.sp(), word)?)
        } else {
            let blob = self.cache.blob(returns_to, self.layout, self.target)?;
            let (found, caller) = match blob.kind {
                Kind::Interpreter => self.interpreted(bp?, registers.sp(), word)?,
                Kind::Compiled | Kind::NativeWrapper => {
                    let returns_to = self.original(&blob, returns_to, registers.sp(), word)?;
                    let found = Found::Compiled { code: blob.address, returns_to };
                    (found, by_size(&blob, registers.sp(), word)?)
                }
                Kind::Stub => (Found::Stub, by_size(&blob, registers.sp(), word)?),
            };
            // Only Java, or the stub through which C++ calls it, calls what is in the cache.
            if blob.kind != Kind::Stub && !self.cache.holds(caller.returns_to) {
                return None;
            }
            (found, caller)
        };
        registers.leave(caller.returns_to, caller.sp, Some(caller.bp));
        Some((found, caller.returns_to))
    }

    /// Where compiled code goes on. When it is to be left for the interpreter, its callee returns
    /// to a handler instead, and the place is kept in the frame.
    fn original(
        &self,
        blob: &Blob,
        returns_to: u64,
        sp: u64,
        word: &dyn Fn(u64) -> Option<u64>,
    ) -> Option<u64> {
        let compiled = &self.layout.compiled;
        let is_handler = compiled
            .deoptimized
            .iter()
            .flatten()
            .any(|handler| handler.find(blob.address, self.target) == Some(returns_to));
        if !is_handler {
            return Some(returns_to);
        }
        let offset = compiled.original.read(blob.address, self.target)?;
        word(sp.checked_add(offset)?).filter(|at| self.cache.holds(*at))
    }

    fn interpreted(
        &self,
        bp: u64,
        sp: u64,
        word: &dyn Fn(u64) -> Option<u64>,
    ) -> Option<(Found, Caller)> {
        let slot = |index: i64| word(bp.wrapping_add_signed(index * 8));
        let outward = by_frame_pointer(bp, sp, word)?;
        // Arguments may lie between the frames, and a call by a method handle drops its last one.
        let sender = slot(INTERPRETED_SENDER)?;
        if sender <= bp || !sender.is_multiple_of(8) {
            return None;
        }
        let method = slot(INTERPRETED_METHOD)?;
        let instruction = slot(self.layout.bytecode)?;
        Some((Found::Interpreted { method, instruction }, Caller { sp: sender, ..outward }))
    }
}

fn by_frame_pointer(bp: u64, sp: u64, word: &dyn Fn(u64) -> Option<u64>) -> Option<Caller> {
    if bp < sp || !bp.is_multiple_of(8) {
        return None;
    }
    let returns_to = word(bp.checked_add(8)?)?;
    Some(Caller { returns_to, sp: bp.checked_add(16)?, bp: word(bp)? })
}

/// All code that the VM compiles saves the frame pointer right below its return address.
fn by_size(blob: &Blob, sp: u64, word: &dyn Fn(u64) -> Option<u64>) -> Option<Caller> {
    if blob.frame < 16 {
        return None;
    }
    let above = sp.checked_add(blob.frame)?;
    Some(Caller { returns_to: word(above - 8)?, sp: above, bp: word(above - 16)? })
}
