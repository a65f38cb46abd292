//! The machines to boot, and the plan of each.

use std::collections::BTreeMap;

use super::kernels::{Kernel, Kernels};
use super::protocol::{self, Cgroups, Plan, Step};
use crate::{apps, process, server, suites, trace};
use support::results;

/// Paths in a machine.
pub(super) const BINARY: &str = "/usr/bin/pgsocktrace";
pub(super) const E2E: &str = "/tests/e2e";
pub(super) const APPS: &str = "/apps";
pub(super) const DATA: &str = "/data";

/// The suites that test the kernel programs, with each flavour of hooks.
const BEHAVIOUR: [&str; 4] = ["bytes", "connections", "inventory", "uses"];
/// The suite that tests which hooks load.
const HOOKS: &str = "hooks";
/// The suite that tests kernel configurations.
const CONFIGURATIONS: &str = "configurations";
/// The suite that counts the instructions of kernel programs.
const INSTRUCTIONS: &str = "instructions";
/// The suite that counts the instructions of comparable tools.
const PEERS: &str = "peers";

/// Number of tests at a time: one. When a program is attached to a function or detached, the kernel
/// skips the fexit programs of calls that are in progress there (`bpf_tramp_image_put` in
/// `kernel/bpf/trampoline.c`). With several tests at a time, one tracer's start could make another
/// miss an event.
const PARALLEL: u32 = 1;

/// Time limit in seconds for anything that must happen: long, because machines are emulated.
const BOUND: &str = "240";

/// A machine to boot.
pub(super) struct Run<'a> {
    /// The kernel's name, followed by the subject of the run.
    pub(super) name: String,
    pub(super) kernel: &'a Kernel,
    /// Additional parameters of the kernel's command line.
    pub(super) parameters: String,
    pub(super) plan: Plan,
    /// The section of docs/kernels.md with the run's results.
    pub(super) topic: Topic,
}

/// The subject of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Topic {
    /// Which hooks load.
    Loading,
    /// Behaviour with hooks of this flavour.
    Behaviour(String),
    /// A configuration of the kernel, described in words.
    Configuration(&'static str),
    /// Instructions per event.
    Instructions,
}

/// Configurations of a kernel: name, boot parameters, cgroup versions and description.
const CONFIGURED: &[(&str, &str, Cgroups, &str)] = &[
    ("default", "", Cgroups::Unified, "as Debian configures it"),
    ("integrity", "lockdown=integrity", Cgroups::Unified, "lockdown=integrity"),
    ("confidentiality", "lockdown=confidentiality", Cgroups::Unified, "lockdown=confidentiality"),
    ("hybrid", "", Cgroups::Hybrid, "control groups of version 1 with version 2 beside"),
    ("legacy", "", Cgroups::Legacy, "control groups of version 1 alone"),
];

/// The runs that every change must pass: all hooks load on all kernels and report the same, and no
/// event takes more instructions than before.
pub(super) fn quick(kernels: &Kernels) -> Vec<Run<'_>> {
    kernels.kernel.iter().map(loading).chain(instructions(kernels)).collect()
}

/// All runs.
pub(super) fn everything(kernels: &Kernels) -> Vec<Run<'_>> {
    let mut runs = Vec::new();
    for kernel in &kernels.kernel {
        runs.push(loading(kernel));
        runs.extend(kernel.flavours.iter().map(|flavour| behaviour(kernel, flavour)));
    }
    // The oldest and the newest of the kernels that can be traced.
    let fit: Vec<&Kernel> = kernels.kernel.iter().filter(|k| !k.flavours.is_empty()).collect();
    if let [oldest, .., newest] = fit.as_slice() {
        for kernel in [oldest, newest] {
            runs.extend(configurations(kernel));
        }
    }
    runs.extend(instructions(kernels));
    runs
}

/// Counts the instructions per event with the tracer.
fn instructions(kernels: &Kernels) -> Option<Run<'_>> {
    counting(kernels, INSTRUCTIONS)
}

/// Counts the instructions per event with the tracer and with comparable tools.
pub(super) fn peers(kernels: &Kernels) -> Option<Run<'_>> {
    counting(kernels, PEERS)
}

/// A run on the first kernel that loads the best hooks.
fn counting<'a>(kernels: &'a Kernels, target: &str) -> Option<Run<'a>> {
    let best = |kernel: &&Kernel| kernel.flavours.iter().any(|flavour| flavour == "a");
    let kernel = kernels.kernel.iter().find(best)?;
    Some(Run {
        name: format!("{}-{target}", kernel.name),
        kernel,
        parameters: String::new(),
        plan: Plan { cgroups: Cgroups::Unified, steps: vec![step(target, 1, &[])] },
        topic: Topic::Instructions,
    })
}

fn loading(kernel: &Kernel) -> Run<'_> {
    let mut step = step(HOOKS, 1, &[]);
    step.environment.insert(protocol::FLAVOURS.into(), kernel.flavours.join(","));
    Run {
        name: format!("{}-{HOOKS}", kernel.name),
        kernel,
        parameters: String::new(),
        plan: Plan { cgroups: Cgroups::Unified, steps: vec![step] },
        topic: Topic::Loading,
    }
}

fn behaviour<'a>(kernel: &'a Kernel, flavour: &str) -> Run<'a> {
    let steps = BEHAVIOUR.map(|target| {
        let mut step = step(target, PARALLEL, &[]);
        step.environment.insert(trace::FLAVOUR.into(), flavour.into());
        step
    });
    Run {
        name: format!("{}-{flavour}", kernel.name),
        kernel,
        parameters: String::new(),
        plan: Plan { cgroups: Cgroups::Unified, steps: steps.into() },
        topic: Topic::Behaviour(flavour.into()),
    }
}

fn configurations(kernel: &Kernel) -> impl Iterator<Item = Run<'_>> {
    CONFIGURED.iter().map(move |(name, parameters, cgroups, words)| Run {
        name: format!("{}-{name}", kernel.name),
        kernel,
        parameters: (*parameters).into(),
        plan: Plan { cgroups: *cgroups, steps: vec![step(CONFIGURATIONS, 1, &[name])] },
        topic: Topic::Configuration(words),
    })
}

/// A step that runs a suite, with this many tests at a time.
fn step(suite: &str, parallel: u32, filters: &[&str]) -> Step {
    let mut command = vec![E2E.to_owned(), format!("--test-threads={parallel}")];
    command.extend(results::ARGUMENTS.iter().chain(filters).map(|&argument| argument.to_owned()));
    let environment = [
        ("PATH", "/usr/bin:/usr/sbin"),
        ("HOME", "/tmp"),
        ("RUST_BACKTRACE", "0"),
        ("PGSOCKTRACE_BIN", BINARY),
        (suites::CHOICE, suite),
        (apps::COMPILED, APPS),
        (server::PREPARED, DATA),
        (process::PATIENCE, BOUND),
    ];
    let environment: BTreeMap<_, _> =
        environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    Step { name: suite.to_owned(), command, environment }
}
