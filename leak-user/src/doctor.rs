//! `pgsocktrace doctor`: checks whether tracing works on this machine, hook by hook, and says what
//! to do where it does not.

use std::io::{self, Write};

use crate::sources::kernel::capabilities::CAPABILITIES;
use crate::sources::kernel::{
    HookOutcome, KernelError, Tracer, TracerSettings, capabilities, check_pid_namespace, obstacles,
};

/// Prints the checks to `out`. Returns whether tracing works.
///
/// # Errors
///
/// When `out` cannot be written.
pub fn examine(settings: &TracerSettings, out: &mut impl Write) -> io::Result<bool> {
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
    // Every purpose is tried for real; the programs are detached when this returns.
    let settings = TracerSettings { children: true, ..settings.clone() };
    let verdict = match Tracer::start(&settings) {
        Ok(tracer) => {
            for outcome in tracer.outcomes() {
                hook(outcome, out)?;
            }
            tracer.require_main_job()
        }
        Err(error) => {
            writeln!(out, "  no hook could be tried")?;
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
        Ok(()) => writeln!(out, "pgsocktrace can trace here."),
        Err(error) => writeln!(out, "pgsocktrace cannot trace here: {error}."),
    }
}

fn hook(outcome: &HookOutcome, out: &mut impl Write) -> io::Result<()> {
    let chosen = outcome.chosen.map_or("none", |hook| hook.label);
    writeln!(out, "  {:<9} {chosen:<28} {}", outcome.purpose.name(), outcome.purpose.tells())?;
    for (hook, why) in &outcome.refused {
        writeln!(out, "            {} was refused: {why}", hook.label)?;
        writeln!(out, "            it requires {}", hook.requirement)?;
    }
    if outcome.chosen.is_none() {
        writeln!(out, "            without it, {}", outcome.purpose.without())?;
    }
    Ok(())
}

fn privileges(out: &mut impl Write) -> io::Result<()> {
    let Some(effective) = capabilities::effective() else {
        return writeln!(out, "  unknown: the kernel does not tell this process its capabilities");
    };
    for capability in CAPABILITIES {
        let name = format!("CAP_{}", capability.name);
        if capability.is_in(effective) {
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
            format!("{mode}: BPF programs cannot read memory; boot without it")
        }
        Some(mode) if mode == "integrity" => format!("{mode}: not an obstacle"),
        Some(mode) => mode,
    }
}
