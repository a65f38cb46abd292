//! A made-up runtime, which does everything that the trait allows.

use std::mem::ManuallyDrop;
use std::sync::Arc;

use crate::binary::symbols::Symbol;
use crate::languages::call::{Call, Named};
use crate::languages::language::{Code, Language, Process, Runtime, Unwound};
use crate::languages::runtimes::Languages;
use crate::raw::{InterpreterFrame, InterpreterProfile, StackProfile};
use crate::stack;
use crate::tests::{NOW, copied_words, names};
use crate::unwind::registers::Registers;
use crate::unwind::step::{End, Position, StackCopy, Step};
use crate::{Quality, RawStack, Resolver};

const TAG: u32 = 77;
const SIZE: usize = 4096;

/// Code in memory that no file backs.
struct Page(u64);

impl Page {
    fn new() -> Self {
        let (rights, flags) =
            (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping at an address of the kernel's choice, which nothing reads.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), SIZE, rights, flags, -1, 0) };
        assert_ne!(at, libc::MAP_FAILED);
        Self(at as u64)
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own.
        unsafe { libc::munmap(self.0 as *mut libc::c_void, SIZE) };
    }
}

#[derive(Clone, Copy, Debug)]
struct MadeUp {
    page: u64,
}

impl Language for MadeUp {
    fn find(&mut self, _process: &Process<'_>) -> Option<Box<dyn Runtime>> {
        Some(Box::new(*self))
    }

    fn value(&self) -> Option<stack::Language> {
        Some(stack::Language::Ruby)
    }
}

/// Frames of 16 bytes: a token that names the frame, and the return address.
impl Runtime for MadeUp {
    fn profile(&self) -> StackProfile {
        let interpreter = InterpreterProfile { kind: 9, tag: TAG, parameters: [0; 16] };
        StackProfile { interpreter: Some(interpreter), ..StackProfile::default() }
    }

    fn step(
        &mut self,
        frame: Position,
        registers: &mut Registers,
        stack: &StackCopy<'_>,
        _process: &Process<'_>,
    ) -> Option<Unwound> {
        if !(self.page..self.page + SIZE as u64).contains(&frame.address) {
            return None;
        }
        let sp = registers.sp();
        let (Some(token), Some(caller)) = (stack.word(sp), stack.word(sp + 8)) else {
            return Some(Unwound { step: Step::End(stack.end()), frame: None });
        };
        let frame = (token != 0).then(|| InterpreterFrame { pointer: token, ..noted(0) });
        if caller == 0 {
            return Some(Unwound { step: Step::End(End::Root), frame });
        }
        registers.leave(caller, sp + 16, None);
        Some(Unwound { step: Step::Caller(caller), frame })
    }

    fn name_code(&mut self, code: &Code<'_>, _process: &Process<'_>) -> Option<Named<Symbol>> {
        let name = match code.address.wrapping_sub(self.page) {
            0x2ff => None,
            0x3ff => Some("evaluate"),
            _ => return None,
        };
        let symbol = |name: &str| Symbol { function: Some(name.to_owned()), ..Symbol::default() };
        Some(Named { calls: name.map(symbol).into_iter().collect(), is_lasting: true })
    }

    fn name_frame(
        &mut self,
        frame: InterpreterFrame,
        _process: &Process<'_>,
    ) -> Option<Named<Call>> {
        let names: &[&str] = match frame.pointer {
            1 => &["inlined", "checkout"],
            2 => &["handle"],
            3 => panic!("its memory has changed"),
            _ => return None,
        };
        let call = |name: &&str| Call { function: Some((*name).to_owned()), ..Call::default() };
        Some(Named { calls: names.iter().map(call).collect(), is_lasting: true })
    }

    fn is_evaluator(&self, function: &str) -> bool {
        function == "evaluate"
    }
}

fn noted(pointer: u64) -> InterpreterFrame {
    InterpreterFrame { pointer, position: 0, cookie: 0, kind: 1 }
}

#[track_caller]
fn assert_named(page: &Page, raw: &RawStack, expected: &[&str], quality: Quality) {
    let mut resolver = Resolver::new(Arc::default());
    resolver.use_languages(Languages::of(vec![Box::new(MadeUp { page: page.0 })]));
    for _ in 0..2 {
        // Named, then remembered.
        let stack = resolver.resolve(raw, NOW).stack.unwrap();
        assert_eq!((names(&stack).as_slice(), stack.quality), (expected, quality));
        assert_eq!(stack.language, stack::Language::Ruby);
    }
}

#[test]
fn frames_of_a_runtime_are_left_and_named_one_by_one() {
    let page = Page::new();
    let at = |offset: u64| page.0 + offset;
    // Two inlined calls; a frame that is left out; one whose naming fails; the outermost.
    let words = [1, at(0x300), 0, at(0x200), 3, at(0x100), 2, 0];
    let raw = RawStack { ip: at(0), ..copied_words(&words) };
    assert_named(&page, &raw, &["inlined", "checkout", "?", "handle"], Quality::Complete);
    let cut = RawStack { wanted: 40, ..copied_words(&words[..5]) };
    let cut = RawStack { ip: at(0), ..cut };
    assert_named(&page, &cut, &["inlined", "checkout", "?"], Quality::Truncated);
}

/// A compiler makes code all the time, and mappings are not read that often.
#[test]
fn code_that_is_in_no_known_mapping_is_left_and_named() {
    // No address of user space.
    let unmapped = ManuallyDrop::new(Page(0x7fff << 48));
    let at = |offset: u64| unmapped.0 + offset;
    let words = [1, at(0x300), 2, 0];
    let raw = RawStack { ip: at(0), ..copied_words(&words) };
    assert_named(&unmapped, &raw, &["inlined", "checkout", "handle"], Quality::Complete);
}

#[test]
fn noted_frames_take_the_place_of_the_evaluator() {
    let page = Page::new();
    let at = |offset: u64| page.0 + offset;
    // A frame of the runtime's own, the evaluator's, and the outermost.
    let words = [2, at(0x400), 0, at(0x100), 2, 0];
    let raw = RawStack {
        ip: at(0),
        interpreter_frames: vec![noted(1), noted(9), noted(2)],
        interpreter_whole: true,
        interpreter_tag: TAG,
        ..copied_words(&words)
    };
    let expected = ["handle", "inlined", "checkout", "?", "handle", "handle"];
    assert_named(&page, &raw, &expected, Quality::Complete);
    // Through another process's profile: nothing of them is believed.
    let raw = RawStack { interpreter_tag: TAG + 1, ..raw };
    assert_named(&page, &raw, &["handle", "evaluate", "handle"], Quality::Complete);
}
