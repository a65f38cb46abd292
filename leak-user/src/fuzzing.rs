//! Every parser of bytes that others make, as a function that takes any bytes.
//!
//! The fuzz targets in `fuzz/` run them for as long as one likes; the tests here run them over
//! their seeds and over damaged ones, so that they cannot rot. None may panic, run for long, or
//! take much memory, whatever the bytes.

use bytemuck::Pod;
use leak_common::connection::{Connection, FirstBytes};

use crate::sources::drivers;
use crate::sources::inventory::sock_diag;
use crate::sources::kernel::btf::Btf;
use crate::sources::kernel::decode;
use crate::sources::kernel::decode::postgres::startup;
use crate::sources::postgres;
use crate::sources::procfs;
use crate::sources::procfs::container;

pub use leak_stacks::fuzzing::Target;

/// All targets of this crate, by the names of their programs in `fuzz/`.
pub const TARGETS: &[(&str, Target)] = &[
    ("btf", btf),
    ("decode", decode),
    ("drivers", drivers),
    ("procfs", procfs),
    ("sock_diag", sock_diag),
    ("startup", startup),
    ("statements", statements),
];

/// Runs the target of this name.
///
/// # Panics
/// When there is none.
pub fn run(name: &str, data: &[u8]) {
    leak_stacks::fuzzing::run_of(TARGETS, name, data);
}

/// The kernel's description of its types.
fn btf(data: &[u8]) {
    if let Ok(btf) = Btf::parse(data) {
        let _ = btf.layout();
        let _ = btf.has_function("tcp_recvmsg");
        let _ = btf.has_tracepoint("sock_send_length");
        let _ = btf.function_arity("tcp_recvmsg");
    }
}

/// Records of the kernel programs: the ring buffer's, and a connection's slot.
fn decode(data: &[u8]) {
    let _ = decode::event(data);
    if let Some(connection) = plain::<Connection>(data) {
        let rest = data.get(size_of::<Connection>()..).unwrap_or_default();
        let _ = decode::slot(&connection, plain::<FirstBytes>(rest).as_ref());
    }
}

/// The code of a driver's library, and what the driver has in a program's memory.
fn drivers(data: &[u8]) {
    drivers::fuzz(data);
}

fn plain<T: Pod>(data: &[u8]) -> Option<T> {
    data.get(..size_of::<T>()).map(bytemuck::pod_read_unaligned)
}

/// What procfs says of processes, whose names are theirs to choose.
fn procfs(data: &[u8]) {
    let _ = leak_stacks::Stat::parse(data);
    let text = String::from_utf8_lossy(data);
    let _ = (container::id(&text), container::pod_uid(&text));
    procfs::innermost_pid(&text);
}

/// Answers of the kernel to the question which sockets exist.
fn sock_diag(data: &[u8]) {
    sock_diag::fuzz(data);
}

/// A client's first message to the server.
fn startup(data: &[u8]) {
    let _ = startup::parse(data);
}

/// Statements, and the texts of programs.
fn statements(data: &[u8]) {
    postgres::fuzz(data);
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use leak_stacks::fuzzing::try_out;

    use super::*;

    #[test]
    fn every_target_survives_its_seeds_and_damaged_ones() {
        try_out(TARGETS, &Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds"));
    }

    #[test]
    fn every_program_of_the_fuzzer_is_a_target() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/fuzz_targets");
        let mut programs: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|e| e.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        programs.sort();
        let targets = TARGETS.iter().chain(leak_stacks::fuzzing::TARGETS);
        let mut targets: Vec<_> = targets.map(|(name, _)| *name).collect();
        targets.sort_unstable();
        assert_eq!(programs, targets);
    }
}
