//! `pgsocktrace run`.

use std::fs;
use std::process::Command;

use anyhow::Result;
use harness::process::{Running, Signal};
use harness::report::Report;
use harness::suite::finish;
use harness::{Shop, Suite, eventually};

use super::says;

fn run(suite: &Suite, options: &[&str], command: &[&str]) -> Command {
    let mut tool = suite.tool();
    tool.arg("run").args(options).args(["-P", &suite.port().to_string(), "--"]).args(command);
    tool
}

/// The command's output, status and signals are its own, and it is the user's who called sudo.
pub(super) fn passes_on(suite: &Suite) -> Result<()> {
    let script = "id -u; id -g; echo $HOME; cat; exit 7";
    let mut tool = run(suite, &["--silent-after", "100ms"], &["sh", "-c", script]);
    tool.env("SUDO_UID", "65534").env("SUDO_GID", "65534");
    let output = finish(&mut tool)?;
    assert_eq!(output.status.code(), Some(7), "{}", says(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "65534\n65534\n/nonexistent\n");
    assert!(String::from_utf8_lossy(&output.stderr).contains("no leak found"), "{}", says(&output));

    let mut running =
        Running::start(&mut run(suite, &["-qq"], &["sh", "-c", "echo up; exec sleep 60"]))?;
    eventually("it runs", || Ok(!running.stdout.all().is_empty()))?;
    running.signal(Signal::TERM);
    assert_eq!(running.wait()?.code(), Some(128 + 15));
    assert_eq!(running.stderr.to_end()?, "");

    let missing = finish(&mut run(suite, &[], &["/nonexistent/program"]))?;
    assert_eq!(missing.status.code(), Some(127), "{}", says(&missing));
    Ok(())
}

/// The first connection of a command has its opener, and a leak fails the run unless it is known.
pub(super) fn fails_on_a_leak(suite: &Suite) -> Result<()> {
    let directory = suite.directory()?;
    let (report, junit) = (directory.join("report"), directory.join("junit.xml"));
    let baseline = directory.join("baseline");
    fs::write(&baseline, "")?;
    let path = |file: &std::path::Path| file.to_string_lossy().into_owned();
    let (report_path, junit_path, baseline) = (path(&report), path(&junit), path(&baseline));
    let mut options = vec!["--fail-on-leak", "--silent-after", "1s", "-i", "300ms", "-o", "ndjson"];
    options.extend(["--report", &report_path, "--junit", &junit_path]);
    options.extend(["--annotations", "github", "--baseline", &baseline]);
    let [shop, server] = Shop::command_line(suite)?;
    let mut running = Running::start(&mut run(suite, &options, &[&shop, &server]))?;
    running.say("transaction")?;
    eventually("the leak is found", || {
        let text = fs::read_to_string(&report).unwrap_or_default();
        let is_leak = |line: &str| line.contains("\"severity\":\"leak\"");
        Ok(text.lines().any(|line| is_leak(line) && line.contains("refund_order")))
    })?;
    assert_eq!(running.wait()?.code(), Some(3), "{}", running.stderr.to_end()?);
    let said = running.stderr.to_end()?;
    assert!(said.contains("::error file="), "{said}");
    let report = Report::printed(&fs::read_to_string(&report)?)?;
    assert_eq!(report.leaks()[0].function(), Some("refund_order"));
    assert!(fs::read_to_string(&junit)?.contains("refund_order"));
    Ok(())
}
