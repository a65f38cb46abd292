//! Small or hollow files that claim, or unfold to, something enormous.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Writes a bomb to a path.
type Bomb = fn(&Path);

pub(crate) const ALL: [(&str, Bomb); 13] = [
    ("hollow symbols", |path| {
        write(path, &[sparse(".symtab", 250 << 20), sparse(".strtab", 1 << 20)]);
    }),
    ("hollow debug information", |path| {
        write(path, &[sparse(".debug_info", 200 << 20), sparse(".debug_abbrev", 40 << 20)]);
    }),
    ("hollow unwind rules", |path| write(path, &[sparse(".eh_frame", 127 << 20)])),
    ("endless unwind rules", |path| write(path, &[filled(".eh_frame", frames(8 << 20))])),
    ("unwind rules with an endless search table", |path| {
        let table = [&[1, 0x1b, 0x03, 0x3b][..], &[0xff; 1 << 20]].concat();
        write(path, &[filled(".eh_frame", frames(1 << 20)), filled(".eh_frame_hdr", table)]);
    }),
    ("a compressed section of nothing", |path| {
        write(
            path,
            &[compressed(".debug_info", 60 << 20, 60 << 20), compressed(".debug_abbrev", 99, 99)],
        );
    }),
    ("a compressed section that lies", |path| {
        write(path, &[compressed(".debug_info", 64, 200 << 20), compressed(".debug_line", 64, 64)]);
    }),
    ("many compressed sections", |path| {
        let names = [".debug_info", ".debug_abbrev", ".debug_line", ".debug_str", ".debug_ranges"];
        write(path, &names.map(|name| compressed(name, 20 << 20, 20 << 20)));
    }),
    ("a Go table of endless functions", |path| {
        let header = line_table(u64::MAX / 16, 1);
        write(path, &[Section { size: 120 << 20, ..filled(".gopclntab", header) }]);
    }),
    ("a hollow Go table", |path| {
        let header = line_table(8 << 20, 1);
        write(path, &[Section { size: 120 << 20, ..filled(".gopclntab", header) }]);
    }),
    ("endless relocations of a Go binary", |path| {
        let relocation = |i: u64| [i * 8, 8, i].map(u64::to_le_bytes).concat();
        let relocations = (0..1 << 19).flat_map(relocation).collect();
        write(path, &[filled(".gopclntab", line_table(1, 0)), filled(".rela.dyn", relocations)]);
    }),
    ("endless lines", |path| write(path, &debug(b"", lines(100 << 20)))),
    ("endless nesting", |path| write(path, &debug(&[3; 16 << 20], lines(64)))),
];

/// As the last ones, but harmless: what it holds is found, so the others are read as far as they
/// can be.
pub(crate) fn control(path: &Path) {
    write(path, &debug(&[0], lines(1 << 18)));
}

/// A section: its first bytes, and its size in the file, in which the rest is a hole.
#[derive(Clone)]
struct Section {
    name: &'static str,
    flags: u64,
    data: Vec<u8>,
    size: u64,
}

fn filled(name: &'static str, data: Vec<u8>) -> Section {
    Section { name, flags: 0, size: data.len() as u64, data }
}

fn sparse(name: &'static str, size: u64) -> Section {
    Section { name, flags: 0, size, data: Vec::new() }
}

/// Claims to unfold to `claimed` bytes, and unfolds to `actual`.
fn compressed(name: &'static str, claimed: u64, actual: u64) -> Section {
    const SHF_COMPRESSED: u64 = 0x800;
    let mut data = [1u64, claimed, 1].map(u64::to_le_bytes).concat();
    data.extend(zeroes(actual));
    Section { flags: SHF_COMPRESSED, ..filled(name, data) }
}

/// The format of zlib (RFC 1950 and 1951) for at least `length` zeroes.
fn zeroes(length: u64) -> Vec<u8> {
    let (mut data, mut bits, mut used) = (vec![0x78, 0x01], 0u64, 0);
    // Codes are written from their first bit on, so these are reversed: a last block of fixed
    // codes, a zero, then "258 bytes from one byte back" again and again, then the end.
    let repeat = (0b1010_0011, 13);
    let codes = [(0b011, 3), (0b0000_1100, 8)]
        .into_iter()
        .chain(std::iter::repeat_n(repeat, usize::try_from(length / 258 + 1).unwrap()))
        .chain([(0, 7), (0, 7)]);
    for (code, count) in codes {
        bits |= code << used;
        used += count;
        while used >= 8 {
            data.push(bits as u8);
            bits >>= 8;
            used -= 8;
        }
    }
    data.extend([0; 5]);
    data
}

/// One rule for all addresses, then as many as there is room for.
fn frames(room: usize) -> Vec<u8> {
    // Length, id, version, augmentation, alignments and return address; padding.
    let cie = [&[12, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0x78, 16][..], &[0; 3]].concat();
    let mut data = cie;
    while data.len() < room {
        let back = data.len() as u32 + 4;
        data.extend(20u32.to_le_bytes());
        data.extend(back.to_le_bytes());
        data.extend([0x1000u64, 0x1_0000].map(u64::to_le_bytes).concat());
    }
    data
}

