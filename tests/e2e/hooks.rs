//! Which hooks load and attach on this kernel, and that all of them report the same. For virtual
//! machines, whose kernels are known.

use anyhow::{Context, Result, bail, ensure};
use harness::{Report, Suite, Test, test, vm::protocol::FLAVOURS as EXPECTED};

use crate::history;

/// A flavour of hooks, with the labels of the hooks that only this flavour has.
struct Flavour {
    name: &'static str,
    send: &'static str,
    receive: &'static str,
}

/// All flavours, best first.
const FLAVOURS: [Flavour; 3] = [
    Flavour { name: "a", send: "tp_btf/sock_send_length", receive: "tp_btf/sock_recv_length" },
    Flavour { name: "b", send: "fexit/tcp_sendmsg", receive: "fexit/tcp_recvmsg" },
    Flavour { name: "c", send: "kprobe/tcp_sendmsg", receive: "kprobe/tcp_recvmsg" },
];

/// The first hook that all flavours need.
const CLOSE: &str = "tp_btf/tcp_destroy_sock";

pub(crate) fn tests() -> Vec<Test> {
    let Ok(expected) = std::env::var(EXPECTED) else {
        return vec![test("expected_hooks_are_named", |_| bail!("{EXPECTED} is not set"))];
    };
    let (present, absent): (Vec<_>, Vec<_>) =
        FLAVOURS.iter().partition(|flavour| expected.split(',').any(|one| one == flavour.name));
    let mut all = Vec::new();
    for &flavour in &present {
        let name = format!("{}_attaches", flavour.name);
        all.push(test(name, move |suite| attaches(suite, flavour)));
    }
    for flavour in absent {
        // Hooks are attached in a fixed order, and the error names the first one that is refused.
        let lacking = if present.is_empty() { CLOSE } else { flavour.receive };
        let name = format!("{}_is_refused", flavour.name);
        all.push(test(name, move |suite| is_refused(suite, flavour, lacking)));
    }
    match present.first() {
        None => all.push(test("the_kernel_is_refused", the_kernel_is_refused)),
        Some(&best) => {
            all.push(test("the_best_is_chosen", move |suite| the_best_is_chosen(suite, best)));
            let names: Vec<_> = present.iter().map(|flavour| flavour.name).collect();
            all.push(test("all_tell_the_same_history", move |suite| history::told(suite, &names)));
        }
    }
    all
}

/// All programs of a flavour load and attach.
fn attaches(suite: &Suite, flavour: &Flavour) -> Result<()> {
    let client = suite.client()?;
    let trace = suite.trace().option("--hooks", flavour.name).pid(client.pid()).flag("--children");
    let report = trace.start()?.stop()?;
    check_flavour(&report, flavour)?;
    assert_eq!(report.hooks.len(), 5, "{:?}", report.hooks);
    Ok(())
}

/// The report names this flavour's hooks.
fn check_flavour(report: &Report, flavour: &Flavour) -> Result<()> {
    for (purpose, label) in [("send", flavour.send), ("receive", flavour.receive)] {
        let hook = report.hooks.get(purpose).with_context(|| format!("no hook for {purpose}"))?;
        assert_eq!(hook, label, "{purpose}");
    }
    Ok(())
}

/// The error names the missing hook, its requirement, and what does not work without it.
fn is_refused(suite: &Suite, flavour: &Flavour, lacking: &str) -> Result<()> {
    let output = suite.tool_says(&["--hooks", flavour.name, "--duration", "1s"])?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(4), "{}: {text}", output.status);
    for words in [&format!("{lacking} needs "), "was refused: ", "without one "] {
        ensure!(text.contains(words), "the error lacks \"{words}\": {text}");
    }
    Ok(())
}

/// Without an option, a trace chooses the best flavour, and `doctor` reports no problem.
fn the_best_is_chosen(suite: &Suite, best: &Flavour) -> Result<()> {
    let client = suite.client()?;
    check_flavour(&suite.trace().pid(client.pid()).start()?.stop()?, best)?;
    let output = suite.tool_says(&["doctor"])?;
    let text = String::from_utf8(output.stdout)?;
    println!();
    for line in text.lines() {
        println!("note: {line}");
    }
    assert_eq!(output.status.code(), Some(0), "{text}");
    Ok(())
}

fn the_kernel_is_refused(suite: &Suite) -> Result<()> {
    let output = suite.tool_says(&["--duration", "1s"])?;
    let text = String::from_utf8(output.stderr)?;
    println!("\nnote: {}", text.trim());
    assert_eq!(output.status.code(), Some(4), "{text}");
    assert!(text.contains("5.15"), "the error does not name the supported kernels: {text}");
    let doctor = suite.tool_says(&["doctor"])?;
    assert_eq!(doctor.status.code(), Some(4), "{}", String::from_utf8_lossy(&doctor.stdout));
    Ok(())
}
