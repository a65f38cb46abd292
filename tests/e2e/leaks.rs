//! Leaks are found, with evidence and culprit.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::{Build, Finding, Need, Report, Shop, Suite, Test, Trace, bound, test};

/// The three leaking handlers of the order service: command, function, expected reason.
const NOT_RETURNED: Leak =
    Leak { command: "return", function: "show_invoice", reason: "abandoned" };
const IN_TRANSACTION: Leak =
    Leak { command: "transaction", function: "refund_order", reason: "idle_in_transaction" };
const UNREAD: Leak = Leak { command: "rows", function: "export_orders", reason: "unread_result" };

/// A kind of leak in the order service.
#[derive(Clone, Copy)]
struct Leak {
    /// The command that makes the service leak.
    command: &'static str,
    /// The function that leaks.
    function: &'static str,
    /// The expected reason of the finding.
    reason: &'static str,
}

/// Time between two leaks: longer than between the connections of a pool that warms up.
const BETWEEN_LEAKS: Duration = Duration::from_millis(1300);

pub(crate) fn tests() -> Vec<Test> {
    let mut all = Vec::new();
    for leak in [NOT_RETURNED, IN_TRANSACTION, UNREAD] {
        for build in [Build::Debug, Build::Symbols, Build::Stripped, Build::Threaded] {
            let name = format!("{}_in_c_{build:?}", leak.reason).to_lowercase();
            let test = test(name, move |suite: &Suite| in_c(suite, leak, build));
            all.push(if build == Build::Stripped { test.needs(Need::Strip) } else { test });
        }
    }
    all.extend([
        test("abandoned_in_python", |suite| in_python(suite, NOT_RETURNED)).needs(Need::Psycopg2),
        test("idle_in_transaction_in_python", |suite| in_python(suite, IN_TRANSACTION))
            .needs(Need::Psycopg2),
        test("closed_by_the_server_only", closed_by_the_server_only),
        test("pool_exhausted", pool_exhausted),
        test("two_leaks_are_told_apart", two_leaks_are_told_apart),
        test("used_again", used_again),
        test("opened_before_tracing", opened_before_tracing),
        test("every_connection_is_a_new_one", every_connection_is_a_new_one),
        test("request_without_an_answer", request_without_an_answer),
    ]);
    all.into_iter().map(|test: Test| test.needs(Need::Libpq)).collect()
}

/// Lets the service work and leak now and then, until there is a finding of severity `leak` with
/// the expected reason.
fn leak_until_found(trace: &Trace, shop: &mut Shop, leak: Leak) -> Result<Finding> {
    leak_until(trace, shop, leak, |finding| finding.reason == leak.reason && finding.is_leak())
}

/// Like [`leak_until_found`], until `wanted` accepts a finding.
fn leak_until(
    trace: &Trace,
    shop: &mut Shop,
    leak: Leak,
    wanted: impl Fn(&Finding) -> bool,
) -> Result<Finding> {
    let mut next_leak = Instant::now();
    trace.finding_while(wanted, || {
        if Instant::now() >= next_leak {
            shop.ok(leak.command)?;
            next_leak = Instant::now() + BETWEEN_LEAKS;
        }
        shop.ok("serve 3")?;
        Ok(())
    })
}

/// The unretracted finding with this reason, whose stack must be complete.
fn standing<'a>(report: &'a Report, reason: &str) -> Result<&'a Finding> {
    let leaks = report.leaks();
    let finding = leaks
        .iter()
        .find(|finding| finding.reason == reason)
        .with_context(|| format!("no {reason} among {:#?}", report.findings))?;
    let stack = report.stack(finding.stack.as_ref())?;
    assert_eq!(stack.quality, "complete", "{stack:#?}");
    assert!(finding.evidence.chars().any(|c| c.is_ascii_digit()), "{}", finding.evidence);
    assert_eq!(finding.count, finding.connections.len() as u64);
    Ok(finding)
}

