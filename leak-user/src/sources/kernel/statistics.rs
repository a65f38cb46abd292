//! The kernel's own statistics about its programs: runs, run time and skipped runs.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use aya::Ebpf;
use aya::programs::Program;

use crate::model::ProgramHealth;

/// The line of `fdinfo` with the skipped runs.
const SKIPPED: &str = "recursion_misses:";

/// The runs of each loaded program. They are counted only while `kernel.bpf_stats_enabled` is set.
///
/// The kernel skips runs for traced sockets and others: it does not start a program on a processor
/// that is already running it, nor a kprobe program during another kprobe or a system call on a
/// map. It has counted such runs since Linux 5.12 for BTF tracepoints and functions, and since 6.7
/// for kprobes.
pub(super) fn programs(ebpf: &Ebpf) -> Vec<ProgramHealth> {
    let enabled = is_enabled();
    let health = |(name, program): (&str, &Program)| {
        let fdinfo = fdinfo(program)?;
        Some(ProgramHealth {
            program: name.to_owned(),
            counted: parse(&fdinfo).filter(|_| enabled),
            skipped: field(&fdinfo, SKIPPED),
        })
    };
    ebpf.programs().filter_map(health).collect()
}

/// Total time of all runs that the kernel has counted so far, whoever turned statistics on.
///
/// The counters are in the `fdinfo` of a program's file descriptor, see `bpf_prog_show_fdinfo` in
/// `kernel/bpf/syscall.c`.
pub(super) fn run_time(ebpf: &Ebpf) -> Duration {
    let time = |(_, program): (&str, &Program)| Some(parse(&fdinfo(program)?)?.0);
    ebpf.programs().filter_map(time).sum()
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
