//! Every parser of bytes that others make, as a function that takes any bytes.
//!
//! The fuzz targets in `fuzz/` run them for as long as one likes; the tests here run them over their
//! seeds and over damaged ones, so that they cannot rot. None may panic, run for long, or take much
//! memory, whatever the bytes.

use bytemuck::Pod;
use leak_common::connection::{Connection, FirstBytes};

use crate::sources::inventory::sock_diag;
use crate::sources::kernel::btf::Btf;
use crate::sources::kernel::decode;
use crate::sources::kernel::decode::postgres::startup;
use crate::sources::procfs;
use crate::sources::procfs::container;

/// A function that parses any bytes.
pub type Target = fn(&[u8]);

/// All targets, by the names of their programs in `fuzz/`.
pub const TARGETS: &[(&str, Target)] = &[
    ("btf", btf),
    ("culprit_rules", leak_stacks::fuzzing::culprit_rules),
    ("decode", decode),
    ("elf", leak_stacks::fuzzing::elf),
    ("maps", leak_stacks::fuzzing::maps),
    ("pclntab", leak_stacks::fuzzing::pclntab),
    ("perf_map", leak_stacks::fuzzing::perf_map),
    ("procfs", procfs),
    ("python", leak_stacks::fuzzing::python),
    ("sock_diag", sock_diag),
    ("stack", leak_stacks::fuzzing::stack),
    ("startup", startup),
];

/// Runs the target of this name.
///
/// # Panics
/// When there is none.
pub fn run(name: &str, data: &[u8]) {
    let found = TARGETS.iter().find(|(target, _)| *target == name);
    let (_, target) = found.unwrap_or_else(|| panic!("there is no target {name}"));
    target(data);
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

fn plain<T: Pod>(data: &[u8]) -> Option<T> {
    data.get(..size_of::<T>()).map(bytemuck::pod_read_unaligned)
}

/// What procfs says of processes, whose names are theirs to choose.
fn procfs(data: &[u8]) {
    procfs::Stat::parse(data);
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::{Duration, Instant};

    use super::*;

    /// How long each target is tried.
    const SPAN: Duration = Duration::from_secs(1);
    /// How long one input may take, on a machine that is busy with other tests.
    const MOST: Duration = Duration::from_secs(5);

    fn seeds(name: &str) -> Vec<Vec<u8>> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(name);
        let mut paths: Vec<_> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths.iter().map(|path| fs::read(path).unwrap()).collect()
    }

    #[track_caller]
    fn try_one(name: &str, data: &[u8]) {
        let began = Instant::now();
        run(name, data);
        assert!(began.elapsed() < MOST, "{name}: {} bytes took {:?}", data.len(), began.elapsed());
    }

    #[test]
    fn every_target_survives_its_seeds_and_damaged_ones() {
        for (name, _) in TARGETS {
            let seeds = seeds(name);
            assert!(!seeds.is_empty(), "{name} has no seeds");
            // The same damage in every run.
            let mut random = fastrand::Rng::with_seed(1);
            let until = Instant::now() + SPAN;
            for seed in &seeds {
                try_one(name, seed);
            }
            while Instant::now() < until {
                let mut data = random.choice(&seeds).unwrap().clone();
                for _ in 0..=random.usize(..8) {
                    damage(&mut data, &mut random);
                }
                try_one(name, &data);
            }
        }
    }

    #[test]
    fn every_program_of_the_fuzzer_is_a_target() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/fuzz_targets");
        let mut programs: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|e| e.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        programs.sort();
        assert!(programs.iter().eq(TARGETS.iter().map(|(name, _)| name)), "{programs:?}");
    }

    /// Changes a byte, a word, the length or the order of some.
    fn damage(data: &mut Vec<u8>, random: &mut fastrand::Rng) {
        let mut below = |limit: usize| random.usize(..limit.max(1));
        let at = below(data.len());
        match below(4) {
            0 => data.truncate(at),
            1 => {
                let word = [0, u64::MAX, 1 << 63, 1 << 31][below(4)].to_le_bytes();
                let length = [1, 2, 4, 8][below(4)].min(data.len() - at);
                data[at..at + length].copy_from_slice(&word[..length]);
            }
            2 => {
                let from = below(data.len());
                let part = data[from..].iter().take(64).copied().collect::<Vec<_>>();
                data.splice(at..at, part);
            }
            _ => {
                if let Some(byte) = data.get_mut(at) {
                    *byte = random.u8(..);
                }
            }
        }
    }
}
