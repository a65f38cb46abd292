//! The parts of an ELF file that unwinding and symbolizing need.
//!
//! Everything is read with `pread`, never through a memory mapping: whoever truncates a mapped file
//! kills the process that reads it with SIGBUS. Sizes that a file claims are checked before memory
//! is spent on them.

use std::fs::File;
use std::os::unix::fs::FileExt;

use object::read::{CompressedData, CompressionFormat};

use crate::bytes::{text_at, u16_at, u32_at, u64_at};
use crate::processor::MACHINE;

/// Most program headers and sections that are accepted.
const MAX_HEADERS: usize = 4096;
/// Longest section name.
const MAX_NAME: usize = 256;
/// Largest section that is read, and the most that one may decompress to.
pub(crate) const MAX_SECTION: u64 = 128 << 20;

const HEADER_SIZE: usize = 64;
const PROGRAM_HEADER_SIZE: usize = 56;
pub(crate) const SECTION_HEADER_SIZE: usize = 64;
const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PF_X: u32 = 1;
const PF_W: u32 = 2;
const SHT_NOBITS: u32 = 8;
const SHF_COMPRESSED: u64 = 0x800;

/// Why a file was not usable.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ElfError {
    #[error("reading failed: {0}")]
    Read(#[from] std::io::Error),
    #[error("not a 64-bit little-endian ELF file for x86-64")]
    Foreign,
    #[error("a header points outside of the file")]
    Malformed,
    #[error("a section claims {0} bytes, over the limit")]
    TooLarge(u64),
    #[error("a section could not be decompressed: {0}")]
    Compressed(#[from] object::read::Error),
}

/// A part of the file that is loaded into memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) offset: u64,
    pub(crate) address: u64,
    /// How many bytes of it the file has.
    pub(crate) file_size: u64,
    pub(crate) executable: bool,
    pub(crate) writable: bool,
}

/// A section's header.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    pub(crate) name: String,
    /// Its number in the section headers.
    pub(crate) number: usize,
    pub(crate) address: u64,
    pub(crate) offset: u64,
    pub(crate) size: u64,
    /// Whether it takes no room in the file.
    pub(crate) no_bits: bool,
    /// Whether it begins with a compression header.
    pub(crate) compressed: bool,
}

/// An ELF file's headers.
#[derive(Debug)]
pub(crate) struct Elf {
    pub(crate) segments: Vec<Segment>,
    /// The dynamic section's place in the file: offset and length.
    pub(crate) dynamic: Option<(u64, usize)>,
    pub(crate) sections: Vec<Section>,
    /// Address of the first instruction of a program.
    pub(crate) entry: u64,
    /// The program headers' place in the file: offset and length.
    pub(crate) program_headers: (u64, usize),
    /// The section headers' place in the file: offset and length.
    pub(crate) section_headers: (u64, usize),
}

/// `size` bytes at `offset`.
pub(crate) fn read_exact(file: &File, offset: u64, size: usize) -> Result<Vec<u8>, ElfError> {
    let end = offset.checked_add(size as u64).ok_or(ElfError::Malformed)?;
    // A claim beyond the file's end costs no memory.
    if end > file.metadata()?.len() {
        return Err(ElfError::Malformed);
    }
    let mut data = vec![0; size];
    file.read_exact_at(&mut data, offset)?;
    Ok(data)
}

