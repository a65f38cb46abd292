//! Files of strangers.

use std::fs;

use crate::binary::store::BinaryStore;
use crate::binary::symbols::Symbols;
use crate::process::file_id::FileId;
use crate::tests::native::compiled_c;

/// Reads everything that is read of a binary, and looks up a few addresses.
fn read_whole(file: fs::File) -> usize {
    let mut store = BinaryStore::default();
    let id = FileId::of(&file.metadata().unwrap());
    let binary = store.pin(id, None, || Some(file)).unwrap();
    let address = |a: &u64| binary.facts::<Symbols>().map_or(0, |symbols| symbols.at(*a).len());
    let bias = binary.elf().and_then(|elf| elf.section(".text").map(|t| t.address));
    (0..64).map(|i| bias.unwrap_or(0x1000) + i * 16).map(|a| address(&a)).sum()
}

#[test]
fn damaged_binaries_cost_their_own_symbols_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let program = compiled_c(directory.path());
    let whole = fs::read(&program).unwrap();
    assert!(read_whole(fs::File::open(&program).unwrap()) > 0);
    let mut state = 1u64;
    let mut random = |below: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let damaged = directory.path().join("damaged");
    for round in 0..200 {
        let mut bytes = whole.clone();
        for _ in 0..1 + round {
            let position = random(bytes.len());
            bytes[position] = [0, 0x7f, 0x80, 0xff, random(256) as u8][random(5)];
        }
        fs::write(&damaged, &bytes).unwrap();
        read_whole(fs::File::open(&damaged).unwrap());
        bytes.truncate(random(bytes.len()));
        fs::write(&damaged, &bytes).unwrap();
        read_whole(fs::File::open(&damaged).unwrap());
    }
}

#[test]
fn a_file_that_is_truncated_after_it_was_pinned_does_not_end_us() {
    let directory = tempfile::tempdir().unwrap();
    let program = compiled_c(directory.path());
    let file = fs::File::open(&program).unwrap();
    let mut store = BinaryStore::default();
    let id = FileId::of(&file.metadata().unwrap());
    let binary = store.pin(id, None, || Some(file)).unwrap();
    let main = {
        let loaded = binary.elf().unwrap();
        loaded.section(".text").unwrap().address
    };
    let known = binary.facts::<Symbols>().unwrap().at(main);
    assert!(!known.is_empty());
    fs::OpenOptions::new().write(true).open(&program).unwrap().set_len(0).unwrap();
    // From the copy; through a mapping of the file this would be SIGBUS.
    for offset in 1..64 {
        binary.facts::<Symbols>().unwrap().at(main + offset);
    }
}
