use crate::languages::target::made_up::{BASE, Image};
use crate::languages::v8::frames::Region;
use crate::languages::v8::made_up::{ROOTS, STACK, calls, v8};

const META: u64 = 0x100;
const MAPS: u64 = 0x140;
const LIST: u64 = 0x800;
const CLOSURE: u64 = 0x880;
const SHARED: u64 = 0x900;
const INLINED: u64 = 0x980;
const SCRIPT: u64 = 0xa00;
const FUNCTIONS: u64 = 0xa80;
const BYTECODE: u64 = 0xb00;
const POSITIONS: u64 = 0xb80;
const SCOPE: u64 = 0xc00;
const NAME: u64 = 0xc80;
const FILE: u64 = 0xcc0;
const SOURCE: u64 = 0xd00;
const CODE: u64 = 0xe00;
const EXITS: u64 = 0xe80;
const CODE_POSITIONS: u64 = 0xf00;
const CALLS: u64 = 0xf40;
const LITERALS: u64 = 0xf80;
const BASELINE: u64 = 0x1000;
const OFFSETS: u64 = 0x1080;
const OUTER: u64 = 0x1100;
const OUTER_DATA: u64 = 0x1180;
const INSTRUCTIONS: u64 = 0x1800;
const BASELINE_INSTRUCTIONS: u64 = 0x1a00;
/// Where the frame's frame pointer points to.
const FRAME: u64 = STACK - BASE + 0x100;
/// Where the code goes on after its calls.
const RETURN: u64 = BASE + INSTRUCTIONS + 16 + 0x20;
const BASELINE_RETURN: u64 = BASE + BASELINE_INSTRUCTIONS + 16 + 0x20;

/// Types of objects, as the made-up V8 numbers them.
const TYPES: [u16; 13] = [
    FUNCTION,
    SHARED_INFO,
    SCOPE_INFO,
    SCRIPT_TYPE,
    BYTECODES,
    CODES,
    STREAM,
    BYTES,
    ARRAY,
    WEAK_ARRAY,
    WEAK_LIST,
    STRING,
    UNCOMPILED,
];
const FUNCTION: u16 = 2066;
const SHARED_INFO: u16 = 262;
const SCOPE_INFO: u16 = 261;
const SCRIPT_TYPE: u16 = 167;
const BYTECODES: u16 = 191;
const CODES: u16 = 245;
const STREAM: u16 = 252;
const BYTES: u16 = 190;
const ARRAY: u16 = 175;
const WEAK_ARRAY: u16 = 240;
const WEAK_LIST: u16 = 274;
const STRING: u16 = 8;
const UNCOMPILED: u16 = 222;

fn tagged(at: u64) -> u64 {
    BASE + at + 1
}

fn small(number: u64) -> u64 {
    number << 32
}

/// The memory of V8 with a function in bytecode, its baseline code, and optimised code into which
/// another one was compiled.
struct Memory(Vec<u8>);

impl Memory {
    fn new() -> Self {
        let mut memory = Self(vec![0; 0x2400]);
        memory.words(META, &[tagged(META)]);
        memory.bytes(META + 12, &[255, 0]);
        for (index, instance_type) in (0..).zip(TYPES) {
            memory.words(MAPS + 0x20 * index, &[tagged(META)]);
            memory.bytes(MAPS + 0x20 * index + 12, &instance_type.to_le_bytes());
        }
        memory.words(0x40, &[tagged(LIST)]);
        memory.object(LIST, WEAK_LIST, &[small(4), small(1), tagged(SCRIPT) | 2]);
        memory.functions();
        memory.code();
        let bytecode_offset = small(53 + 4);
        let closure = tagged(CLOSURE);
        memory.words(FRAME - 40, &[bytecode_offset, tagged(BYTECODE), 1, closure, closure]);
        memory
    }