impl Elf {
    /// Reads the headers.
    pub(crate) fn read(file: &File) -> Result<Self, ElfError> {
        let header = read_exact(file, 0, HEADER_SIZE).map_err(|_| ElfError::Foreign)?;
        // 0x7f "ELF", 64 bits, little-endian.
        if !header.starts_with(b"\x7fELF\x02\x01") || u16_at(&header, 18) != Some(MACHINE) {
            return Err(ElfError::Foreign);
        }
        let field16 = |o| u16_at(&header, o).map(usize::from).ok_or(ElfError::Malformed);
        let field64 = |o| u64_at(&header, o).ok_or(ElfError::Malformed);
        let (segment_size, segment_count) = (field16(54)?, field16(56)?);
        let (section_size, section_count, names) = (field16(58)?, field16(60)?, field16(62)?);
        if segment_count > MAX_HEADERS
            || section_count > MAX_HEADERS
            || (segment_count > 0 && segment_size != PROGRAM_HEADER_SIZE)
            || (section_count > 0 && section_size != SECTION_HEADER_SIZE)
        {
            return Err(ElfError::Malformed);
        }
        let entry = field64(24)?;
        let program_headers = (field64(32)?, segment_count * PROGRAM_HEADER_SIZE);
        let section_headers = (field64(40)?, section_count * SECTION_HEADER_SIZE);
        let headers = read_exact(file, program_headers.0, program_headers.1)?;
        let (segments, dynamic) = (read_segments(&headers), read_dynamic(&headers));
        // Section headers may be stripped; the segments alone still place addresses.
        let sections = read_exact(file, section_headers.0, section_headers.1)
            .and_then(|raw| read_sections(file, &raw, names))
            .unwrap_or_default();
        Ok(Self { segments, dynamic, sections, entry, program_headers, section_headers })
    }

    /// The address that the byte at `offset` of the file has in the file's own numbering.
    pub(crate) fn address_of_offset(&self, offset: u64) -> Option<u64> {
        let holds = |s: &&Segment| offset >= s.offset && offset - s.offset < s.file_size.max(1);
        let segment = self
            .segments
            .iter()
            .filter(|s| s.executable)
            .find(holds)
            .or_else(|| self.segments.iter().find(holds))?;
        segment.address.checked_add(offset - segment.offset)
    }

    /// The place in the file of the byte at `address`.
    pub(crate) fn offset_of_address(&self, address: u64) -> Option<u64> {
        let segment = self
            .segments
            .iter()
            .find(|s| address >= s.address && address - s.address < s.file_size)?;
        segment.offset.checked_add(address - segment.address)
    }

    /// The place in the file of the code at `address`, and how much of it the file holds from
    /// there.
    pub(crate) fn code_at(&self, address: u64) -> Option<(u64, u64)> {
        let holds = |s: &&Segment| address >= s.address && address - s.address < s.file_size;
        let segment = self.segments.iter().filter(|s| s.executable).find(holds)?;
        let within = address - segment.address;
        Some((segment.offset.checked_add(within)?, segment.file_size - within))
    }

    /// The section of that name which has bytes in the file.
    pub(crate) fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|s| s.name == name && !s.no_bits)
    }

    /// A section's bytes, decompressed.
    pub(crate) fn data(&self, file: &File, section: &Section) -> Result<Vec<u8>, ElfError> {
        self.data_within(file, section, MAX_SECTION)
    }

    /// The same with a limit of the caller's. What unfolds to more than it claims is an error.
    pub(crate) fn data_within(
        &self,
        file: &File,
        section: &Section,
        most: u64,
    ) -> Result<Vec<u8>, ElfError> {
        if section.size > most {
            return Err(ElfError::TooLarge(section.size));
        }
        let size = usize::try_from(section.size).map_err(|_| ElfError::Malformed)?;
        let raw = read_exact(file, section.offset, size)?;
        if !section.compressed {
            return Ok(raw);
        }
        let (format, uncompressed_size) = compression(&raw).ok_or(ElfError::Malformed)?;
        if uncompressed_size > most {
            return Err(ElfError::TooLarge(uncompressed_size));
        }
        let data = raw.get(COMPRESSION_HEADER_SIZE..).ok_or(ElfError::Malformed)?;
        let data = CompressedData { format, data, uncompressed_size }.decompress()?;
        Ok(data.into_owned())
    }

    /// How many bytes a section has once decompressed, as it claims.
    pub(crate) fn uncompressed_size(&self, file: &File, section: &Section) -> Option<u64> {
        if !section.compressed {
            return Some(section.size);
        }
        let header = read_exact(file, section.offset, COMPRESSION_HEADER_SIZE).ok()?;
        compression(&header).map(|(_, size)| size)
    }
}

const COMPRESSION_HEADER_SIZE: usize = 24;

/// Format and claimed size from an `Elf64_Chdr`.
fn compression(raw: &[u8]) -> Option<(CompressionFormat, u64)> {
    let format = match u32_at(raw, 0)? {
        1 => CompressionFormat::Zlib,
        2 => CompressionFormat::Zstandard,
        _ => return None,
    };
    Some((format, u64_at(raw, 8)?))
}

