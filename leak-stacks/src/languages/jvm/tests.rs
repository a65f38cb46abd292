use crate::languages::jvm::frames::Found;
use crate::languages::jvm::made_up::{HEAP, vm};
use crate::languages::target::{BASE, Image, Target};
use crate::processor::FRAME_POINTER;
use crate::unwind::registers::Registers;

const ARRAY: u64 = 0x100;
const CODE_HEAP: u64 = 0x200;
const SEGMENTS: u64 = 0x400;
const NAMES: u64 = 0x480;
const METHOD: u64 = 0x4000;
const INLINED: u64 = 0x4200;
const POOL: u64 = 0x4400;
const CLASS: u64 = 0x4700;
const STACK: u64 = 0x5000;
/// The blobs, behind the heads of their blocks.
const COMPILED: u64 = HEAP + 16;
const INTERPRETER: u64 = HEAP + 0x800 + 16;
const STUB: u64 = HEAP + 0x1000 + 16;
const CODE: u64 = 0x200;
/// A call in the compiled code.
const CALL: u64 = BASE + COMPILED + CODE + 0x20;

/// The memory of a VM with a method that another one was compiled into, an interpreter and a stub.
struct Memory(Vec<u8>);

impl Memory {
    fn new() -> Self {
        let mut memory = Self(vec![0; 0x6000]);
        memory.words(0, &[BASE + ARRAY, BASE + STUB + CODE + 8, 17]);
        memory.words(ARRAY, &[1, BASE + ARRAY + 0x80]);
        memory.words(ARRAY + 0x80, &[BASE + CODE_HEAP]);
        memory.words(CODE_HEAP + 8, &[BASE + HEAP, BASE + HEAP + 0x2000]);
        memory.words(CODE_HEAP + 120, &[BASE + SEGMENTS, BASE + SEGMENTS + 64]);
        memory.words(CODE_HEAP + 256, &[7]);
        for (block, name, frame) in
            [(0, "nmethod", 6), (1, "Interpreter", 0), (2, "StubRoutines (1)", 0)]
        {
            // 16 segments of 128 bytes; each says how far back its block begins.
            let segments: Vec<u8> = (0..16).collect();
            memory.bytes(SEGMENTS + block * 16, &segments);
            let head = HEAP + block * 0x800;
            memory.words(head, &[16, 1]);
            let name_at = NAMES + block * 32;
            memory.bytes(name_at, name.as_bytes());
            memory.bytes(head + 16 + 28, &u32::to_le_bytes(frame));
            memory.words(head + 16 + 32, &[BASE + head + 16 + CODE]);
            memory.words(head + 16 + 96, &[BASE + name_at]);
        }
        memory.bytes(SEGMENTS + 48, &[0xff; 16]);
        memory.compiled();
        memory.methods();
        memory
    }

    fn compiled(&mut self) {
        let at = |offset| BASE + COMPILED + offset;
        self.words(COMPILED + 112, &[BASE + METHOD, at(0x500), at(0x300), 0]);
        for (offset, value) in [(260, 0x480), (268, 0x400), (272, 0x430), (300, 8)] {
            self.bytes(COMPILED + offset, &u32::to_le_bytes(value));
        }
        self.words(COMPILED + 0x480, &[BASE + METHOD, BASE + INLINED]);
        let places = [(u32::MAX, 0), (0x20, 4), (0x40, 1)];
        for (index, (code, scope)) in (0..).zip(places) {
            self.words(COMPILED + 0x400 + 16 * index, &[u64::from(code) | scope << 32]);
        }
        // At 1 the outer method, at its place 2; at 4 the inlined one, at its place 0.
        self.bytes(COMPILED + 0x500, &[0, 0, 1, 3, 1, 2, 1, 0]);
    }

    fn methods(&mut self) {
        for (method, name, first_line) in [(METHOD, 1, 10), (INLINED, 2, 20)] {
            let definition = method + 0x40;
            self.words(method + 8, &[BASE + definition]);
            self.words(definition + 8, &[BASE + POOL, 0, 8]);
            self.bytes(definition + 28, &[1, 0]);
            self.bytes(definition + 32, &[5, 0, name, 0]);
            // Two instructions, an `invokestatic` and the end of it; then the lines.
            self.bytes(definition + 48, &[0, 0, 0xb8, 0, 0]);
            self.bytes(definition + 53, &[0xff, 0, 2 * first_line, 2 << 3 | 1, 0]);
        }
        self.words(POOL + 8, &[BASE + POOL + 0x200, 0, BASE + CLASS]);
        self.bytes(POOL + 54, &[4, 0]);
        self.bytes(POOL + 60, &[5, 0]);
        self.bytes(POOL + 0x204, &[0, 1, 1, 7, 1]);
        let symbols = ["", "checkout", "pay", "com/acme/Shop", "Shop.java"];
        for (index, text) in (0..).zip(symbols).skip(1) {
            let symbol = CLASS + 0x200 + 32 * index;
            self.bytes(symbol + 4, &[text.len() as u8, 0]);
            self.bytes(symbol + 6, text.as_bytes());
            self.words(POOL + 72 + 8 * index, &[BASE + symbol]);
        }
        self.words(CLASS + 24, &[BASE + CLASS + 0x200 + 32 * 3]);
        self.words(CLASS + 232, &[BASE + POOL]);
    }

