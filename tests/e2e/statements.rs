//! The code of sessions that are older than the trace, by their last statement.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use harness::process::{Running, Signal};
use harness::server::USER;
use harness::{Finding, Member, Need, Suite, Test, eventually, test};

/// A function with a text of its own, and two with the same text. It leaves a transaction of each
/// open, and does nothing more.
const PROGRAM: &str = r#"
import sys
import psycopg2

HELD = []

def only_reader(connection):
    connection.cursor().execute("select 11, %s from pg_class limit 1", (7,))

def refund_order(connection):
    connection.cursor().execute("select 12 from pg_class limit 1")

def cancel_order(connection):
    connection.cursor().execute("select 12 from pg_class limit 1")

for use in (only_reader, refund_order):
    HELD.append(psycopg2.connect(""))
    use(HELD[-1])
print("ready", flush=True)
sys.stdin.read()
"#;

pub(crate) fn tests() -> Vec<Test> {
    let found = test("leaks_before_the_trace", leaks_before_the_trace);
    let learnt = test("what_an_earlier_trace_has_learnt", what_an_earlier_trace_has_learnt);
    vec![
        found.needs(Need::GoDrivers).needs(Need::Libpq).needs(Need::Psycopg2),
        learnt.needs(Need::Psycopg2),
    ]
}

/// A statement that stands nowhere in the program: it is put together when it is sent. A line on
/// stdin leaves a transaction of it open.
const BUILDER: &str = r#"
import sys
import psycopg2

HELD = []

def quarterly_report(connection):
    columns = ", ".join(f"{number}" for number in range(3))
    connection.cursor().execute("select " + columns + " from " + "pg_" + "class limit 1")

print("ready", flush=True)
for line in sys.stdin:
    HELD.append(psycopg2.connect(""))
    quarterly_report(HELD[-1])
    print("left", flush=True)
"#;

/// A trace sees who sends a statement; a later one, to which the session is older, knows it.
fn what_an_earlier_trace_has_learnt(suite: &Suite) -> Result<()> {
    let directory = suite.directory()?;
    let script = directory.join("reports.py");
    fs::write(&script, BUILDER)?;
    let mut python = Command::new("/usr/bin/python3");
    python.arg(&script).env("PGHOST", "127.0.0.1").env("PGPORT", suite.port().to_string());
    let mut python = Running::start(python.env("PGUSER", USER).env("PGDATABASE", "postgres"))?;
    let ask = format!("host=127.0.0.1 port={} user={USER}", suite.port());
    let file = directory.join("learnt").display().to_string();
    let trace = |python: &Running| {
        let trace = suite.trace().pid(python.pid());
        trace.option("--pg-dsn", &ask).option("--learn", &file).start()
    };
    let named = |from: &'static str| {
        move |finding: &Finding| {
            finding.is_leak()
                && finding.function() == Some("quarterly_report")
                && finding.culprit_from.as_deref() == Some(from)
        }
    };
    let first = trace(&python)?;
    python.say("leave a transaction open")?;
    first.finding(named("last_use"))?;
    first.stop()?;
    let second = trace(&python)?;
    second.finding(named("statement"))?;
    second.stop()?;
    Ok(())
}

/// Everything happened before the trace: the functions are named by what their sessions say, and
/// where two send the same, both are told and none is blamed.
fn leaks_before_the_trace(suite: &Suite) -> Result<()> {
    let mut workers = Vec::new();
    for member in [Member::GoPq, Member::Libpq] {
        let mut worker = member.start(suite, "transaction", "disable")?;
        worker.begin()?;
        workers.push(worker);
    }
    let script = suite.directory()?.join("orders.py");
    fs::write(&script, PROGRAM)?;
    let mut python = Command::new("/usr/bin/python3");
    python.arg(&script).env("PGHOST", "127.0.0.1").env("PGPORT", suite.port().to_string());
    let python = Running::start(python.env("PGUSER", USER).env("PGDATABASE", "postgres"))?;
    eventually("transactions are left open", || {
        let are_left = workers.iter().all(|worker| worker.lost().len() >= 2);
        Ok(are_left && python.stdout.all().iter().any(|line| line == "ready"))
    })?;
    let mut trace = suite.trace().pid(python.pid());
    for worker in &workers {
        worker.signal(Signal::STOP);
        trace = trace.pid(worker.pid());
    }
    let ask = format!("host=127.0.0.1 port={} user={USER}", suite.port());
    let trace = trace.option("--pg-dsn", &ask).start()?;
    let named = |function: &'static str| {
        move |finding: &Finding| {
            finding.is_leak()
                && finding.reason == "idle_in_transaction"
                && finding.function() == Some(function)
                && finding.culprit_from.as_deref() == Some("statement")
        }
    };
    for function in ["main.(*store).reserveStock", "reserve_stock", "only_reader"] {
        trace.finding(named(function)).context(function)?;
    }
    let report = trace.stop()?;
    let doubtful = report.leaks().into_iter().find(|leak| !leak.culprit_candidates.is_empty());
    let doubtful = doubtful.context("the statement of two functions")?;
    assert!(doubtful.culprit.is_none(), "{doubtful:#?}");
    let names = doubtful.culprit_candidates.iter().map(|one| one.function.as_deref());
    assert_eq!(names.collect::<Vec<_>>(), [Some("refund_order"), Some("cancel_order")]);
    Ok(())
}