fn read_segments(raw: &[u8]) -> Vec<Segment> {
    let read = |h: &[u8]| {
        (u32_at(h, 0)? == PT_LOAD).then_some(())?;
        Some(Segment {
            executable: u32_at(h, 4)? & PF_X != 0,
            offset: u64_at(h, 8)?,
            address: u64_at(h, 16)?,
            file_size: u64_at(h, 32)?,
            writable: u32_at(h, 4)? & PF_W != 0,
        })
    };
    raw.chunks_exact(PROGRAM_HEADER_SIZE).filter_map(read).collect()
}

fn read_dynamic(raw: &[u8]) -> Option<(u64, usize)> {
    let is_dynamic = |h: &&[u8]| u32_at(h, 0) == Some(PT_DYNAMIC);
    let header = raw.chunks_exact(PROGRAM_HEADER_SIZE).find(is_dynamic)?;
    Some((u64_at(header, 8)?, usize::try_from(u64_at(header, 32)?).ok()?))
}

fn read_sections(file: &File, raw: &[u8], names: usize) -> Result<Vec<Section>, ElfError> {
    let names = raw
        .chunks_exact(SECTION_HEADER_SIZE)
        .nth(names)
        .and_then(|h| Some((u64_at(h, 24)?, usize::try_from(u64_at(h, 32)?).ok()?)))
        .filter(|(_, size)| *size <= MAX_HEADERS * MAX_NAME)
        .ok_or(ElfError::Malformed)?;
    let names = read_exact(file, names.0, names.1)?;
    let read = |(number, h): (usize, &[u8])| {
        Some(Section {
            number,
            name: text_at(&names, usize::try_from(u32_at(h, 0)?).ok()?, MAX_NAME)?,
            no_bits: u32_at(h, 4)? == SHT_NOBITS,
            compressed: u64_at(h, 8)? & SHF_COMPRESSED != 0,
            address: u64_at(h, 16)?,
            offset: u64_at(h, 24)?,
            size: u64_at(h, 32)?,
        })
    };
    Ok(raw.chunks_exact(SECTION_HEADER_SIZE).enumerate().filter_map(read).collect())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn own_file() -> File {
        File::open("/proc/self/exe").unwrap()
    }

    #[test]
    fn places_addresses_and_offsets_consistently() {
        let file = own_file();
        let elf = Elf::read(&file).unwrap();
        let text = elf.section(".text").unwrap();
        assert_eq!(elf.address_of_offset(text.offset + 5), Some(text.address + 5));
        assert_eq!(elf.offset_of_address(text.address + 5), Some(text.offset + 5));
        assert_eq!(elf.data(&file, elf.section(".eh_frame_hdr").unwrap()).unwrap()[0], 1);
    }

    #[test]
    fn a_damaged_file_is_an_error_or_incomplete_but_never_a_panic() {
        let whole = read_exact(&own_file(), 0, 4096).unwrap();
        for length in [0, 1, 63, 64, 65, 120, 700, 4095] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&whole[..length]).unwrap();
            if let Ok(elf) = Elf::read(&file) {
                assert!(elf.sections.is_empty(), "the section table was cut off");
            }
        }
        for position in 0..HEADER_SIZE {
            let mut damaged = whole.clone();
            damaged[position] = 0xff;
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&damaged).unwrap();
            let _ = Elf::read(&file);
        }
    }

    #[test]
    fn a_section_that_claims_too_much_is_refused() {
        let file = own_file();
        let elf = Elf::read(&file).unwrap();
        let mut section = elf.section(".text").unwrap().clone();
        section.size = MAX_SECTION + 1;
        assert!(matches!(elf.data(&file, &section), Err(ElfError::TooLarge(_))));
        section.size = MAX_SECTION;
        section.offset = u64::MAX - 3;
        assert!(matches!(elf.data(&file, &section), Err(ElfError::Malformed)));
    }

    #[test]
    fn the_vdso_is_a_binary_with_rules_and_symbols() {
        let file = crate::process::vdso::image().unwrap();
        let elf = Elf::read(&file).unwrap();
        for section in [".dynsym", ".eh_frame", ".text"] {
            assert!(elf.section(section).is_some(), "{section}");
        }
    }
}
