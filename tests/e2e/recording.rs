//! Recordings replay with the same output, without privileges, as far as the file is intact.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use harness::process::Signal;
use harness::suite::finish;
use harness::{Build, Finding, Need, Outcome, Report, Shop, Suite, Test, Trace, eventually, test};

pub(crate) fn tests() -> Vec<Test> {
    let all: Vec<Test> = vec![
        test("replays_print_the_same", replays_print_the_same),
        test("replay_needs_no_privileges", replay_needs_no_privileges).needs(Need::Setpriv),
        test("exit_statuses_and_overrides", exit_statuses_and_overrides),
        test("process_that_exited_with_its_leak", process_that_exited_with_its_leak),
        test("no_payload_and_for_its_owner_only", no_payload_and_for_its_owner_only),
        test("killed_tracer_leaves_a_readable_file", killed_tracer_leaves_a_readable_file),
        test("broken_off_file_is_read_so_far", broken_off_file_is_read_so_far),
        test("damaged_file", damaged_file),
        test("files_that_are_no_recordings", files_that_are_no_recordings),
        test("full_disk", full_disk),
        test("place_that_cannot_be_written", place_that_cannot_be_written),
    ];
    all.into_iter().map(|test| test.needs(Need::Libpq)).collect()
}

const REASON: &str = "idle_in_transaction";

/// A trace of the order service that writes a recording.
fn record(suite: &Suite, shop: &Shop, output: &'static str) -> Result<(Trace, PathBuf)> {
    let path = suite.directory()?.join("run");
    let trace = suite.trace().pid(shop.pid()).output(output).option("--record", &display(&path));
    Ok((trace.start()?, path))
}

fn display(path: &Path) -> String {
    path.display().to_string()
}

/// Makes the service leak a transaction, and waits for the finding.
fn leak(shop: &mut Shop, trace: &Trace) -> Result<Finding> {
    shop.ok("burst 2")?;
    shop.ok("transaction")?;
    trace.finding(|finding| finding.reason == REASON && finding.is_leak())
}

fn end(trace: Trace) -> Result<Outcome> {
    trace.signal(Signal::INT);
    let outcome = trace.outcome()?;
    assert_eq!(outcome.status.code(), Some(0), "{}", outcome.stderr);
    Ok(outcome)
}

/// The recording of a trace that found the leak, and the trace's output.
fn recorded_leak(suite: &Suite) -> Result<(PathBuf, Outcome)> {
    let mut shop = suite.shop(Build::Debug)?;
    let (trace, path) = record(suite, &shop, "ndjson")?;
    leak(&mut shop, &trace)?;
    Ok((path, end(trace)?))
}

fn replay(suite: &Suite, path: &Path, options: &[&str]) -> Result<Output> {
    suite.tool_says(&[&["replay", &display(path)], options].concat())
}

fn report(output: &Output) -> Result<Report> {
    let text = String::from_utf8_lossy(&output.stdout);
    Report::read(&serde_json::from_str(&text).with_context(|| complaints(output))?)
}

