//! The kernel's own statistics about its programs: runs, run time and skipped runs.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use aya::Ebpf;
use aya::programs::Program;

/// The line of `fdinfo` with the skipped runs.
const SKIPPED: &str = "recursion_misses:";

/// How often a program ran, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramRuns {
    /// The program's name.
    pub program: String,
    /// Total time of its runs.
    pub time: Duration,
    /// Number of its runs.
    pub count: u64,
}

/// The runs of each loaded program; empty unless `kernel.bpf_stats_enabled` is set.
pub(super) fn program_runs(ebpf: &Ebpf) -> Vec<ProgramRuns> {
    if is_enabled() { counted(ebpf).collect() } else { Vec::new() }
}

/// Total time of all runs that the kernel has counted.
pub(super) fn run_time(ebpf: &Ebpf) -> Duration {
    counted(ebpf).map(|runs| runs.time).sum()
}

/// What the kernel has counted so far, whoever turned statistics on.
///
/// The counters are in the `fdinfo` of a program's file descriptor, see `bpf_prog_show_fdinfo` in
/// `kernel/bpf/syscall.c`.
fn counted(ebpf: &Ebpf) -> impl Iterator<Item = ProgramRuns> {
    let runs = |(name, program): (&str, &Program)| {
        let (time, count) = parse(&fdinfo(program)?)?;
        Some(ProgramRuns { program: name.to_owned(), time, count })
    };
    ebpf.programs().filter_map(runs)
}

/// How many runs of each loaded program the kernel skipped, for traced sockets and others.
///
/// The kernel does not start a program on a processor that is already running it, nor a kprobe
/// program during another kprobe or a system call on a map. It has counted such runs since Linux
/// 5.12 for BTF tracepoints and functions, and since 6.7 for kprobes.
pub(super) fn skipped_runs(ebpf: &Ebpf) -> Vec<(String, u64)> {
    let skipped = |(name, program): (&str, &Program)| {
        Some((name.to_owned(), field(&fdinfo(program)?, SKIPPED)?))
    };
    ebpf.programs().filter_map(skipped).collect()
}

/// The `fdinfo` of a loaded program.
fn fdinfo(program: &Program) -> Option<String> {
    let fd = program.fd().ok()?.as_fd().as_raw_fd();
    fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()
}

fn is_enabled() -> bool {
    fs::read("/proc/sys/kernel/bpf_stats_enabled").is_ok_and(|text| text.starts_with(b"1"))
}

fn parse(text: &str) -> Option<(Duration, u64)> {
    Some((Duration::from_nanos(field(text, "run_time_ns:")?), field(text, "run_cnt:")?))
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        let text = "pos:\t0\nprog_type:\t26\nprog_id:\t7\nrun_time_ns:\t1500\nrun_cnt:\t3\n\
                    recursion_misses:\t5\n";
        assert_eq!(parse(text), Some((Duration::from_nanos(1500), 3)));
        assert_eq!(parse("run_time_ns:\t-1\nrun_cnt:\t3\n"), None);
        assert_eq!(field(text, SKIPPED), Some(5));
        assert_eq!(parse(""), None);
    }
}
