//! Who waits for a connection, and whether the call that used one still runs; the programs' own
//! word on that is the witness.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use harness::report::{Process, Waiting};
use harness::waiting::App;
use harness::{Finding, Need, Program, Report, Runtime, Suite, Test, bound, test};

/// Threads or goroutines that wait.
const WAITERS: u64 = 5;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("java_pool", |suite| lost_and_held(suite, App::Java))
            .needs(Need::Runtime(Runtime::Java)),
        test("go_pool", |suite| lost_and_held(suite, App::Go)).needs(Need::GoDrivers),
        test("python_pool", |suite| lost_and_held(suite, App::Python)).needs(Need::Sqlalchemy),
        test("pool_exhausted_before_the_trace", |suite| exhausted_before(suite, App::Python))
            .needs(Need::Sqlalchemy),
    ]
}

/// Has callers wait until the program itself says that all of them do.
fn wait(app: &mut Program) -> Result<()> {
    for _ in 0..WAITERS {
        app.ok("wait")?;
    }
    let deadline = Instant::now() + bound();
    while app.ok("count")?.number("waiting")? != WAITERS {
        ensure!(Instant::now() < deadline, "they do not wait");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// The waiters of the report, who are all at the same place.
fn waiters<'a>(report: &'a Report, app: &Program) -> Result<&'a Waiting> {
    let process: &Process = report.process(app.pid())?;
    let waiting = process.waiting.as_deref().context("nobody looked")?;
    let [one] = waiting else { bail!("{waiting:#?}") };
    ensure!(one.count == WAITERS, "{one:#?}");
    ensure!(one.longest_ms.is_some_and(|longest| longest >= 1000), "{one:#?}");
    Ok(one)
}

/// One connection is lost, the other one held by a call that sleeps.
fn lost_and_held(suite: &Suite, kind: App) -> Result<()> {
    let mut app = kind.start(suite)?;
    app.ok("count")?;
    let trace = suite.trace().pid(app.pid()).start()?;
    if kind == App::Go {
        // Goroutines have numbers only once a stack has shown that it is a Go program.
        app.ok("serve")?;
        trace.let_intervals_pass(2);
    }
    app.ok("lose")?;
    app.ok("hold")?;
    wait(&mut app)?;
    let is_awaited = |finding: &Finding, severity: &str| {
        finding.reason == "abandoned"
            && finding.severity == severity
            && finding.evidence.contains(&format!("while {WAITERS} callers wait for one"))
    };
    trace.finding(|finding| is_awaited(finding, "leak"))?;
    let report = trace.stop()?;
    let told = |fate: &str| {
        let mut findings = report.findings.iter();
        let found = findings.find(|finding| finding.fate == fate && finding.retracted_at.is_none());
        found.with_context(|| format!("nothing is {fate}: {:#?}", report.findings))
    };
    let (lost, held) = (told("lost")?, told("held")?);
    ensure!(is_awaited(lost, "leak") && is_awaited(held, "suspect"), "{lost:#?} {held:#?}");
    for (finding, function) in [(lost, "lose"), (held, "hold")] {
        let culprit = finding.culprit.as_ref().and_then(|culprit| culprit.function.as_deref());
        let stack = report.stack(finding.stack.as_ref())?;
        stack.frame(&kind.function(function)).with_context(|| format!("{culprit:?}"))?;
    }
    let connection = report.connection(held.connections[0])?;
    let holder = connection.r#use.holder.as_ref().context("nobody holds it")?;
    ensure!(connection.r#use.state == "checked_out", "{connection:#?}");
    ensure!(holder.pid == app.pid() && holder.goroutine.is_some() == matches!(kind, App::Go));
    let now = report.stack(holder.stack.as_ref())?;
    let functions = now.functions();
    ensure!(functions.iter().any(|name| name.to_lowercase().contains("sleep")), "{functions:?}");
    now.frame(&kind.function("hold"))?;
    ensure!(report.connection(lost.connections[0])?.r#use.holder.is_none());
    report.stack(Some(&waiters(&report, &app)?.stack))?.frame(&kind.function("checkout"))?;
    Ok(())
}

/// Nothing is known of what was used before, but somebody waits.
fn exhausted_before(suite: &Suite, kind: App) -> Result<()> {
    let mut app = kind.start(suite)?;
    app.ok("lose")?;
    app.ok("lose")?;
    wait(&mut app)?;
    let trace = suite.trace().pid(app.pid()).start()?;
    let found = trace.finding(|finding| finding.reason == "abandoned" && finding.is_leak())?;
    ensure!(found.count == 2 && found.evidence.contains("callers wait"), "{found:#?}");
    let report = trace.stop()?;
    let culprit = waiters(&report, &app)?.culprit.as_ref().context("it has a culprit")?;
    ensure!(culprit.function.as_deref() == Some(kind.function("checkout").as_str()), "{culprit:?}");
    Ok(())
}
