//! What the kernel programs cost, by the kernel's own count.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use aya::Ebpf;

/// How often a program ran, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramRuns {
    /// The program's name.
    pub program: String,
    /// All of its runs together.
    pub time: Duration,
    /// Its runs.
    pub count: u64,
}

/// The runs of each loaded program while `kernel.bpf_stats_enabled` is set; nothing when it is not.
pub(super) fn program_runs(ebpf: &Ebpf) -> Vec<ProgramRuns> {
    if is_enabled() { counted(ebpf).collect() } else { Vec::new() }
}

/// The time of all runs together that the kernel has counted.
pub(super) fn run_time(ebpf: &Ebpf) -> Duration {
    counted(ebpf).map(|runs| runs.time).sum()
}

/// What the kernel has counted so far, whenever it did.
///
/// The counters are in the `fdinfo` of a program's descriptor, `bpf_prog_show_fdinfo` in the kernel's
/// `kernel/bpf/syscall.c`.
fn counted(ebpf: &Ebpf) -> impl Iterator<Item = ProgramRuns> {
    let runs = |(name, program): (&str, &aya::programs::Program)| {
        let fd = program.fd().ok()?.as_fd().as_raw_fd();
        let text = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
        let (time, count) = parse(&text)?;
        Some(ProgramRuns { program: name.to_owned(), time, count })
    };
    ebpf.programs().filter_map(runs)
}

fn is_enabled() -> bool {
    fs::read("/proc/sys/kernel/bpf_stats_enabled").is_ok_and(|text| text.starts_with(b"1"))
}

fn parse(text: &str) -> Option<(Duration, u64)> {
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name))?;
        value.trim().parse::<u64>().ok()
    };
    Some((Duration::from_nanos(field("run_time_ns:")?), field("run_cnt:")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        let text = "pos:\t0\nprog_type:\t26\nprog_id:\t7\nrun_time_ns:\t1500\nrun_cnt:\t3\n\
                    recursion_misses:\t0\n";
        assert_eq!(parse(text), Some((Duration::from_nanos(1500), 3)));
        assert_eq!(parse("run_time_ns:\t-1\nrun_cnt:\t3\n"), None);
        assert_eq!(parse(""), None);
    }
}
