//! How the Rust programs of this directory talk to the server and to the test.

use std::ffi::{c_int, c_void};
use std::io::{self, BufRead, Write};
use std::os::fd::RawFd;

/// Asks for a connection to a database that the server has.
pub const STARTUP: &[u8] = b"\0\0\0\x29\0\x03\0\0user\0postgres\0database\0postgres\0\0";
/// A request.
pub const QUERY: &[u8] = b"Q\0\0\0\x0dSELECT 1\0";
/// How an answer ends.
pub const READY: &[u8] = b"Z\0\0\0\x05I";

unsafe extern "C" {
    fn getsockopt(fd: c_int, level: c_int, name: c_int, value: *mut c_void, length: *mut u32) -> c_int;
}

/// The kernel's number of a connection.
fn cookie(fd: RawFd) -> u64 {
    const SOL_SOCKET: c_int = 1;
    const SO_COOKIE: c_int = 57;
    let (mut cookie, mut length) = (0u64, 8u32);
    // SAFETY: the value is as long as its length says.
    let result = unsafe { getsockopt(fd, SOL_SOCKET, SO_COOKIE, (&raw mut cookie).cast(), &mut length) };
    assert_eq!(result, 0);
    cookie
}

/// Of a wanted place, the name and whether its connection is also used: not after `open `.
pub fn place(wanted: &str) -> (&str, bool) {
    wanted.strip_prefix("open ").map_or((wanted, true), |name| (name, false))
}

/// Serves the test: for each line on stdin, enters the place of that name, which tells its socket;
/// `list` lists them, and `requests` sends a thousand requests on the last connection.
pub fn serve(names: &[&str], mut enter: impl FnMut(&str) -> RawFd) {
    for line in io::stdin().lock().lines() {
        let line = line.expect("a line");
        if line == "list" {
            println!("ok places={}", names.join(","));
        } else {
            let fd = enter(&line);
            println!("ok fd={fd} cookie={}", cookie(fd));
        }
        io::stdout().flush().expect("stdout");
    }
}
