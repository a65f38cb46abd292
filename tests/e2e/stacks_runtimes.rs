//! Stacks of interpreters and JIT compilers.

use std::fs;

use anyhow::{Context, Result, ensure};
use harness::report::Stack;
use harness::runtimes::{PerfMapFile, write_perf_map};
use harness::{Build, Finding, Need, Program, Report, Runtime, Suite, Test, Trace, test};

/// Asks a Java service so often that its compiler takes on everything.
const WARM_UP: &str = "warm 6000";

pub(crate) fn tests() -> Vec<Test> {
    let mut all = Vec::new();
    for driver in ["psycopg", "gevent", "asyncpg"] {
        let runtime = Runtime::Python(driver);
        let body = move |suite: &Suite| python_as_it_tells_itself(suite, runtime);
        all.push(test(format!("python_{driver}"), body).needs(Need::Runtime(runtime)));
    }
    for runtime in [Runtime::Ruby, Runtime::Php("pdo"), Runtime::Php("pgsql")] {
        let name = format!("without_a_perf_map_{runtime:?}").to_lowercase();
        let body = move |suite: &Suite| without_a_perf_map(suite, runtime);
        all.push(test(name.replace(['(', ')', '"'], "_"), body).needs(Need::Runtime(runtime)));
    }
    for (name, runtime, warm_up) in [
        ("java", Runtime::Java, None),
        ("java_compiled", Runtime::Java, Some(WARM_UP)),
        ("java_interpreted", Runtime::JavaInterpreted, None),
    ] {
        let body = move |suite: &Suite| java_as_it_tells_itself(suite, runtime, warm_up);
        all.push(test(name, body).needs(Need::Runtime(runtime)));
    }
    for (name, runtime, warm_up) in [
        ("node", Runtime::Node, None),
        ("node_compiled", Runtime::Node, Some(WARM_UP)),
        ("node_with_a_perf_map", Runtime::NodeMapped, None),
    ] {
        let body = move |suite: &Suite| node_as_it_tells_itself(suite, runtime, warm_up);
        all.push(test(name, body).needs(Need::Runtime(runtime)));
    }
    let needing = |test: Test, runtime| test.needs(Need::Runtime(runtime));
    all.extend([
        needing(test("python_uvloop", deferred_by_the_loop), Runtime::Python("uvloop")),
        needing(test("java_with_a_perf_map", java_with_a_perf_map), Runtime::JavaFramePointers),
        test("driver_frames", driver_frames).needs(Need::Libpq),
        test("driver_frames_by_environment", driver_frames_by_environment).needs(Need::Libpq),
    ]);
    all
}

/// A service, and a trace of it that knows the process.
fn traced(suite: &Suite, runtime: Runtime) -> Result<(Program, Trace)> {
    let mut shop = runtime.start(suite)?;
    shop.ok("serve 2")?;
    let trace = suite.trace().pid(shop.pid()).start()?;
    shop.ok("serve 1")?;
    Ok((shop, trace))
}

/// Leaves a transaction open and waits for the finding.
fn leak(shop: &mut Program, trace: &Trace) -> Result<Finding> {
    shop.ok("transaction")?;
    trace.finding(|finding| finding.reason == "idle_in_transaction" && finding.is_leak())
}

/// The stack of a finding, which is that of the last use.
fn stack_of<'a>(report: &'a Report, finding: &Finding) -> Result<&'a Stack> {
    ensure!(finding.stack_of.as_deref() == Some("last_used_by"), "{finding:#?}");
    report.stack(finding.stack.as_ref())
}

fn is_whole(stack: &Stack, runtime: Runtime) -> Result<()> {
    let found = (stack.quality.as_str(), stack.language.as_str());
    ensure!(found == ("complete", runtime.language()), "{found:?}: {stack:#?}");
    Ok(())
}

/// The line of the source that ends so, from 1.
fn line_of(runtime: Runtime, ending: &str) -> Result<u32> {
    let source = fs::read_to_string(runtime.source())?;
    let index = source.lines().position(|line| line.ends_with(ending));
    Ok(u32::try_from(index.with_context(|| format!("no line ends with {ending}"))? + 1)?)
}