    fn functions(&mut self) {
        self.object(CLOSURE, FUNCTION, &[0, 0, tagged(SHARED)]);
        self.object(SHARED, SHARED_INFO, &[tagged(BYTECODE), tagged(SCOPE), 0, tagged(SCRIPT)]);
        self.object(INLINED, SHARED_INFO, &[small(0), tagged(NAME), 0, tagged(SCRIPT)]);
        let of_a_function = 2 | 1 << 12;
        let name = tagged(NAME + 0x20);
        let variable = [name, small(0)];
        self.object(SCOPE, SCOPE_INFO, &[small(of_a_function), small(0), small(1)]);
        self.words(SCOPE + 32, &[variable, variable, [small(10), small(40)]].concat());
        self.text(NAME, "audit");
        self.text(NAME + 0x20, "pay");
        self.text(FILE, "/app/shop.js");
        self.text(SOURCE, "0123456789abcde\n012345678\n0123456789abcdef");
        let place = [tagged(SOURCE), tagged(FILE), small(0)];
        self.object(SCRIPT, SCRIPT_TYPE, &place);
        self.words(SCRIPT + 56, &[small(0), small(1), 0, 0, tagged(FUNCTIONS)]);
        // The outer one is not compiled any more.
        self.object(OUTER, SHARED_INFO, &[tagged(OUTER_DATA), tagged(OUTER_DATA + 0x40)]);
        self.object(OUTER_DATA, UNCOMPILED, &[0, 5 | 50 << 32]);
        self.text(OUTER_DATA + 0x40, "shop");
        let functions = [tagged(INLINED) | 2, tagged(OUTER) | 2, 3, tagged(SHARED) | 2];
        self.object(FUNCTIONS, WEAK_ARRAY, &[[small(4)].as_slice(), &functions].concat());
        self.object(BYTECODE, BYTECODES, &[small(8), 0, 0, tagged(POSITIONS), 16]);
        self.bytes(BYTECODE + 54, &[5, 0, 0, 7, 5, 0, 0, 2]);
        // From 0 on character 20, from 4 on character 27.
        self.array(POSITIONS, &[0, 84, 8, 28]);
    }

