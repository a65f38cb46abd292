//! Shows which function each of the manifest's capabilities provides.

use anyhow::{Context as _, Result, ensure};
use harness::cluster::Manifest;
use harness::{Container, Report, Suite, Test, User, test};

use super::{Node, POD};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("all_capabilities", all),
        test("without_sys_ptrace", without_sys_ptrace),
        test("without_dac_read_search", without_dac_read_search),
        test("without_sys_admin", without_sys_admin),
        test("without_bpf_and_perfmon", without_bpf_and_perfmon),
    ]
}

/// The results of one run that traced a program of another user. The program had a connection
/// before the trace began, and has opened and used another one since.
struct Seen {
    report: Report,
    log: Vec<String>,
    pid: u32,
    before: u64,
    since: u64,
}

fn see(suite: &Suite, manifest: &Manifest) -> Result<Seen> {
    let node = Node::new(suite)?;
    let binary = suite.static_client_path()?;
    let mut program = Container::start_below(suite, &binary, &node.pod_network, User::Owner, POD)?;
    let connect = format!("connect 4 {}", node.server.port());
    let before = program.ok(&connect)?.number("cookie")?;
    program.ok("startup")?;
    let tracer = node.trace(suite, manifest, &[("--kubernetes", "off")])?;
    let since = program.ok(&connect)?.number("cookie")?;
    program.ok("startup")?;
    program.ok("query SELECT 1")?;
    tracer.finding(|finding| finding.is_silence() && finding.connections.contains(&since))?;
    let (pid, log) = (program.pid(), tracer.log());
    let report = tracer.stop()?;
    program.delete()?;
    Ok(Seen { report, log, pid, before, since })
}

impl Seen {
    fn lists_what_was_open_before(&self) -> bool {
        self.report.connection(self.before).is_ok()
    }

    fn names_code(&self) -> Result<bool> {
        let connection = self.report.connection(self.since)?;
        let stack = self.report.stack(connection.last_used_by.as_ref())?;
        Ok(stack.quality == "complete" && stack.frame("do_query").is_ok())
    }

    fn knows_holders(&self) -> Result<bool> {
        Ok(self.report.connection(self.since)?.held_by == [self.pid])
    }
}

fn all(suite: &Suite) -> Result<()> {
    let seen = see(suite, &Manifest::read()?)?;
    ensure!(seen.lists_what_was_open_before(), "{:?}", seen.log);
    ensure!(seen.names_code()? && seen.knows_holders()?, "{:?}", seen.log);
    Ok(())
}

fn without_sys_ptrace(suite: &Suite) -> Result<()> {
    let seen = see(suite, &Manifest::read()?.without("SYS_PTRACE")?)?;
    ensure!(!seen.names_code()?, "CAP_SYS_PTRACE is not needed: {:?}", seen.log);
    Ok(())
}

fn without_dac_read_search(suite: &Suite) -> Result<()> {
    let seen = see(suite, &Manifest::read()?.without("DAC_READ_SEARCH")?)?;
    ensure!(!seen.knows_holders()?, "CAP_DAC_READ_SEARCH is not needed: {:?}", seen.log);
    Ok(())
}

/// The component without CAP_SYS_ADMIN loses only what it documents: connections that were opened
/// before.
fn without_sys_admin(suite: &Suite) -> Result<()> {
    let seen = see(suite, &Manifest::without_sys_admin()?)?;
    ensure!(seen.names_code()?, "{:?}", seen.log);
    ensure!(!seen.lists_what_was_open_before(), "CAP_SYS_ADMIN is not needed: {:?}", seen.log);
    Ok(())
}

/// Without BPF or PERFMON nothing can be traced, and the error says so.
fn without_bpf_and_perfmon(suite: &Suite) -> Result<()> {
    let node = Node::new(suite)?;
    let lacking = [
        (Manifest::read()?.without("SYS_ADMIN")?, "the capabilities BPF, PERFMON"),
        (Manifest::without_sys_admin()?.without("BPF")?, "the capabilities BPF, PERFMON"),
        (Manifest::without_sys_admin()?.without("PERFMON")?, "`pgsocktrace doctor` tells more"),
    ];
    for (manifest, words) in lacking {
        let refused = node.trace(suite, &manifest, &[]).err().context("the tracer starts")?;
        ensure!(format!("{refused:#}").contains(words), "{refused:#}");
    }
    Ok(())
}
