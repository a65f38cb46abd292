//! `cargo xtask demo`: traces a service that leaks in two ways, and checks what the report says.

mod service;

use std::{
    fs::{self, File},
    path::Path,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use support::{
    process::ensure_not_stopped,
    workspace::{self, target_directory},
};

use crate::{
    process::{Guarded, Signal},
    server::{Purpose, Server},
    trace::privileged,
};

/// The functions of the order service that leak; no others do.
const LEAKING: [&str; 2] = ["exportInvoices", "reserveStock"];

/// How long the tracer may run beyond its own duration.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs the demo; fails unless the report names the leaking functions and no other.
pub fn run(root: &Path) -> Result<()> {
    let binary = workspace::binary(root);
    let target = target_directory(root);
    let postgres = Server::alone(Purpose::Measurements)?;
    let service = service::start(root, &target, &postgres)?;

    let trace = |output: &str| {
        let mut tracer = privileged(&binary);
        tracer
            .args(["--pid", &service.pid().to_string(), "--port", &postgres.port().to_string()])
            .args(["--interval", "5s", "--silent-after", "8s", "--duration", "30s"])
            .args(["--output", output])
            .stdin(Stdio::null());
        tracer
    };
    println!(
        "demo: pgsocktrace --pid {} --port {} --interval 5s --silent-after 8s --duration 30s\n",
        service.pid(),
        postgres.port()
    );
    // A second tracer writes the report for the check; tracers do not disturb each other.
    let file = target.join("demo/report.json");
    let mut witness =
        Guarded::spawn(trace("json").arg("--quiet").stdout(File::create(&file)?), Signal::INT)?;
    let mut shown = Guarded::spawn(&mut trace("text"), Signal::INT)?;
    let status = shown.wait(LIMIT)?;
    ensure!(status.success(), "pgsocktrace failed: {status}.");
    let status = witness.wait(LIMIT)?;
    ensure!(status.success(), "pgsocktrace -o json failed: {status}.");
    ensure_not_stopped()?;

    let report = serde_json::from_slice(&fs::read(&file)?).context("The JSON report is broken")?;
    for line in judge(&report)? {
        println!("demo: {line}");
    }
    Ok(())
}

/// Returns where each leak is. Fails if a leaking function is not named or lacks file or line, or
/// if the report accuses another function.
fn judge(report: &Value) -> Result<Vec<String>> {
    let mut found = [const { None }; LEAKING.len()];
    let findings = report["findings"].as_array().context("The report has no findings.")?;
    let accusations = findings
        .iter()
        .filter(|finding| finding["severity"] == "leak" && finding["retracted_at"].is_null())
        .filter(|finding| !finding["culprit"].is_null());
    for finding in accusations {
        let culprit = &finding["culprit"];
        let function = culprit["function"].as_str().context("A culprit has no name.")?;
        let place = LEAKING.iter().position(|name| is_method(function, name));
        let place = place.with_context(|| {
            format!("The report accuses {function}, which is innocent: {}", finding["evidence"])
        })?;
        let file = culprit["file"].as_str().context("A culprit has no file.")?;
        let line = culprit["line"].as_u64().context("A culprit has no line.")?;
        found[place].get_or_insert_with(|| format!("found {function} at {file}:{line}"));
    }
    LEAKING
        .iter()
        .zip(found)
        .map(|(name, line)| line.with_context(|| format!("The report does not name {name}.")))
        .collect()
}

/// Whether a Go function, `main.(*store).name` or `main.name`, is called `name`.
fn is_method(function: &str, name: &str) -> bool {
    function.rsplit('.').next() == Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn finding(severity: &str, function: &str) -> Value {
        json!({
            "severity": severity, "retracted_at": null, "evidence": "5 connections, silent 12 s",
            "culprit": {"function": function, "file": "/demo/orders/store.go", "line": 7},
        })
    }

    fn report(findings: &[Value]) -> Value {
        json!({ "findings": findings })
    }

    #[test]
    fn accepts_both_leaks() {
        let both = [
            finding("leak", "main.(*store).reserveStock"),
            finding("leak", "main.exportInvoices"),
            finding("leak", "main.exportInvoices"),
            finding("info", "main.listOrders"),
        ];
        let lines = judge(&report(&both)).unwrap();
        assert_eq!(lines[0], "found main.exportInvoices at /demo/orders/store.go:7");
        assert_eq!(lines.len(), 2);
    }

    #[test]
    fn refuses_a_missing_leak_and_a_wrong_one() {
        let one = finding("leak", "main.exportInvoices");
        let other = finding("leak", "main.reserveStock");
        let wrong = finding("leak", "main.listOrders");
        assert!(judge(&report(&[])).is_err());
        assert!(judge(&report(std::slice::from_ref(&one))).is_err());
        assert!(judge(&report(&[one.clone(), other.clone(), wrong])).is_err());
        let mut nowhere = other;
        nowhere["culprit"]["line"] = Value::Null;
        assert!(judge(&report(&[one, nowhere])).is_err());
        assert!(judge(&json!({})).is_err());
    }

    #[test]
    fn a_retracted_finding_accuses_nobody() {
        let mut retracted = finding("leak", "main.listOrders");
        retracted["retracted_at"] = json!("2030-01-01T00:00:00Z");
        let both = [
            finding("leak", "main.reserveStock"),
            finding("leak", "main.exportInvoices"),
            retracted,
        ];
        assert!(judge(&report(&both)).is_ok());
    }
}