fn complaints(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The recording's lines, decompressed.
fn lines(path: &Path) -> Result<String> {
    let output = Command::new("gzip").arg("-cdq").stdin(fs::File::open(path)?).output()?;
    Ok(String::from_utf8(output.stdout)?)
}

fn compress(text: &str, path: &Path) -> Result<()> {
    fs::write(path, text)?;
    let output = Command::new("gzip").arg("-c").stdin(fs::File::open(path)?).output()?;
    ensure!(output.status.success(), "gzip");
    Ok(fs::write(path, output.stdout)?)
}

fn replays_print_the_same(suite: &Suite) -> Result<()> {
    let mut shop = suite.shop(Build::Debug)?;
    let (ndjson, ndjson_file) = record(suite, &shop, "ndjson")?;
    let (text, text_file) = record(suite, &shop, "text")?;
    let (json, json_file) = record(suite, &shop, "json")?;
    leak(&mut shop, &ndjson)?;
    shop.ok("return")?;
    shop.ok("serve 20")?;
    ndjson.let_intervals_pass(4);
    for (trace, file, format) in
        [(ndjson, ndjson_file, "ndjson"), (text, text_file, "text"), (json, json_file, "json")]
    {
        let live = end(trace)?;
        assert!(live.stdout.contains("refund_order"), "{format}: {}", live.stdout);
        let replayed = replay(suite, &file, &["-o", format])?;
        assert_eq!(replayed.status.code(), Some(0), "{}", complaints(&replayed));
        assert_eq!(String::from_utf8(replayed.stdout.clone())?, live.recorded(), "{format}");
        assert_eq!(complaints(&replayed), "", "{format}");
    }
    Ok(())
}

fn replay_needs_no_privileges(suite: &Suite) -> Result<()> {
    let (path, outcome) = recorded_leak(suite)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
    let mut command = suite.tool_as_nobody()?;
    let output = finish(command.args(["replay", &display(&path), "-o", "ndjson"]))?;
    assert_eq!(output.status.code(), Some(0), "{}", complaints(&output));
    assert_eq!(String::from_utf8(output.stdout)?, outcome.recorded());
    Ok(())
}

fn exit_statuses_and_overrides(suite: &Suite) -> Result<()> {
    let (path, _) = recorded_leak(suite)?;
    let output = replay(suite, &path, &["-o", "json", "--fail-on-leak"])?;
    assert_eq!(output.status.code(), Some(3), "{}", complaints(&output));
    assert!(report(&output)?.leaks().iter().any(|leak| leak.reason == REASON));

    // With a silence threshold of an hour, nothing is silent in a run of seconds.
    let patient = ["-o", "json", "--fail-on-leak", "--silent-after", "1h"];
    let output = replay(suite, &path, &patient)?;
    assert_eq!(output.status.code(), Some(1), "{}", complaints(&output));
    assert!(complaints(&output).contains("no leak could be found"), "{}", complaints(&output));
    assert!(report(&output)?.findings.is_empty());

    for bad in [&["replay"][..], &["replay", "run", "--interval", "1s"], &["replay", "a", "b"]] {
        assert_eq!(suite.tool_says(bad)?.status.code(), Some(2), "{bad:?}");
    }
    Ok(())
}

/// The tracer reads from procfs whether a process lives; the recording must contain the answer.
fn process_that_exited_with_its_leak(suite: &Suite) -> Result<()> {
    let mut shop = suite.shop(Build::Debug)?;
    let (trace, path) = record(suite, &shop, "ndjson")?;
    leak(&mut shop, &trace)?;
    shop.kill()?;
    let outcome = trace.outcome()?;
    assert!(outcome.stdout.contains("; the process then exited"), "{}", outcome.stdout);
    let output = replay(suite, &path, &["-o", "ndjson"])?;
    assert_eq!(String::from_utf8(output.stdout)?, outcome.recorded());
    Ok(())
}

fn no_payload_and_for_its_owner_only(suite: &Suite) -> Result<()> {
    let (path, _) = recorded_leak(suite)?;
    assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o777, 0o600);
    let lines = lines(&path)?;
    assert!(lines.contains("refund_order") && lines.contains("\"used\""), "{lines}");
    for payload in ["SELECT", "BEGIN", "generate_series", "refund'"] {
        assert!(!lines.contains(payload), "{payload} is in the recording");
    }
    Ok(())
}