/// The header of Go 1.20's line table, whose parts all begin right behind it.
fn line_table(functions: u64, text: u64) -> Vec<u8> {
    let mut data = vec![0xf1, 0xff, 0xff, 0xff, 0, 0, 1, 8];
    data.extend([functions, 1, text, 72, 72, 72, 72, 72].map(u64::to_le_bytes).concat());
    data
}

/// A unit of DWARF 4 that covers all code, with a function that is its own origin and then `more`
/// entries: number 3 is a block.
fn debug(more: &[u8], lines: Vec<u8>) -> Vec<Section> {
    let abbreviations = [
        // Unit: low_pc, high_pc, stmt_list.
        &[1, 0x11, 1, 0x11, 1, 0x12, 7, 0x10, 0x17, 0, 0][..],
        // Function: low_pc, high_pc, abstract_origin.
        &[2, 0x2e, 1, 0x11, 1, 0x12, 7, 0x31, 0x13, 0, 0],
        &[3, 0x0b, 1, 0, 0],
        &[0],
    ];
    let all = [0u64, 1 << 20].map(u64::to_le_bytes).concat();
    let mut unit = vec![4, 0, 0, 0, 0, 0, 8];
    unit.extend([&[1][..], &all, &[0; 4]].concat());
    let function = unit.len() as u32 + 4;
    unit.extend([&[2][..], &all, &function.to_le_bytes(), more].concat());
    let information = [&(unit.len() as u32).to_le_bytes()[..], &unit].concat();
    vec![
        filled(".debug_info", information),
        filled(".debug_abbrev", abbreviations.concat()),
        filled(".debug_line", lines),
    ]
}

/// A line program in which each byte makes a line.
fn lines(room: u32) -> Vec<u8> {
    // After the length of the header: instruction length, operations, default, line base and range,
    // base, lengths of the standard opcodes, directories, files.
    let header =
        [&[1, 1, 1, 0xfb, 14, 13, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1, 0][..], b"a.c\0", &[0; 4]]
            .concat();
    // Set the address: 0.
    let start = [0, 9, 2, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut program = vec![4, 0];
    program.extend((header.len() as u32).to_le_bytes());
    program.extend(header);
    program.extend(start);
    program.extend(std::iter::repeat_n(0x20, room as usize));
    program.extend([0, 1, 1]);
    [&(program.len() as u32).to_le_bytes()[..], &program].concat()
}

/// Writes an ELF file whose only segment is its first megabyte.
fn write(path: &Path, sections: &[Section]) {
    let file = File::create(path).unwrap();
    let names: Vec<_> = sections.iter().map(|s| s.name).chain([".shstrtab", ".text"]).collect();
    let text = filled(".text", vec![0xc3; 1 << 16]);
    let strings = filled(".shstrtab", ["", &names.join("\0"), "\0"].join("").into_bytes());
    let strings =
        Section { data: [&[0][..], &strings.data].concat(), size: strings.size + 1, ..strings };
    let all: Vec<_> = sections.iter().cloned().chain([strings, text]).collect();
    let (mut headers, mut at, mut name) = (vec![0; 64], 1u64 << 20, 1u32);
    for section in &all {
        let kind: u32 = match section.name {
            ".symtab" => 2,
            ".strtab" | ".shstrtab" => 3,
            _ => 1,
        };
        // The code is where the mapping is.
        let place = if section.name == ".text" { 0x1000 } else { at };
        let address = if section.name == ".text" { 0x1000 } else { 0 };
        file.write_all_at(&section.data, place).unwrap();
        headers.extend(name.to_le_bytes());
        headers.extend(kind.to_le_bytes());
        headers
            .extend([section.flags, address, place, section.size].map(u64::to_le_bytes).concat());
        headers.extend([2u32, 0].map(u32::to_le_bytes).concat());
        headers.extend([8u64, if kind == 2 { 24 } else { 0 }].map(u64::to_le_bytes).concat());
        at += section.size.next_multiple_of(8);
        name += section.name.len() as u32 + 1;
    }
    let mut header = b"\x7fELF\x02\x01\x01".to_vec();
    header.resize(16, 0);
    header.extend([2u16, 62].map(u16::to_le_bytes).concat());
    header.extend(1u32.to_le_bytes());
    header.extend([0x1000u64, 64, at].map(u64::to_le_bytes).concat());
    header.extend(0u32.to_le_bytes());
    let count = all.len() as u16 + 1;
    header.extend([64u16, 56, 1, 64, count, count - 2].map(u16::to_le_bytes).concat());
    let segment = [0u64, 0, 0, 1 << 20, 1 << 20, 4096].map(u64::to_le_bytes).concat();
    header.extend([&1u32.to_le_bytes()[..], &5u32.to_le_bytes(), &segment].concat());
    file.write_all_at(&header, 0).unwrap();
    file.write_all_at(&headers, at).unwrap();
}
