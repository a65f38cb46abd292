//! Kernel configurations and missing privileges: the tracer works, or says what is missing and how
//! to fix it. For virtual machines, where the whole system can be changed.
//!
//! Tests with the same prefix run on machines that were booted the same way.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use harness::mounts::{mount, unmount};
use harness::suite::{as_nobody, finish};
use harness::{Suite, Test, TraceBuilder, test};

/// Capabilities by name and number, from `linux/capability.h`.
const BPF: (&str, u32) = ("BPF", 39);
const PERFMON: (&str, u32) = ("PERFMON", 38);
const SYS_PTRACE: (&str, u32) = ("SYS_PTRACE", 19);
const DAC_READ_SEARCH: (&str, u32) = ("DAC_READ_SEARCH", 2);
const SYS_ADMIN: (&str, u32) = ("SYS_ADMIN", 21);

/// The capabilities that the tool's error messages ask for.
const DOCUMENTED: [(&str, u32); 5] = [BPF, PERFMON, SYS_PTRACE, DAC_READ_SEARCH, SYS_ADMIN];
/// Without CAP_SYS_ADMIN, which is for other network namespaces, and for kprobes on some kernels.
const WITHOUT_SYS_ADMIN: [(&str, u32); 4] = [BPF, PERFMON, SYS_PTRACE, DAC_READ_SEARCH];

/// The sysctl that restricts perf events to privileged processes.
const PARANOIA: &str = "/proc/sys/kernel/perf_event_paranoid";
const UNPRIVILEGED: &str = "/proc/sys/kernel/unprivileged_bpf_disabled";

pub(crate) fn tests() -> Vec<Test> {
    let mut all: Vec<Test> = vec![
        test("default_as_root", as_root),
        test("default_documented_capabilities", documented_capabilities),
        test("default_without_sys_admin", without_sys_admin),
        test("default_unprivileged_bpf_disabled", unprivileged_bpf_disabled),
        test("default_without_tracefs", without_tracefs),
        test("default_little_locked_memory", little_locked_memory),
        test("default_without_btf", without_btf),
        test("integrity_as_root", as_root),
        test("confidentiality_is_refused", confidentiality_is_refused),
        test("hybrid_as_root", as_root),
        test("legacy_as_root", as_root),
    ];
    let refusals: [(_, &[&str]); 2] = [
        (BPF, &["does not let this process use BPF", "run it as root", "the capabilities BPF,"]),
        (PERFMON, &["this process lacks the capability PERFMON;", "run it as root"]),
    ];
    for (missing, words) in refusals {
        let name = format!("default_without_{}", missing.0.to_lowercase());
        all.push(test(name, move |suite| refused_without(suite, missing, words)));
    }
    for level in -1..=3 {
        let name = format!("default_perf_event_paranoid_{level}");
        all.push(test(name, move |suite| perf_event_paranoid(suite, level)));
    }
    all
}

/// Traces a connection and checks everything that the report says about it.
fn works(suite: &Suite, command: Command) -> Result<()> {
    let mut client = suite.client()?;
    // Copying stacks is slow under emulation.
    let trace = TraceBuilder::new(command, suite.port()).option("--stack-budget", "900ms");
    let trace = trace.pid(client.pid()).start()?;
    let id = client.ok(&format!("connect 4 {}", suite.port()))?.number("cookie")?;
    client.ok("startup")?;
    let reply = client.ok("query BEGIN")?;
    trace.finding(|finding| finding.reason == "idle_in_transaction")?;

    let report = trace.stop()?;
    let connection = report.only_connection()?;
    assert_eq!((connection.id, connection.pid), (id, Some(client.pid())));
    assert_eq!(connection.bytes_sent, reply.number("sent")?);
    assert_eq!(connection.bytes_received, reply.number("received")?);
    assert_eq!(connection.wire.state, "in_transaction");
    assert_eq!(connection.held_by, [client.pid()]);
    for stack in [&connection.opened_by, &connection.last_used_by] {
        let stack = report.stack(stack.as_ref())?;
        assert_eq!(stack.quality, "complete");
        stack.frame("main")?;
    }
    Ok(())
}