    fn code(&mut self) {
        for (code, instructions, data, positions, kind) in [
            (CODE, INSTRUCTIONS, EXITS, CODE_POSITIONS, 13),
            (BASELINE, BASELINE_INSTRUCTIONS, BYTECODE, OFFSETS, 11),
        ] {
            let first = BASE + instructions + 16;
            self.object(code, CODES, &[0, tagged(data), tagged(positions), 0, first, kind, 0x60]);
            self.object(instructions, STREAM, &[tagged(code)]);
            // A call before the place where it goes on.
            self.bytes(instructions + 16 + 0x20 - 5, &[0xe8]);
        }
        self.array(OFFSETS, &[8, 0x10, 4, 4]);
        let (literals, own, calls) = (tagged(LITERALS), tagged(SHARED), tagged(CALLS));
        let data = [small(9), 0, 0, literals, 0, 0, 0, own, calls, small(0x50)];
        self.object(EXITS, ARRAY, &data);
        // From 0x10 on character 22 of the first inlined call, which is at character 27.
        let number = (1_u64 << 31 | 46) << 1;
        let digits =
            (0..5).map(|at| (number >> (7 * at)) as u8 & 0x7f | if at < 4 { 0x80 } else { 0 });
        self.array(CODE_POSITIONS, &[vec![0x20], digits.collect()].concat());
        self.array(CALLS, &[56, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        self.object(LITERALS, ARRAY, &[small(1), tagged(INLINED)]);
        // The call returns to the exit at 0x58 when the code is no longer valid.
        self.words(INSTRUCTIONS + 16 + 0x60, &[1 | 0x91 << 32, 0x59_01_20]);
    }

    fn object(&mut self, at: u64, instance_type: u16, words: &[u64]) {
        let index = TYPES.iter().position(|known| *known == instance_type).unwrap() as u64;
        self.words(at, &[tagged(MAPS + 0x20 * index)]);
        self.words(at + 8, words);
    }

    fn array(&mut self, at: u64, bytes: &[u8]) {
        self.object(at, BYTES, &[small(bytes.len() as u64)]);
        self.bytes(at + 16, bytes);
    }

    fn text(&mut self, at: u64, text: &str) {
        self.object(at, STRING, &[small(text.len() as u64)]);
        self.bytes(at + 16, text.as_bytes());
    }

    fn bytes(&mut self, at: u64, bytes: &[u8]) {
        self.0[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
    }

    fn words(&mut self, at: u64, words: &[u64]) {
        for (word, at) in words.iter().zip((at..).step_by(8)) {
            self.bytes(at, &word.to_le_bytes());
        }
    }

    /// The calls in its frame, as `function:line`.
    fn calls(&self, region: Region, returns_to: u64) -> Option<Vec<String>> {
        let calls = calls(&mut v8(&[])?, BASE + FRAME, returns_to, region, &Image(&self.0))?;
        Some(calls.into_iter().map(|(name, line)| format!("{name}:{}", line.unwrap())).collect())
    }
}

fn named(calls: &[&str]) -> Option<Vec<String>> {
    Some(calls.iter().map(|call| (*call).to_owned()).collect())
}

#[test]
fn interpreted_and_baseline_frames_are_named_by_their_bytecode() {
    let mut memory = Memory::new();
    assert_eq!(memory.calls(Region::Library, BASE), named(&["shop.pay:3"]));
    assert_eq!(memory.calls(Region::Compiled, BASELINE_RETURN), named(&["shop.pay:3"]));
    // Without a table of positions: where the function begins.
    memory.words(BYTECODE + 32, &[tagged(META)]);
    assert_eq!(memory.calls(Region::Library, BASE), named(&["shop.pay:1"]));
}

#[test]
fn functions_that_were_compiled_into_one_another_are_named() {
    let mut memory = Memory::new();
    let expected = named(&["audit:2", "shop.pay:3"]);
    assert_eq!(memory.calls(Region::Compiled, RETURN), expected);
    assert_eq!(memory.calls(Region::Compiled, RETURN - 0x20 + 0x58), expected, "by its exit");
    memory.words(CLOSURE, &[0]);
    assert_eq!(memory.calls(Region::Compiled, RETURN), expected, "the closure has moved");
}

#[test]
fn functions_of_closures_that_have_moved_are_found_among_all() {
    let mut memory = Memory::new();
    memory.words(CLOSURE, &[0]);
    assert_eq!(memory.calls(Region::Library, BASE), named(&["shop.pay:3"]));
    memory.words(ROOTS - BASE - 0x40, &[0]);
    assert_eq!(memory.calls(Region::Library, BASE), None);
}

#[test]
fn what_does_not_agree_has_no_name() {
    let other = tagged(INLINED);
    for (at, word) in [
        (FRAME - 8, 2),
        // No instruction begins there, or none is there at all.
        (FRAME - 40, small(53 + 5)),
        (FRAME - 40, small(53 + 9)),
        (FRAME - 32, other),
        (BYTECODE, 0),
        (BYTECODE + 40, 4096),
        (SHARED + 8, other),
        (SHARED + 16, other),
        (META + 8, 0),
    ] {
        let mut memory = Memory::new();
        memory.words(at, &[word]);
        assert_eq!(memory.calls(Region::Library, BASE), None, "{at:#x}");
    }
    for (at, word) in [
        (INSTRUCTIONS, 0),
        (INSTRUCTIONS + 8, other),
        (INSTRUCTIONS + 16 + 0x18, 0),
        // Another function's closure is in the frame.
        (CLOSURE + 24, other),
        (EXITS + 16 + 8 * 6, 0),
        (EXITS + 16 + 8 * 7, other),
        (LITERALS + 16, tagged(SCRIPT)),
        // The inlined call is in itself.
        (CALLS + 16, 1 << 31 | 56),
        (CODE + 40, BASE),
        (CODE + 56, 0x10),
    ] {
        let mut memory = Memory::new();
        // Optimised code has no bytecode in its frames.
        memory.words(FRAME - 32, &[0]);
        memory.words(at, &[word]);
        assert_eq!(memory.calls(Region::Compiled, RETURN), None, "{at:#x}");
    }
}

#[test]
fn releases_that_are_not_understood_are_none() {
    for constant in [("SmiShiftSize", 0), ("OneByteStringTag", 4), ("scopeinfo_idx_first_vars", 4)]
    {
        assert!(v8(&[constant]).is_none(), "{constant:?}");
    }
}

/// The memory as a seed for fuzzing.
#[test]
fn the_seed_is_this_memory() {
    let seed = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds/v8/memory");
    let memory = Memory::new().0;
    if std::env::var_os("LEAK_STACKS_WRITE_SEEDS").is_some() {
        std::fs::write(seed, &memory).unwrap();
    }
    assert_eq!(std::fs::read(seed).unwrap(), memory);
}
