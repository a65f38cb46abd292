//! A small VM in a few pages of memory, laid out as Ruby 3.3's, for tests and fuzzing: it runs a
//! `rescue` and a block of `Shop#pay`, whose line table has blocks, called by a script.

use crate::languages::call::Call;
use crate::languages::ruby::find::{Place, Stack, Thread};
use crate::languages::ruby::layout::Layout;
use crate::languages::ruby::object::TextForm;
use crate::languages::ruby::sequence::Reader;
use crate::languages::target::Target;
use crate::languages::target::made_up::{BASE, Image};
use crate::raw::InterpreterFrame;

/// What is read by when the memory's own layout is not recognised.
const LAYOUT: Layout = Layout {
    frame_size: 56,
    file: 64,
    lines: 112,
    method: 168,
    line_size: 12,
    text: TextForm::Counted,
    class: None,
};
/// Most frames that are named.
const MAX_FRAMES: u64 = 64;

/// What is found in such memory, and the names of its calls.
pub(crate) fn calls(memory: &[u8]) -> Option<(Thread, Layout, Vec<Option<Call>>)> {
    let image = Image(memory);
    let target: &dyn Target = &image;
    let place = Place {
        vm: memory.len().is_multiple_of(2).then_some(BASE),
        data: vec![(BASE, memory.len() as u64)],
        classes: [BASE + 8, BASE + 16],
        version: BASE + 24,
    };
    let thread = Thread::main(place.vm(target)?, target)?;
    let layout = Layout::find(&place, &thread, target).unwrap_or(LAYOUT);
    layout.some_instruction(&thread, target);
    let stack = Stack::of(thread.context, target)?;
    let reader = Reader { layout: &layout, target };
    let frames = (0..MAX_FRAMES).map(|index| stack.innermost + index * 56);
    let noted = |frame: u64| {
        let [instruction, sequence, environment] = [0, 16, 32].map(|at| target.u64(frame + at));
        // The methods of blocks lie further out: they are read without.
        let entry = target.u64(environment?.checked_sub(16)?)?;
        let low = target.u64(entry.checked_add(8)?).unwrap_or(0) >> 3;
        let position = (low >> 32) << 48 | instruction? & ((1 << 48) - 1);
        Some(InterpreterFrame { pointer: sequence?, position, cookie: low as u32, kind: 3 })
    };
    let frames = frames.take_while(|&frame| frame < stack.end).map(noted);
    let call = |frame: Option<InterpreterFrame>| {
        let found = reader.find(frame?)?;
        reader.fingerprint(&found)?;
        reader.call(&found)
    };
    let calls = frames.map(call).collect();
    Some((thread, layout, calls))
}

#[test]
fn a_vm_is_found_and_its_calls_are_named() {
    let memory = include_bytes!("../../../../fuzz/seeds/ruby/memory");
    for cut in [0, 1] {
        // With and without a symbol for the VM.
        let memory = &memory[..memory.len() - cut];
        let (thread, layout, calls) = calls(memory).unwrap();
        assert_eq!((thread.slot, thread.context_offset), (512, None));
        assert_eq!(Layout { class: None, ..layout }, LAYOUT);
        let named = |call: &Option<Call>| {
            let Call { function, file, line, .. } = call.clone()?;
            assert_eq!(file.as_deref(), Some("/app/shop.rb"));
            Some((function?, line?))
        };
        let named: Vec<_> = calls.iter().filter_map(named).collect();
        let expected = [("pay", 26), ("block in pay", 22), ("Shop#pay", 23), ("<main>", 9)];
        assert!(named.iter().map(|(name, line)| (name.as_str(), *line)).eq(expected), "{named:?}");
    }
}