    fn bytes(&mut self, at: u64, bytes: &[u8]) {
        self.0[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
    }

    fn words(&mut self, at: u64, words: &[u64]) {
        for (word, at) in words.iter().zip((at..).step_by(8)) {
            self.bytes(at, &word.to_le_bytes());
        }
    }

    /// Steps from a frame that goes on at `returns_to`, whose stack pointer is [`STACK`].
    fn step(&self, returns_to: u64, bp: u64) -> Option<(Found, u64, Registers)> {
        let image = Image(&self.0);
        let mut registers = Registers::new(returns_to, BASE + STACK, bp);
        let word = |at| (&image as &dyn Target).u64(at);
        let vm = vm(&image).unwrap();
        let (found, caller) = vm.frames(&image).step(returns_to, &mut registers, &word)?;
        Some((found, caller, registers))
    }

    /// The names of the compiled call, with their lines.
    fn names(&self) -> Option<Vec<(String, Option<u32>)>> {
        let image = Image(&self.0);
        let calls = vm(&image)?.compiled(BASE + COMPILED, CALL, &image)?;
        Some(calls.into_iter().map(|call| (call.function.unwrap(), call.line)).collect())
    }
}

#[test]
fn compiled_frames_are_left_by_their_size() {
    let mut memory = Memory::new();
    let found = Found::Compiled { code: BASE + COMPILED, returns_to: CALL };
    assert_eq!(memory.step(CALL, 0), None, "its caller is no code of Java's");
    memory.words(STACK + 32, &[0xb9, BASE + INTERPRETER + CODE]);
    let (same, caller, registers) = memory.step(CALL, 0).unwrap();
    assert_eq!((same, caller), (found, BASE + INTERPRETER + CODE));
    assert_eq!((registers.sp(), registers.get(FRAME_POINTER)), (BASE + STACK + 48, Some(0xb9)));

    // Its callee returns to the handler that leaves the code for the interpreter.
    memory.words(STACK + 8, &[CALL]);
    assert_eq!(memory.step(BASE + COMPILED + 0x300, 0).unwrap().0, found);
}

#[test]
fn interpreted_frames_and_the_call_stub_are_left_by_the_frame_pointer() {
    let mut memory = Memory::new();
    let bp = BASE + STACK + 0x100;
    let instruction = BASE + METHOD + 0x40 + 48 + 2;
    memory.words(STACK + 0x100 - 64, &[instruction, 0, 0, 0, 0, BASE + METHOD, 0, bp + 48]);
    memory.words(STACK + 0x100, &[bp + 0x100, CALL]);
    let (found, caller, registers) = memory.step(BASE + INTERPRETER + CODE + 4, bp).unwrap();
    assert_eq!(found, Found::Interpreted { method: BASE + METHOD, instruction });
    assert_eq!((caller, registers.sp()), (CALL, bp + 48));
    let image = Image(&memory.0);
    let calls = vm(&image).unwrap().interpreted(BASE + METHOD, instruction, &image).unwrap();
    assert_eq!(calls[0].function.as_deref(), Some("com.acme.Shop.checkout"));
    assert_eq!((calls[0].line, calls[0].file.as_deref()), (Some(11), Some("Shop.java")));
    assert_eq!(vm(&image).unwrap().interpreted(BASE + METHOD, instruction + 9, &image), None);

    let stub = BASE + STUB + CODE + 8;
    assert_eq!(memory.step(stub, bp).unwrap().0, Found::Stub);
    assert_eq!(memory.step(stub, BASE), None, "below the stack pointer");
    assert_eq!(memory.step(stub + 8, bp), None, "another stub");
}

#[test]
fn methods_that_were_compiled_into_one_another_are_named() {
    let memory = Memory::new();
    let expected = [("com.acme.Shop.pay", 20), ("com.acme.Shop.checkout", 11)];
    let expected = expected.map(|(name, line)| (name.to_owned(), Some(line)));
    assert_eq!(memory.names().unwrap(), expected);
}

#[test]
fn what_does_not_fit_has_no_name() {
    let free: (u64, &[u8]) = (SEGMENTS + 4, &[0xff]);
    for (at, bytes) in [
        free,
        (HEAP + 8, &[0]),
        (NAMES, b"nmethox"),
        (COMPILED + 0x410, &[0x21]),
        // The outermost method is not the one that the code is of.
        (COMPILED + 112, &[8]),
        // The outer method makes no call there.
        (METHOD + 0x40 + 50, &[0]),
        // The inlined method is the outer one's caller, and so on without an end.
        (COMPILED + 0x501, &[4]),
        // The constants are another class's.
        (CLASS + 232, &[8]),
        // The name is no text.
        (POOL + 0x205, &[7]),
        (METHOD + 8, &[1]),
    ] {
        let mut memory = Memory::new();
        memory.bytes(at, bytes);
        assert_eq!(memory.names(), None, "{at:#x}");
    }
}

/// The memory as a seed for fuzzing.
#[test]
fn the_seed_is_this_memory() {
    let seed = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds/jvm/memory");
    let memory = Memory::new().0;
    if std::env::var_os("LEAK_STACKS_WRITE_SEEDS").is_some() {
        std::fs::write(seed, &memory).unwrap();
    }
    assert_eq!(std::fs::read(seed).unwrap(), memory);
}
