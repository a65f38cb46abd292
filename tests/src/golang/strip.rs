//! Removes the section headers of an ELF file, which running programs do not need.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// Offsets in the header of a 64-bit ELF file: the section headers' offset (8 bytes); their size,
/// number and name index (2 bytes each).
const OFFSET_AT: usize = 40;
const SIZES_AT: usize = 58;

/// Overwrites a file's section headers, and the fields of the ELF header that locate them.
pub(super) fn section_headers(path: &Path) -> Result<()> {
    let data = fs::read(path)?;
    ensure!(data.starts_with(b"\x7fELF\x02\x01"), "not a 64-bit ELF file");
    let field = |at: usize, size: usize| {
        let bytes = data.get(at..at + size).context("the header is cut off")?;
        Ok::<_, anyhow::Error>(bytes.iter().rev().fold(0, |value, b| value << 8 | u64::from(*b)))
    };
    let (at, size) = (field(OFFSET_AT, 8)?, field(SIZES_AT, 2)? * field(SIZES_AT + 2, 2)?);
    let file = OpenOptions::new().write(true).open(path)?;
    file.write_all_at(&vec![0; usize::try_from(size)?], at)?;
    file.write_all_at(&[0; 8], OFFSET_AT as u64)?;
    file.write_all_at(&[0; 6], SIZES_AT as u64)?;
    Ok(())
}