/// The tracer ends with status 4, and its error contains these words.
fn refused(mut command: Command, words: &[&str]) -> Result<()> {
    let output = finish(command.args(["--duration", "2s"]))?;
    let text = String::from_utf8(output.stderr)?;
    println!("\nnote: {}", text.trim());
    ensure!(output.status.code() == Some(4), "it ended with {}: {text}", output.status);
    for word in words {
        ensure!(text.contains(word), "the error lacks \"{word}\": {text}");
    }
    Ok(())
}

fn as_root(suite: &Suite) -> Result<()> {
    works(suite, suite.tool())
}

/// The tool, run by another user with exactly these capabilities.
fn with_capabilities(suite: &Suite, capabilities: &[(&str, u32)]) -> Command {
    let list = capabilities
        .iter()
        .fold("-all".to_owned(), |list, (_, number)| format!("{list},+cap_{number}"));
    let mut command = as_nobody();
    command
        .arg("--no-new-privs")
        .args([&format!("--inh-caps={list}"), &format!("--ambient-caps={list}")])
        .arg(format!("--bounding-set={list}"))
        .arg(suite.tool_path());
    command
}

fn documented_capabilities(suite: &Suite) -> Result<()> {
    works(suite, with_capabilities(suite, &DOCUMENTED))
}

fn without_sys_admin(suite: &Suite) -> Result<()> {
    works(suite, with_capabilities(suite, &WITHOUT_SYS_ADMIN))
}

fn refused_without(suite: &Suite, missing: (&str, u32), words: &[&str]) -> Result<()> {
    // CAP_SYS_ADMIN would replace either of them.
    let rest: Vec<_> = WITHOUT_SYS_ADMIN.into_iter().filter(|one| *one != missing).collect();
    refused(with_capabilities(suite, &rest), words)
}

fn perf_event_paranoid(suite: &Suite, level: i32) -> Result<()> {
    let before = fs::read_to_string(PARANOIA)?;
    fs::write(PARANOIA, level.to_string())?;
    let done = at_paranoia(suite, level);
    fs::write(PARANOIA, before)?;
    done
}

/// Tracepoints are not restricted. Kprobes are perf events, and Debian's kernels have a level 3
/// that allows perf events only with CAP_SYS_ADMIN.
fn at_paranoia(suite: &Suite, level: i32) -> Result<()> {
    works(suite, with_capabilities(suite, &WITHOUT_SYS_ADMIN))?;
    works(suite, by_kprobes(suite.tool()))?;
    works(suite, by_kprobes(with_capabilities(suite, &DOCUMENTED)))?;
    let command = by_kprobes(with_capabilities(suite, &WITHOUT_SYS_ADMIN));
    if level < 3 {
        return works(suite, command);
    }
    refused(command, &["kprobe/tcp_recvmsg needs ", "CAP_SYS_ADMIN", "perf_event_paranoid"])
}

/// Makes the tracer use kprobes, even if the kernel supports better hooks.
fn by_kprobes(mut command: Command) -> Command {
    command.args(["--hooks", "c"]);
    command
}

fn unprivileged_bpf_disabled(suite: &Suite) -> Result<()> {
    for value in ["2", "1"] {
        fs::write(UNPRIVILEGED, value).with_context(|| format!("{UNPRIVILEGED}: {value}"))?;
        works(suite, with_capabilities(suite, &DOCUMENTED))?;
    }
    Ok(())
}

fn without_tracefs(suite: &Suite) -> Result<()> {
    const PLACE: &str = "/sys/kernel/tracing";
    unmount(PLACE)?;
    let done = works(suite, suite.tool()).and_then(|()| works(suite, by_kprobes(suite.tool())));
    mount(PLACE, "tracefs", "")?;
    done
}

fn little_locked_memory(suite: &Suite) -> Result<()> {
    let tool = with_capabilities(suite, &DOCUMENTED);
    let mut command = Command::new("prlimit");
    command.arg("--memlock=65536:65536").arg(tool.get_program()).args(tool.get_args());
    works(suite, command)
}

fn without_btf(suite: &Suite) -> Result<()> {
    const PLACE: &str = "/sys/kernel/btf";
    mount(PLACE, "tmpfs", "")?;
    let done = refused(suite.tool(), &["BTF", "CONFIG_DEBUG_INFO_BTF"]);
    unmount(PLACE)?;
    done
}

fn confidentiality_is_refused(suite: &Suite) -> Result<()> {
    refused(suite.tool(), &["lockdown", "confidentiality"])
}
