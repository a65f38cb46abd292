//! From registers and stack bytes to return addresses.

use std::cell::Cell;
use std::fmt;
use std::fs::File;
use std::sync::Arc;

use framehop::x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64};
use framehop::{ExplicitModuleSectionInfo, FrameAddress, Module, Unwinder};

use super::elf::Elf;
use super::guard::Guard;
use super::guarded;
use super::modules::{Mapping, Modules};
use super::raw::RawStack;

/// Most calls of one stack that are followed.
pub(super) const MAX_DEPTH: usize = 512;

/// Section contents that unwinder and owner share.
pub(super) type Bytes = Arc<[u8]>;

/// How a stack walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum End {
    /// At the thread's first function.
    Root,
    /// At a frame without a caller, in code that says nothing about unwinding; the name of the
    /// function decides whether it is the first.
    MaybeRoot,
    /// Above the copied bytes; a longer copy would have shown more.
    CopyTooShort,
    /// At an address outside of the known mappings: code that was loaded later, or no code at all.
    Unmapped,
    /// At something that cannot be followed.
    Lost,
}

/// The addresses of a stack.
#[derive(Debug)]
pub(super) struct Walk {
    /// For every frame an address inside its current instruction, innermost first: the
    /// instruction pointer, then return addresses less one, because a call may be its function's
    /// last instruction.
    pub(super) addresses: Vec<u64>,
    pub(super) end: End,
}

/// A binary's unwind rules, in its own address numbering, so that all its processes share them.
pub(super) struct FrameRules {
    unwinder: UnwinderX86_64<Bytes>,
    cache: CacheX86_64,
    /// Whether the binary has any; without, only frame pointers can be followed.
    present: bool,
    guard: Guard,
    bytes: u64,
}

impl fmt::Debug for FrameRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameRules").field("present", &self.present).finish_non_exhaustive()
    }
}

/// What one step outward led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// To the frame with this return address.
    Caller(u64),
    /// There is no caller.
    End(End),
}

impl FrameRules {
    /// Rules of code that no file backs: frame pointers.
    fn absent() -> Self {
        Self {
            unwinder: UnwinderX86_64::new(),
            cache: CacheX86_64::new(),
            present: false,
            guard: Guard::default(),
            bytes: 0,
        }
    }

