//! Little-endian numbers and text from untrusted bytes: out of bounds is `None`.

/// `N` bytes at `offset`.
fn array_at<const N: usize>(data: &[u8], offset: usize) -> Option<[u8; N]> {
    data.get(offset..offset.checked_add(N)?)?.try_into().ok()
}

/// The 16-bit number at `offset`.
pub(crate) fn u16_at(data: &[u8], offset: usize) -> Option<u16> {
    array_at(data, offset).map(u16::from_le_bytes)
}

/// The 32-bit number at `offset`.
pub(crate) fn u32_at(data: &[u8], offset: usize) -> Option<u32> {
    array_at(data, offset).map(u32::from_le_bytes)
}

/// The 64-bit number at `offset`.
pub(crate) fn u64_at(data: &[u8], offset: usize) -> Option<u64> {
    array_at(data, offset).map(u64::from_le_bytes)
}

/// The zero-terminated text at `offset`, at most `limit` bytes long; invalid UTF-8 is replaced.
pub(crate) fn text_at(data: &[u8], offset: usize, limit: usize) -> Option<String> {
    let rest = data.get(offset..)?;
    let length = rest.iter().take(limit).position(|&b| b == 0)?;
    Some(String::from_utf8_lossy(rest.get(..length)?).into_owned())
}

/// The last part of a path.
pub(crate) fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
