//! Which machines are booted, and what each one does.

use std::collections::BTreeMap;

use super::kernels::{Kernel, Kernels};
use super::protocol::{self, Cgroups, Plan, Step};
use crate::{apps, process, server, suites, trace};
use support::results;

/// Where things lie in a machine.
pub(super) const BINARY: &str = "/usr/bin/pgsocktrace";
pub(super) const E2E: &str = "/tests/e2e";
pub(super) const APPS: &str = "/apps";
pub(super) const DATA: &str = "/data";

/// The suites that show how the kernel programs behave, whatever attaches them.
const BEHAVIOUR: [&str; 4] = ["bytes", "connections", "inventory", "uses"];
/// The suite that shows which hooks load.
const HOOKS: &str = "hooks";
/// The suite that shows what configurations of a kernel do.
const CONFIGURATIONS: &str = "configurations";
/// The suite that counts the instructions that the programs take.
const INSTRUCTIONS: &str = "instructions";
/// The suite that counts those of what people would use instead.
const PEERS: &str = "peers";

/// Tests at once. When a program is attached to a function or detached, the kernel skips the fexit
/// programs of the calls that are under way there, `bpf_tramp_image_put` in its
/// `kernel/bpf/trampoline.c`: the tracers of several tests would make each other miss what a thread
/// was waiting for.
const PARALLEL: u32 = 1;

/// Seconds that tests wait for what must happen: enough where everything is emulated.
const BOUND: &str = "240";

/// A machine to boot.
pub(super) struct Run<'a> {
    /// Its name: the kernel's, then what is tried there.
    pub(super) name: String,
    pub(super) kernel: &'a Kernel,
    /// What is added to the kernel's command line.
    pub(super) parameters: String,
    pub(super) plan: Plan,
    /// What it is about, for the page about kernels.
    pub(super) topic: Topic,
}

/// What a run is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Topic {
    /// The hooks that load.
    Loading,
    /// Behaviour with hooks of this flavour.
    Behaviour(String),
    /// A configuration of the kernel, in words.
    Configuration(&'static str),
    /// What the programs take, in instructions.
    Instructions,
}

/// Kernels whose name ends so are configured in every way.
const CONFIGURED: &[(&str, &str, Cgroups, &str)] = &[
    ("default", "", Cgroups::Unified, "as Debian configures it"),
    ("integrity", "lockdown=integrity", Cgroups::Unified, "lockdown=integrity"),
    ("confidentiality", "lockdown=confidentiality", Cgroups::Unified, "lockdown=confidentiality"),
    ("hybrid", "", Cgroups::Hybrid, "control groups of version 1 with version 2 beside"),
    ("legacy", "", Cgroups::Legacy, "control groups of version 1 alone"),
];

/// What a change has to pass before it lands: everything loads everywhere, all of it tells the
/// same, and no event takes more than it did.
pub(super) fn quick(kernels: &Kernels) -> Vec<Run<'_>> {
    kernels.kernel.iter().map(loading).chain(instructions(kernels)).collect()
}

/// Everything.
pub(super) fn everything(kernels: &Kernels) -> Vec<Run<'_>> {
    let mut runs = Vec::new();
    for kernel in &kernels.kernel {
        runs.push(loading(kernel));
        runs.extend(kernel.flavours.iter().map(|flavour| behaviour(kernel, flavour)));
    }
    // The oldest and the newest of those that can be traced.
    let fit: Vec<&Kernel> = kernels.kernel.iter().filter(|k| !k.flavours.is_empty()).collect();
    if let [oldest, .., newest] = fit.as_slice() {
        for kernel in [oldest, newest] {
            runs.extend(configurations(kernel));
        }
    }
    runs.extend(instructions(kernels));
    runs
}

/// What an event takes with the tracer.
fn instructions(kernels: &Kernels) -> Option<Run<'_>> {
    counting(kernels, INSTRUCTIONS)
}

/// What an event takes with the tracer, and with what people would use instead.
pub(super) fn peers(kernels: &Kernels) -> Option<Run<'_>> {
    counting(kernels, PEERS)
}

/// On the first kernel that lets the best hooks load.
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

/// A step that runs a suite, so many tests at once.
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
