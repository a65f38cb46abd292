//! Which hooks load and attach on this kernel, and that all of them tell the same. For virtual machines,
//! whose kernels are known.

mod history;

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use tests::{Suite, test, vm};

/// All flavours of hooks, best first.
const FLAVOURS: [&str; 3] = ["a", "b", "c"];

fn main() -> ExitCode {
    let Ok(expected) = std::env::var(vm::FLAVOURS) else {
        eprintln!("error: {} does not say what is expected of this kernel", vm::FLAVOURS);
        return ExitCode::FAILURE;
    };
    let (present, absent): (Vec<_>, Vec<_>) =
        FLAVOURS.into_iter().partition(|flavour| expected.split(',').any(|one| one == *flavour));
    let mut all = Vec::new();
    for &flavour in &present {
        all.push(test(format!("{flavour}_attaches"), move |suite| attaches(suite, flavour)));
    }
    for flavour in absent {
        all.push(test(format!("{flavour}_is_refused"), move |suite| is_refused(suite, flavour)));
    }
    if present.is_empty() {
        all.push(test("the_kernel_is_refused", the_kernel_is_refused));
    } else {
        all.push(test("the_best_is_chosen", the_best_is_chosen));
        all.push(test("all_tell_the_same_history", move |suite| history::told(suite, &present)));
    }
    tests::run(all)
}

/// All programs of a flavour load and attach.
fn attaches(suite: &Suite, flavour: &str) -> Result<()> {
    let client = suite.client()?;
    let trace = suite.trace().option("--hooks", flavour).pid(client.pid()).flag("--children");
    let report = trace.start()?.stop()?;
    let kind = match flavour {
        "a" => "tp_btf/",
        "b" => "fexit/",
        _ => "kprobe/",
    };
    for purpose in ["send", "receive"] {
        let hook = report.hooks.get(purpose).with_context(|| format!("no hook for {purpose}"))?;
        assert!(hook.starts_with(kind), "{purpose} uses {hook}");
    }
    assert_eq!(report.hooks.len(), 5, "{:?}", report.hooks);
    Ok(())
}

/// It says which hook is missing and what for.
fn is_refused(suite: &Suite, flavour: &str) -> Result<()> {
    let output = suite.tool_says(&["--hooks", flavour, "--duration", "1s"])?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(4), "{}: {text}", output.status);
    ensure!(text.contains("kernel"), "{text}");
    Ok(())
}

fn the_best_is_chosen(suite: &Suite) -> Result<()> {
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
    assert!(text.contains("5.15"), "it does not say which kernels can be traced: {text}");
    let doctor = suite.tool_says(&["doctor"])?;
    assert_eq!(doctor.status.code(), Some(4), "{}", String::from_utf8_lossy(&doctor.stdout));
    Ok(())
}
