//! The code that the kernel maps into every process.

use std::fs::{self, File};
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use crate::process::memory_file::memory_file;

/// The name that the kernel gives the mapping.
pub(crate) const NAME: &str = "[vdso]";
/// Largest vDSO that is read; it has two or four pages.
const MAX_SIZE: u64 = 1 << 20;

/// A copy of this process's vDSO: the kernel maps the same one into all 64-bit processes.
pub(crate) fn image() -> Option<File> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let Range { start, end } = maps.lines().find_map(place)?;
    let size = usize::try_from(end.checked_sub(start).filter(|size| *size <= MAX_SIZE)?).ok()?;
    let mut bytes = vec![0; size];
    File::open("/proc/self/mem").ok()?.read_exact_at(&mut bytes, start).ok()?;
    let mut file = memory_file()?;
    file.write_all(&bytes).ok()?;
    Some(file)
}

/// Where a line of `/proc/PID/maps` says that the vDSO is.
fn place(line: &str) -> Option<Range<u64>> {
    let (start, end) = line.strip_suffix(NAME)?.split_once(' ')?.0.split_once('-')?;
    Some(u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?)
}