/// Every Python call from the leaking function outward is as Python tells it, function and line.
fn python_as_it_tells_itself(suite: &Suite, runtime: Runtime) -> Result<()> {
    let (mut shop, trace) = traced(suite, runtime)?;
    let witness = shop.ok("transaction")?.word("stack")?.to_owned();
    let finding = trace.finding(|finding| finding.reason == "idle_in_transaction")?;

    let report = trace.stop()?;
    let stack = stack_of(&report, &finding)?;
    is_whole(stack, runtime)?;
    let told: Vec<&str> = witness.split('|').collect();
    let traced: Vec<String> = stack
        .frames
        .iter()
        .filter(|frame| frame.module.is_some() && frame.module == frame.file)
        .filter_map(|frame| {
            // Python tells the name without its classes.
            let function = frame.function.as_deref()?.rsplit('.').next()?;
            Some(format!("{function}:{}", frame.line?))
        })
        .collect();
    ensure!(traced.len() >= told.len(), "{told:#?} against {traced:#?}");
    let outer = &traced[traced.len() - told.len()..];
    assert_eq!(outer, told, "{stack:#?}");
    let culprit = finding.culprit.as_ref().context("nobody is named")?;
    let named =
        format!("{}:{}", culprit.function.as_deref().unwrap_or("?"), culprit.line.unwrap_or(0));
    assert_eq!(named, told[0]);
    Ok(())
}

/// uvloop writes when its turn comes: the coroutine that asked is not on the stack, and the
/// function that started the loop is innocent.
fn deferred_by_the_loop(suite: &Suite) -> Result<()> {
    let runtime = Runtime::Python("uvloop");
    let (mut shop, trace) = traced(suite, runtime)?;
    leak(&mut shop, &trace)?;
    let report = trace.stop()?;
    let finding = report.findings.iter().find(|finding| finding.reason == "idle_in_transaction");
    let finding = finding.context("the finding is gone")?;
    let stack = stack_of(&report, finding)?;
    is_whole(stack, runtime)?;
    assert!(stack.frames.iter().any(|frame| frame.function.as_deref() == Some("<module>")));
    assert_eq!(finding.function(), None, "{stack:#?}");
    Ok(())
}

/// Native frames are whole, nobody is accused by the runtime's own functions, and the same leak is
/// told once, wherever the runtime keeps the code that it compiles.
fn without_a_perf_map(suite: &Suite, runtime: Runtime) -> Result<()> {
    let (mut shop, trace) = traced(suite, runtime)?;
    for _ in 0..3 {
        shop.ok("transaction")?;
        shop.ok("serve 3")?;
    }
    trace.finding(|finding| finding.reason == "idle_in_transaction" && finding.count == 3)?;

    let report = trace.stop()?;
    let findings: Vec<_> =
        report.findings.iter().filter(|f| f.reason == "idle_in_transaction").collect();
    ensure!(findings.len() == 1, "one leak is told as several: {findings:#?}");
    let stack = stack_of(&report, findings[0])?;
    is_whole(stack, runtime)?;
    ensure!(stack.frames.len() >= 10, "{stack:#?}");
    assert_eq!(findings[0].function(), None, "{stack:#?}");
    Ok(())
}

/// Every call from the leaking function outward is as V8 tells it, function and line, without a
/// flag and with a map; and the same leak is told once, whatever is compiled meanwhile.
fn node_as_it_tells_itself(suite: &Suite, runtime: Runtime, warm_up: Option<&str>) -> Result<()> {
    let mut shop = runtime.start(suite)?;
    let _map = PerfMapFile::of(&shop);
    let trace = suite.trace().pid(shop.pid()).start()?;
    if let Some(warm_up) = warm_up {
        shop.ok(warm_up)?;
    }
    let witness = shop.ok("transaction")?.word("stack")?.to_owned();
    shop.ok("serve 3")?;
    shop.ok("transaction")?;
    let finding = trace.finding(|finding| finding.stack.is_some() && finding.count == 2)?;

    let report = trace.stop()?;
    let stack = stack_of(&report, &finding)?;
    is_whole(stack, runtime)?;
    let told: Vec<&str> = witness.split('|').collect();
    let traced: Vec<String> = stack
        .frames
        .iter()
        .filter(|frame| frame.module.is_none())
        .map(|frame| {
            format!("{}:{}", frame.function.as_deref().unwrap_or("?"), frame.line.unwrap_or(0))
        })
        .collect();
    let leaking = traced.iter().position(|call| *call == told[0]);
    let leaking = leaking.with_context(|| format!("{told:#?} against {traced:#?}"))?;
    assert_eq!(traced[leaking..], told, "{stack:#?}");
    let culprit = finding.culprit.as_ref().context("nobody is named")?;
    assert_eq!(culprit.function.as_deref(), Some("refundOrder"), "{stack:#?}");
    assert_eq!(culprit.file.as_deref().map(str::as_ref), Some(runtime.source().as_path()));
    assert_eq!(culprit.line, Some(line_of(runtime, "// LEAK transaction")?));
    // The driver's own JavaScript lies further in.
    let in_driver = |file: &Option<String>| file.as_ref().is_some_and(|f| f.contains("/pg/lib/"));
    let driver = stack.frames.iter().position(|frame| in_driver(&frame.file));
    let own = stack.frames.iter().position(|frame| frame.file == culprit.file);
    ensure!(driver.is_some() && driver < own, "{stack:#?}");
    Ok(())
}

