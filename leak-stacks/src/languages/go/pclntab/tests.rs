use super::*;
use crate::languages::go::header::{Format, Header};

const TEXT: u64 = 0x1000;

/// A table of two functions, `a.one` at 0..32 and `b.two` at 32..64 from [`TEXT`], with frames
/// of 0 and then 24 bytes, in file `x.go` from line 7 on.
fn table(format: Format) -> Vec<u8> {
    let old = format == Format::Go116;
    let names = b"\0a.one\0b.two\0".to_vec();
    let files = b"x.go\0".to_vec();
    let units = 0u32.to_le_bytes().to_vec();
    // At 1: value 0 for 8 bytes, then 24 for 24. At 6: value 0 for 32. At 9: 7 for 8, 9 for 24.
    let values = vec![0, 2, 8, 48, 24, 0, 2, 32, 0, 16, 8, 4, 24, 0];
    let (entry_size, pointer_size) = if old { (16, 8) } else { (8, 4) };
    let records_at = 2 * entry_size + pointer_size;
    let record = |entry: u64, name: u32| {
        let mut record = entry.to_le_bytes()[..pointer_size].to_vec();
        for field in [name, 0, 0, 1, 6, 9, 0, 0, 0, 0] {
            record.extend(u32::to_le_bytes(field));
        }
        record
    };
    let base = if old { TEXT } else { 0 };
    let (one, two) = (record(base, 1), record(base + 32, 7));
    let mut entries = Vec::new();
    for (address, place) in
        [(base, records_at), (base + 32, records_at + one.len()), (base + 64, 0)]
    {
        entries.extend(&address.to_le_bytes()[..pointer_size]);
        if entries.len() < records_at {
            entries.extend(&place.to_le_bytes()[..pointer_size]);
        }
    }
    entries.extend(one);
    entries.extend(two);

    let magic: u32 = match format {
        Format::Go116 => 0xffff_fffa,
        Format::Go118 => 0xffff_fff0,
        Format::Go120 => 0xffff_fff1,
    };
    let mut data = magic.to_le_bytes().to_vec();
    data.extend([0, 0, 1, 8]);
    let mut words = vec![2u64, 1];
    if !old {
        words.push(TEXT);
    }
    let mut place = 8 + 8 * (words.len() + 5);
    for part in [&names, &units, &files, &values, &entries] {
        words.push(place as u64);
        place += part.len();
    }
    data.extend(words.iter().flat_map(|w| w.to_le_bytes()));
    for part in [names, units, files, values, entries] {
        data.extend(part);
    }
    data
}

fn read(data: Vec<u8>) -> Option<LineTable> {
    let header = Header::read(&data)?;
    LineTable::new(data, header, header.text)
}

fn described(table: &LineTable, address: u64) -> Option<(String, String, u32, u32)> {
    let function = table.function(address)?;
    Some((
        table.name(&function)?,
        table.file(&function, address)?,
        table.line(&function, address)?,
        table.frame_size(&function, address)?,
    ))
}

#[test]
fn reads_all_formats() {
    for format in [Format::Go116, Format::Go118, Format::Go120] {
        let table = read(table(format)).unwrap();
        let at = |offset| described(&table, TEXT + offset);
        let expected = |name: &str, line, frame| Some((name.into(), "x.go".into(), line, frame));
        assert_eq!(at(0), expected("a.one", 7, 0), "{format:?}");
        assert_eq!(at(7), expected("a.one", 7, 0));
        assert_eq!(at(8), expected("a.one", 9, 24));
        assert_eq!(at(32), expected("b.two", 7, 0));
        assert_eq!(at(63), expected("b.two", 9, 24));
        assert_eq!((at(64), described(&table, TEXT - 1)), (None, None));
    }
}

#[test]
fn a_cut_or_damaged_table_is_incomplete_but_never_a_panic() {
    for format in [Format::Go116, Format::Go118, Format::Go120] {
        let whole = table(format);
        let look = |data: Vec<u8>| {
            let table = read(data)?;
            (0..70).find_map(|offset| described(&table, TEXT + offset))
        };
        for length in 0..whole.len() - 120 {
            assert_eq!(look(whole[..length].to_vec()), None, "cut at {length}");
        }
        for position in 0..whole.len() {
            for value in [0, 0x7f, 0x80, 0xff] {
                let mut damaged = whole.clone();
                damaged[position] = value;
                let _ = look(damaged);
            }
        }
    }
    assert!(read(vec![0xff; 4096]).is_none());
}

#[test]
fn a_table_whose_values_never_end_is_given_up() {
    let mut data = table(Format::Go120);
    let values = data.windows(6).position(|w| w == [0, 2, 8, 48, 24, 0]).unwrap();
    // Differences of addresses of zero: the target is never reached.
    data.splice(values + 1.., std::iter::repeat_n([2, 0], 4096).flatten());
    if let Some(table) = read(data) {
        assert_eq!(described(&table, TEXT), None);
    }
}