fn killed_tracer_leaves_a_readable_file(suite: &Suite) -> Result<()> {
    let mut shop = suite.shop(Build::Debug)?;
    let (trace, path) = record(suite, &shop, "ndjson")?;
    let found = leak(&mut shop, &trace)?;
    // The recorder flushes the file at least once a second.
    let told = |text: &str| text.matches("\"judge\"").count();
    let before = told(&lines(&path)?);
    eventually("two more judgements are recorded", || Ok(told(&lines(&path)?) >= before + 2))?;
    trace.signal(Signal::KILL);
    trace.outcome()?;

    let output = replay(suite, &path, &["-o", "json"])?;
    assert_eq!(output.status.code(), Some(0), "{}", complaints(&output));
    assert!(complaints(&output).contains("breaks off"), "{}", complaints(&output));
    let report = report(&output)?;
    let leaks = report.leaks();
    let leak = leaks.iter().find(|leak| leak.reason == REASON).context("the leak")?;
    assert_eq!(leak.connections, found.connections);
    Ok(())
}

fn broken_off_file_is_read_so_far(suite: &Suite) -> Result<()> {
    let (path, _) = recorded_leak(suite)?;
    let whole = fs::read(&path)?;
    let mut opened = Vec::new();
    for eighths in [2, 4, 6, 7] {
        fs::write(&path, &whole[..whole.len() * eighths / 8])?;
        let output = replay(suite, &path, &["-o", "json"])?;
        assert_eq!(output.status.code(), Some(0), "{}", complaints(&output));
        assert!(complaints(&output).contains("breaks off"), "{}", complaints(&output));
        opened.push(report(&output)?.events.received);
    }
    assert!(opened.is_sorted() && opened.last() > Some(&0), "{opened:?}");
    fs::write(&path, &whole[..20])?;
    let output = replay(suite, &path, &[])?;
    assert_eq!(output.status.code(), Some(1));
    assert!(complaints(&output).contains("ends before anything was recorded"));
    Ok(())
}

fn damaged_file(suite: &Suite) -> Result<()> {
    let (path, _) = recorded_leak(suite)?;
    let mut bytes = fs::read(&path)?;
    let middle = bytes.len() / 2;
    bytes[middle..middle + 16].fill(0);
    fs::write(&path, bytes)?;
    let output = replay(suite, &path, &["-o", "json"])?;
    assert_eq!(output.status.code(), Some(1));
    assert!(complaints(&output).contains("it is damaged after byte"), "{}", complaints(&output));
    assert!(output.stdout.is_empty(), "a report of half a file");
    Ok(())
}

fn files_that_are_no_recordings(suite: &Suite) -> Result<()> {
    let (path, _) = recorded_leak(suite)?;
    let refused = |path: &Path, why: &str| {
        let output = replay(suite, path, &[])?;
        let said = complaints(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(why) && said.contains(&display(path)), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        anyhow::Ok(())
    };
    refused(&path.with_extension("gone"), "No such file")?;
    refused(path.parent().context("parent")?, "directory")?;
    refused(suite.tool_path(), "it was not written by pgsocktrace --record")?;
    refused(Path::new("/dev/null"), "it ends before anything was recorded")?;
    let newer = lines(&path)?.replacen("pgsocktrace.recording/", "pgsocktrace.recording/9", 1);
    compress(&newer, &path)?;
    refused(&path, "in a format that this version does not know")
}

fn full_disk(suite: &Suite) -> Result<()> {
    let mut shop = suite.shop(Build::Debug)?;
    let trace = suite.trace().pid(shop.pid()).option("--record", "/dev/full").start()?;
    leak(&mut shop, &trace)?;
    let outcome = end(trace)?;
    let said = &outcome.stderr;
    assert!(said.contains("recording stopped: No space left on device"), "{said}");
    assert!(said.contains("the recording lacks the last"), "{said}");
    assert!(outcome.report()?.leaks().iter().any(|leak| leak.reason == REASON));
    Ok(())
}

fn place_that_cannot_be_written(suite: &Suite) -> Result<()> {
    let output = suite.tool_says(&["--duration", "5s", "--record", "/proc/nowhere/run"])?;
    assert_eq!(output.status.code(), Some(1));
    assert!(complaints(&output).contains("/proc/nowhere/run cannot be written: No such file"));
    Ok(())
}