fn in_c(suite: &Suite, leak: Leak, build: Build) -> Result<()> {
    let mut shop = suite.shop(build)?;
    let trace = suite.trace().pid(shop.pid()).start()?;
    shop.ok("burst 2")?;
    leak_until_found(&trace, &mut shop, leak)?;

    let report = trace.stop()?;
    let finding = standing(&report, leak.reason)?;
    assert_eq!(finding.stack_of.as_deref(), Some("last_used_by"));
    let stack = report.stack(finding.stack.as_ref())?;
    let in_program =
        |module: &Option<String>| module.as_ref().is_some_and(|module| module.contains("/shop"));
    assert!(stack.frames.iter().any(|frame| in_program(&frame.module)), "{stack:#?}");
    if build == Build::Stripped {
        assert!(
            finding.function().is_none_or(|name| name == leak.function),
            "a stripped program has no names, but the culprit has one: {:?}",
            finding.culprit
        );
        return Ok(());
    }
    assert_eq!(finding.function(), Some(leak.function), "{stack:#?}");
    let culprit = finding.culprit.as_ref().context("culprit")?;
    if build == Build::Symbols {
        assert_eq!(culprit.line, None, "a program without debug information has no lines");
    } else {
        let file = culprit.file.as_deref().unwrap_or_default();
        assert!(file.ends_with("shop.c"), "{file}");
        assert_eq!(culprit.line, Some(Shop::line_of(build, leak.command)?));
    }
    only_blames(&report, &[leak.function]);
    Ok(())
}

/// No finding of severity `leak` with a last user names any other function.
fn only_blames(report: &Report, functions: &[&str]) {
    for finding in report.leaks() {
        let by_use = finding.stack_of.as_deref() == Some("last_used_by");
        let named = finding.function();
        assert!(
            !by_use || named.is_none_or(|name| functions.contains(&name)),
            "{named:?} is innocent: {finding:#?}"
        );
    }
}

/// A request before the tracer has found the interpreter has no Python names; later requests do.
fn in_python(suite: &Suite, leak: Leak) -> Result<()> {
    let mut shop = suite.shop(Build::Python)?;
    let trace = suite.trace().pid(shop.pid()).start()?;
    shop.ok("serve 2")?;
    let finding = leak_until(&trace, &mut shop, leak, |finding| {
        finding.reason == leak.reason && finding.is_leak() && finding.function().is_some()
    })?;

    let report = trace.stop()?;
    let stack = report.stack(finding.stack.as_ref())?;
    let has = |name: &str| {
        stack.frames.iter().any(|f| f.module.as_ref().is_some_and(|module| module.contains(name)))
    };
    assert!(has("libpq"), "{stack:#?}");
    assert!(has("psycopg"), "{stack:#?}");
    assert_eq!((stack.quality.as_str(), stack.language.as_str()), ("complete", "python"));
    let culprit = finding.culprit.as_ref().context("culprit")?;
    assert_eq!(culprit.function.as_deref(), Some(leak.function), "{stack:#?}");
    let file = culprit.file.as_deref().unwrap_or_default();
    assert!(file.ends_with("shop.py"), "{file}");
    assert_eq!(culprit.line, Some(Shop::line_of(Build::Python, leak.command)?));
    only_blames(&report, &[leak.function]);
    Ok(())
}

fn closed_by_the_server_only(suite: &Suite) -> Result<()> {
    let mut shop = suite.shop(Build::Debug)?;
    let trace = suite.trace().pid(shop.pid()).start()?;
    shop.ok("burst 2")?;
    let backend = shop.ok("return")?.number("backend")?;
    suite.server().terminate(backend)?;
    trace.finding_while(
        |finding| finding.reason == "close_wait",
        || shop.ok("serve 1").map(|_| ()),
    )?;

    let report = trace.stop()?;
    // A single dead connection may be one that its pool has not checked yet: no proof of a leak.
    let finding = report.findings.iter().find(|finding| finding.reason == "close_wait");
    let finding = finding.context("no close_wait")?;
    assert_eq!((finding.count, finding.severity.as_str()), (1, "suspect"));
    assert_eq!(finding.function(), Some("show_invoice"));
    assert_eq!(report.connection(finding.connections[0])?.tcp_state, "CLOSE_WAIT");
    Ok(())
}

