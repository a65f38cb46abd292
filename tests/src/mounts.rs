//! Mounts and unmounts file systems in virtual machines.

use std::ffi::CString;
use std::fs;
use std::io;

use anyhow::{Context, Result, ensure};

/// Mounts a file system at `place`. Creates the directory if it does not exist.
pub fn mount(place: &str, kind: &str, options: &str) -> Result<()> {
    fs::create_dir_all(place).with_context(|| place.to_owned())?;
    let (to, kind, options) = (CString::new(place)?, CString::new(kind)?, CString::new(options)?);
    // SAFETY: all pointers are to terminated strings that live until the call returns.
    let result = unsafe {
        libc::mount(kind.as_ptr(), to.as_ptr(), kind.as_ptr(), 0, options.as_ptr().cast())
    };
    ensure!(result == 0, "mounting {place}: {}", io::Error::last_os_error());
    Ok(())
}

/// Unmounts the topmost file system at `place`.
pub fn unmount(place: &str) -> Result<()> {
    let path = CString::new(place)?;
    // SAFETY: the path is terminated.
    let result = unsafe { libc::umount(path.as_ptr()) };
    ensure!(result == 0, "unmounting {place}: {}", io::Error::last_os_error());
    Ok(())
}
