//! Attaches the best hook for each purpose: chosen by trying, never by the kernel's version.

use aya::programs::{Program as AyaProgram, ProgramError};
use aya::{Btf, Ebpf};

use crate::error::with_causes;
use crate::sources::kernel::btf;
use crate::sources::kernel::hooks::{Attachment, Flavour, HOOKS, Hook, Program, Purpose};

/// The hook that was attached for a purpose, and those that were refused.
#[derive(Clone, Debug)]
pub struct HookOutcome {
    /// The purpose.
    pub purpose: Purpose,
    /// The attached hook; `None` if all were refused.
    pub chosen: Option<&'static Hook>,
    /// Better hooks that were refused, and why.
    pub refused: Vec<(&'static Hook, String)>,
}

/// Attaches the best hook that loads, for each of `purposes`.
///
/// With `only`, purposes that have a hook of that flavour use it or none: tests reach the fallbacks
/// that way. `types` and `btf` are both the kernel's BTF; aya needs its own form of it.
pub(crate) fn attach(
    ebpf: &mut Ebpf,
    btf: &Btf,
    types: &btf::Btf<'_>,
    purposes: &[Purpose],
    only: Option<Flavour>,
) -> Vec<HookOutcome> {
    purposes.iter().map(|&purpose| attach_best(ebpf, btf, types, purpose, only)).collect()
}

fn attach_best(
    ebpf: &mut Ebpf,
    btf: &Btf,
    types: &btf::Btf<'_>,
    purpose: Purpose,
    only: Option<Flavour>,
) -> HookOutcome {
    let mut hooks: Vec<_> = HOOKS.iter().filter(|hook| hook.purpose == purpose).collect();
    if let Some(only) = only
        && hooks.iter().any(|hook| hook.flavour == only)
    {
        hooks.retain(|hook| hook.flavour == only);
    }
    hooks.retain(|hook| fits(hook, types));
    let mut refused = Vec::new();
    for hook in hooks {
        let attached = match missing(hook, types) {
            Some(what) => Err(what),
            None => attach_hook(ebpf, btf, hook).map_err(|error| reason(&error)),
        };
        match attached {
            Ok(()) => return HookOutcome { purpose, chosen: Some(hook), refused },
            Err(why) => {
                log::debug!("{} was refused: {why}", hook.label);
                refused.push((hook, why));
            }
        }
    }
    HookOutcome { purpose, chosen: None, refused }
}

/// The first function or tracepoint of a hook that this kernel lacks.
fn missing(hook: &Hook, types: &btf::Btf<'_>) -> Option<String> {
    hook.programs.iter().find_map(|program| {
        let (what, is_there) = match program.attachment {
            Attachment::Tracepoint => ("tracepoint", types.has_tracepoint(program.target)),
            Attachment::FunctionExit => ("function", types.has_function(program.target)),
            // A kprobe needs no type, and BTF does not list every function.
            Attachment::Kprobe => return None,
        };
        (!is_there).then(|| format!("this kernel has no {what} {}", program.target))
    })
}

/// Whether the hooked functions have as many parameters as the hook's programs expect. If BTF does
/// not list a function, the kernel decides when the hook is attached.
fn fits(hook: &Hook, types: &btf::Btf<'_>) -> bool {
    let fits = |count| hook.parameters.contains(&count);
    hook.parameters.is_empty()
        || hook.programs.iter().all(|program| types.function_arity(program.target).is_none_or(fits))
}

/// Loads all of a hook's programs before it attaches any, so that a refusal leaves nothing behind.
fn attach_hook(ebpf: &mut Ebpf, btf: &Btf, hook: &Hook) -> Result<(), ProgramError> {
    for program in hook.programs {
        load(ebpf, btf, program)?;
    }
    for program in hook.programs {
        if let Err(error) = attach_program(ebpf, program) {
            for program in hook.programs {
                unload(ebpf, program);
            }
            return Err(error);
        }
    }
    Ok(())
}

fn find<'a>(ebpf: &'a mut Ebpf, program: &Program) -> Result<&'a mut AyaProgram, ProgramError> {
    ebpf.program_mut(program.name).ok_or(ProgramError::UnexpectedProgramType)
}

fn load(ebpf: &mut Ebpf, btf: &Btf, program: &Program) -> Result<(), ProgramError> {
    match (program.attachment, find(ebpf, program)?) {
        (Attachment::Tracepoint, AyaProgram::BtfTracePoint(p)) => p.load(program.target, btf),
        (Attachment::FunctionExit, AyaProgram::FExit(p)) => p.load(program.target, btf),
        (Attachment::Kprobe, AyaProgram::KProbe(p)) => p.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

fn attach_program(ebpf: &mut Ebpf, program: &Program) -> Result<(), ProgramError> {
    match find(ebpf, program)? {
        AyaProgram::BtfTracePoint(p) => p.attach().map(drop),
        AyaProgram::FExit(p) => p.attach().map(drop),
        AyaProgram::KProbe(p) => p.attach(program.target, 0).map(drop),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

fn unload(ebpf: &mut Ebpf, program: &Program) {
    let result = match find(ebpf, program) {
        Ok(AyaProgram::BtfTracePoint(p)) => p.unload(),
        Ok(AyaProgram::FExit(p)) => p.unload(),
        Ok(AyaProgram::KProbe(p)) => p.unload(),
        _ => Ok(()),
    };
    if let Err(error) = result {
        log::debug!("{} could not be unloaded: {error}", program.name);
    }
}

/// How lines of the verifier's log begin that are statistics, not the verdict.
const SUMMARY: [&str; 3] = ["processed ", "stack depth ", "verification time "];

/// The kernel's reason in one line: of the verifier's log, the last line that is not statistics.
fn reason(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let verdict = log
                .lines()
                .rev()
                .map(str::trim)
                .find(|line| !line.is_empty() && !SUMMARY.iter().any(|s| line.starts_with(s)));
            match verdict {
                Some(verdict) => format!("{io_error}: {verdict}"),
                None => io_error.to_string(),
            }
        }
        other => with_causes(other),
    }
}