/// All connections of a bounded pool leak one by one; then the service hangs.
fn pool_exhausted(suite: &Suite) -> Result<()> {
    let mut shop = suite.shop(Build::Debug)?;
    let trace = suite.trace().pid(shop.pid()).option("--limit", "5").start()?;
    shop.ok("limit 5")?;
    for _ in 0..5 {
        shop.ok("serve 3")?;
        shop.ok("return")?;
        thread::sleep(BETWEEN_LEAKS);
    }
    ensure!(shop.ok("serve 1").is_err(), "the pool is not exhausted");
    trace.finding(|finding| finding.is_leak() && finding.function() == Some("show_invoice"))?;

    let report = trace.stop()?;
    only_blames(&report, &["show_invoice"]);
    assert_eq!(report.connections.len(), 5);
    Ok(())
}

fn two_leaks_are_told_apart(suite: &Suite) -> Result<()> {
    let mut shop = suite.shop(Build::Debug)?;
    let trace = suite.trace().pid(shop.pid()).start()?;
    shop.ok("burst 2")?;
    leak_until_found(&trace, &mut shop, IN_TRANSACTION)?;
    leak_until_found(&trace, &mut shop, NOT_RETURNED)?;

    let report = trace.stop()?;
    assert_eq!(standing(&report, IN_TRANSACTION.reason)?.function(), Some("refund_order"));
    assert_eq!(standing(&report, NOT_RETURNED.reason)?.function(), Some("show_invoice"));
    only_blames(&report, &["refund_order", "show_invoice"]);
    Ok(())
}

fn used_again(suite: &Suite) -> Result<()> {
    let mut shop = suite.shop(Build::Debug)?;
    let trace = suite.trace().pid(shop.pid()).start()?;
    shop.ok("transaction")?;
    trace.finding(|finding| finding.reason == IN_TRANSACTION.reason)?;
    shop.ok("remember")?;
    trace.event("finding_retracted", |event| {
        event.finding().is_some_and(|finding| finding.reason == IN_TRANSACTION.reason)
    })?;

    let report = trace.stop()?;
    assert!(report.leaks().is_empty(), "{:#?}", report.findings);
    let retracted = report.findings.iter().find(|finding| finding.retracted_at.is_some());
    assert_eq!(retracted.context("the retracted finding")?.reason, IN_TRANSACTION.reason);
    Ok(())
}

/// The tool starts during the incident: it reports the reason, but cannot name a culprit.
fn opened_before_tracing(suite: &Suite) -> Result<()> {
    let mut shop = suite.shop(Build::Debug)?;
    shop.ok("transaction")?;
    shop.ok("return")?;
    shop.ok("rows")?;
    let trace = suite.trace().pid(shop.pid()).start()?;
    let finding =
        trace.finding_while(|f| f.reason == UNREAD.reason, || shop.ok("serve 1").map(|_| ()))?;
    assert_eq!(finding.function(), None, "its last use was not seen");

    let report = trace.stop()?;
    let adopted = report.connections.iter().filter(|connection| connection.opened_before_trace);
    assert_eq!(adopted.count(), 3);
    only_blames(&report, &[]);
    Ok(())
}

/// A pool that never reuses connections: their number grows without bound.
fn every_connection_is_a_new_one(suite: &Suite) -> Result<()> {
    let mut shop = suite.shop(Build::Debug)?;
    let trace = suite.trace().pid(shop.pid()).start()?;
    trace.finding_while(
        |finding| finding.is_leak() && finding.function() == Some("show_invoice"),
        || shop.ok("return").map(|_| ()),
    )?;
    trace.stop()?;
    Ok(())
}

fn request_without_an_answer(suite: &Suite) -> Result<()> {
    let mut shop = suite.shop(Build::Debug)?;
    let trace = suite.trace().pid(shop.pid()).start()?;
    shop.ok("long")?;
    let finding = trace.finding(|finding| finding.reason == "awaiting_response")?;
    assert_eq!(finding.severity, "info");

    let report = trace.stop()?;
    assert!(report.leaks().is_empty(), "{:#?}", report.findings);
    assert!(report.only_connection()?.silent_ms <= u64::try_from(bound().as_millis())?);
    Ok(())
}
