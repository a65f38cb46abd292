//! What this kernel and these privileges allow, hook by hook, and what to do about the rest.

use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;

use crate::error::KernelError;
use crate::sources::kernel::{Outcome, Settings, Tracer, obstacles};

/// A capability, what it is for, and its number in `linux/capability.h`.
struct Capability {
    name: &'static str,
    number: u32,
    purpose: &'static str,
    without: &'static str,
}

const CAPABILITIES: &[Capability] = &[
    Capability {
        name: "CAP_BPF",
        number: 39,
        purpose: "load the kernel programs",
        without: "nothing can be traced",
    },
    Capability {
        name: "CAP_PERFMON",
        number: 38,
        purpose: "attach them to tracepoints and read user stacks",
        without: "nothing can be traced",
    },
    Capability {
        name: "CAP_SYS_PTRACE",
        number: 19,
        purpose: "read the memory maps and file descriptors of other users' processes",
        without: "stacks of other users' processes have no names, and who holds a connection is unknown",
    },
    Capability {
        name: "CAP_DAC_READ_SEARCH",
        number: 2,
        purpose: "read the binaries of other users' processes",
        without: "stacks of binaries that this user cannot read have no names",
    },
    Capability {
        name: "CAP_SYS_ADMIN",
        number: 21,
        purpose: "enter other network namespaces, say what the kernel programs cost, and kprobes on some distributions",
        without: "connections in containers that existed before the trace are not listed",
    },
];

/// Inode of the initial PID namespace: `PROC_PID_INIT_INO` in `include/linux/proc_ns.h`.
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// Whether PIDs mean the same here as in the kernel programs. A `/proc` of another namespace does not
/// deceive it: `/proc/self` there either leads to this process or nowhere.
///
/// # Errors
///
/// When they do not, or that cannot be found out.
pub fn check_pid_namespace() -> Result<(), KernelError> {
    let namespace = std::fs::metadata("/proc/self/ns/pid").map_err(KernelError::ForeignProc)?;
    if namespace.ino() == INITIAL_PID_NAMESPACE { Ok(()) } else { Err(KernelError::PidNamespace) }
}

/// Prints the examination to `out` and says whether the main job can run.
///
/// # Errors
///
/// When `out` cannot be written.
pub fn examine(settings: &Settings, out: &mut impl Write) -> io::Result<bool> {
    writeln!(out, "kernel       {}", release())?;
    writeln!(out, "lockdown     {}", lockdown())?;
    let pids = check_pid_namespace();
    match &pids {
        Ok(()) => writeln!(out, "PIDs         the host's")?,
        Err(error) => writeln!(out, "PIDs         {error}")?,
    }
    writeln!(out)?;
    writeln!(out, "Privileges")?;
    privileges(out)?;
    writeln!(out)?;
    writeln!(out, "Hooks")?;
    // All purposes are tried, on the real thing; the programs are gone again when this returns.
    let settings = Settings { children: true, ..settings.clone() };
    let verdict = match Tracer::start(&settings) {
        Ok(tracer) => {
            for outcome in tracer.outcomes() {
                hook(outcome, out)?;
            }
            tracer.require_main_job()
        }
        Err(error) => {
            writeln!(out, "  none could be tried")?;
            Err(error)
        }
    };
    let verdict = pids.and(verdict);
    writeln!(out)?;
    conclude(&verdict, out)?;
    Ok(verdict.is_ok())
}

fn conclude(verdict: &Result<(), KernelError>, out: &mut impl Write) -> io::Result<()> {
    match verdict {
        Ok(()) => writeln!(out, "pgsocktrace can do its work here."),
        Err(error) => writeln!(out, "pgsocktrace cannot do its work here: {error}."),
    }
}

fn hook(outcome: &Outcome, out: &mut impl Write) -> io::Result<()> {
    let chosen = outcome.chosen.map_or("none", |hook| hook.label);
    writeln!(out, "  {:<9} {chosen:<28} {}", outcome.purpose.name(), outcome.purpose.tells())?;
    for (hook, why) in &outcome.refused {
        writeln!(out, "            {} was refused: {why}", hook.label)?;
        writeln!(out, "            it asks for {}", hook.requirement)?;
    }
    if outcome.chosen.is_none() {
        writeln!(out, "            without it, {}", outcome.purpose.without())?;
    }
    Ok(())
}

fn privileges(out: &mut impl Write) -> io::Result<()> {
    let Some(effective) = obstacles::effective_capabilities() else {
        return writeln!(out, "  unknown: /proc/self/status cannot be read");
    };
    for capability in CAPABILITIES {
        let name = capability.name;
        if obstacles::holds(effective, capability.number) {
            writeln!(out, "  {name:<20} held: {}", capability.purpose)?;
        } else {
            writeln!(out, "  {name:<20} MISSING: {}", capability.without)?;
        }
    }
    Ok(())
}

fn release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".into(), |text| text.trim().to_owned())
}

fn lockdown() -> String {
    match obstacles::lockdown() {
        None => "unknown (securityfs is not mounted)".into(),
        Some(mode) if mode == "confidentiality" => {
            format!("{mode}: the kernel lets no program read memory; boot without it")
        }
        Some(mode) if mode == "integrity" => format!("{mode}: does not stand in the way"),
        Some(mode) => mode,
    }
}