    /// Reads a binary's rules.
    pub(super) fn read(elf: &Elf, file: &File) -> Self {
        let bytes = Cell::new(0);
        let range =
            |name| elf.section(name).and_then(|s| Some(s.address..s.address.checked_add(s.size)?));
        let data = |name| {
            let data = elf.data(file, elf.section(name)?).ok().filter(|d| !d.is_empty())?;
            bytes.set(bytes.get() + data.len() as u64);
            Some(Bytes::from(data))
        };
        let eh_frame = data(".eh_frame");
        // An empty .eh_frame must not hide .debug_frame.
        let debug_frame = if eh_frame.is_none() { data(".debug_frame") } else { None };
        let eh_frame_hdr = if eh_frame.is_some() { data(".eh_frame_hdr") } else { None };
        let present = eh_frame.is_some() || debug_frame.is_some();
        if !present {
            return Self::absent();
        }
        let sections = ExplicitModuleSectionInfo {
            base_svma: 0,
            text_svma: range(".text"),
            eh_frame_svma: range(".eh_frame"),
            eh_frame,
            eh_frame_hdr_svma: range(".eh_frame_hdr"),
            eh_frame_hdr,
            debug_frame,
            got_svma: range(".got"),
            ..ExplicitModuleSectionInfo::default()
        };
        let Some(guard) = Guard::new(&sections) else { return Self::absent() };
        let mut unwinder = UnwinderX86_64::new();
        unwinder.add_module(Module::new(String::new(), 0..u64::MAX, 0, sections));
        Self { unwinder, cache: CacheX86_64::new(), present, guard, bytes: bytes.get() }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether the binary has any.
    pub(super) fn is_present(&self) -> bool {
        self.present
    }

    /// One step outward from the frame at `address` of the binary.
    fn step(
        &mut self,
        address: u64,
        innermost: bool,
        registers: &mut UnwindRegsX86_64,
        raw: &RawStack,
    ) -> Step {
        let frame = if innermost {
            Some(FrameAddress::from_instruction_pointer(address))
        } else {
            // framehop subtracts one again.
            address.checked_add(1).and_then(FrameAddress::from_return_address)
        };
        let Some(frame) = frame.filter(|_| self.guard.allows(address)) else {
            return Step::End(End::Lost);
        };
        let missing = Cell::new(None);
        let mut read = |at: u64| {
            raw.word(at).ok_or_else(|| {
                if at >= raw.sp {
                    missing.set(Some(at));
                }
            })
        };
        let result = self.unwinder.unwind_frame(frame, registers, &mut self.cache, &mut read);
        if let Some(at) = missing.get() {
            // framehop answers a failed read with a guess by frame pointer, and remembers that
            // guess for the address: both are for this stack only.
            self.cache = CacheX86_64::new();
            let end = if raw.cut_before(at) { End::CopyTooShort } else { End::Lost };
            return Step::End(end);
        }
        match result {
            Ok(Some(caller)) => Step::Caller(caller),
            Ok(None) if self.present => Step::End(End::Root),
            Ok(None) | Err(framehop::Error::ReturnAddressIsNull) => Step::End(End::MaybeRoot),
            Err(_) => Step::End(End::Lost),
        }
    }
}

/// Walks stacks; keeps the rules for code that no file backs.
#[derive(Debug)]
pub(super) struct Walker {
    fallback: FrameRules,
}

impl Walker {
    pub(super) fn new() -> Self {
        Self { fallback: FrameRules::absent() }
    }

    /// Follows a stack outward as far as it goes.
    pub(super) fn walk(&mut self, raw: &RawStack, modules: &Modules) -> Walk {
        let mut registers = UnwindRegsX86_64::new(raw.ip, raw.sp, raw.bp);
        let mut addresses = Vec::with_capacity(32);
        let mut address = raw.ip;
        let end = loop {
            let innermost = addresses.is_empty();
            let Some(mapping) = modules.find(address) else {
                // A wrong guess may have led here, so what was found is no frame.
                break End::Unmapped;
            };
            if addresses.len() >= MAX_DEPTH {
                break End::Lost;
            }
            addresses.push(address);
            let sp = registers.sp();
            let step = guarded(|| self.step(mapping, address, innermost, &mut registers, raw));
            let Some(step) = step else { break End::Lost };
            match step {
                Step::End(end) => break end,
                // Stacks grow downward: a caller's frame lies above, or the walk would not end.
                Step::Caller(_) if registers.sp() <= sp => break End::Lost,
                Step::Caller(caller) => match caller.checked_sub(1) {
                    Some(before) => address = before,
                    None => break End::MaybeRoot,
                },
            }
        };
        Walk { addresses, end }
    }

    /// One step outward from the frame at `address`, by the rules of the binary that is mapped there.
    fn step(
        &mut self,
        mapping: &Mapping,
        address: u64,
        innermost: bool,
        registers: &mut UnwindRegsX86_64,
        raw: &RawStack,
    ) -> Step {
        let in_file = mapping.binary.as_ref().and_then(|b| b.loaded()).and_then(|loaded| {
            let in_file = loaded.elf.address_of_offset(mapping.offset_of(address)?)?;
            Some((loaded, in_file))
        });
        let Some((mut loaded, in_file)) = in_file else {
            return self.fallback.step(address, innermost, registers, raw);
        };
        if let Some(step) = loaded.go.as_ref().and_then(|go| go.step(in_file, registers, raw)) {
            return step;
        }
        loaded.rules.step(in_file, innermost, registers, raw)
    }
}