/// The finding about a leak of a JVM that has compiled its methods and written its perf map.
fn warm_java(suite: &Suite, runtime: Runtime) -> Result<(Finding, Report)> {
    let mut shop = runtime.start(suite)?;
    let _map = PerfMapFile::of(&shop);
    shop.ok(WARM_UP)?;
    write_perf_map(&shop)?;
    let trace = suite.trace().pid(shop.pid()).start()?;
    shop.ok("return")?;
    let finding = trace.finding(|finding| finding.stack.is_some())?;
    Ok((finding, trace.stop()?))
}

fn java_with_a_perf_map(suite: &Suite) -> Result<()> {
    let runtime = Runtime::JavaFramePointers;
    let (finding, report) = warm_java(suite, runtime)?;
    let stack = stack_of(&report, &finding)?;
    is_whole(stack, runtime)?;
    let has = |name: &str| stack.frames.iter().any(|f| f.function.as_deref() == Some(name));
    ensure!(has("org.postgresql.jdbc.PgStatement.execute"), "{stack:#?}");
    // A compiled method may have its callees compiled into it, which the map does not tell.
    let named = finding.function().context("nobody is named")?;
    ensure!(["Shop.showInvoice", "Shop.handle"].contains(&named), "{named}: {stack:#?}");
    Ok(())
}

/// Every call from the leaking method outward is as Java tells it, class, method and line, without
/// a flag and without a map; and the same leak is told once, whatever is compiled meanwhile.
fn java_as_it_tells_itself(suite: &Suite, runtime: Runtime, warm_up: Option<&str>) -> Result<()> {
    let mut shop = runtime.start(suite)?;
    let trace = suite.trace().pid(shop.pid()).start()?;
    if let Some(warm_up) = warm_up {
        shop.ok(warm_up)?;
    }
    let witness = shop.ok("transaction")?.word("stack")?.to_owned();
    shop.ok("serve 3")?;
    shop.ok("transaction")?;
    let finding = trace.finding(|finding| finding.stack.is_some() && finding.count == 2)?;

    let report = trace.stop()?;
    let stack = stack_of(&report, &finding)?;
    is_whole(stack, runtime)?;
    let told: Vec<&str> = witness.split('|').collect();
    let traced: Vec<String> = stack
        .frames
        .iter()
        .filter(|frame| frame.module.is_none())
        .map(|frame| {
            format!("{}:{}", frame.function.as_deref().unwrap_or("?"), frame.line.unwrap_or(0))
        })
        .collect();
    let leaking = traced.iter().position(|call| *call == told[0]);
    let leaking = leaking.with_context(|| format!("{told:#?} against {traced:#?}"))?;
    // Java leaves out some calls of its own.
    let outward = traced[leaking..].iter().filter(|call| told.contains(&call.as_str()));
    assert!(outward.eq(&told), "{told:#?} against {traced:#?}");
    ensure!(traced.iter().any(|c| c.starts_with("org.postgresql.jdbc.PgStatement.execute:")));
    let culprit = finding.culprit.as_ref().context("nobody is named")?;
    assert_eq!(culprit.function.as_deref(), Some("Shop.refundOrder"), "{stack:#?}");
    assert_eq!(culprit.file.as_deref(), Some("Shop.java"));
    assert_eq!(culprit.line, Some(line_of(runtime, "// LEAK transaction")?));
    Ok(())
}

/// What the user calls a driver's is not named, nor is anything that it called.
fn driver_frames(suite: &Suite) -> Result<()> {
    let mut shop = suite.shop(Build::Debug)?;
    let trace = suite.trace().pid(shop.pid()).option("--driver-frames", "refund_*").start()?;
    shop.ok("transaction")?;
    let finding = trace.finding(|finding| finding.stack.is_some() && finding.is_leak())?;
    let named = finding.function().context("its caller is not named")?;
    ensure!(named != "refund_order", "{finding:#?}");
    trace.stop()?;
    Ok(())
}

/// The same by a source file, and by the environment.
fn driver_frames_by_environment(suite: &Suite) -> Result<()> {
    let mut shop = suite.shop(Build::Debug)?;
    let trace = suite.trace().pid(shop.pid()).variable("PGSOCKTRACE_DRIVER_FRAMES", "x.*,*/shop.c");
    let trace = trace.start()?;
    shop.ok("transaction")?;
    let finding = trace.finding(|finding| finding.stack.is_some() && finding.is_leak())?;
    assert_eq!(finding.function(), None);
    trace.stop()?;
    Ok(())
}
