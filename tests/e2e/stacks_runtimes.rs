//! Stacks of interpreters and JIT compilers.

use std::fs;

use anyhow::{Context, Result, ensure};
use harness::report::Stack;
use harness::runtimes::{PerfMapFile, write_perf_map};
use harness::suite::target;
use harness::{Build, Finding, Need, Program, Report, Runtime, Suite, Test, Trace, test};
use support::python;

/// Sends a Java service enough requests for its compiler to compile all methods.
const WARM_UP: &str = "warm 6000";
/// Orders that a Python service lists until its interpreter has compiled what they run through.
const WARM_UP_OF_PYTHON: u32 = 5000;

pub(crate) fn tests() -> Vec<Test> {
    let mut all = Vec::new();
    for driver in ["psycopg", "gevent", "asyncpg"] {
        let runtime = Runtime::Python(driver);
        let body = move |suite: &Suite| python_as_it_tells_itself(suite, runtime, 2);
        all.push(test(format!("python_{driver}"), body).needs(Need::Runtime(runtime)));
    }
    for runtime in [
        Runtime::Php("pdo"),
        Runtime::Php("pgsql"),
        Runtime::PhpCompiled("off"),
        Runtime::PhpCompiled("function"),
        Runtime::PhpCompiled("tracing"),
    ] {
        let name = format!("{runtime:?}").to_lowercase().replace(['(', ')', '"'], "_");
        let body = move |suite: &Suite| php_as_it_tells_itself(suite, runtime);
        all.push(test(name, body).needs(Need::Runtime(runtime)));
    }
    all.push(test("python_releases", newer_pythons).needs(Need::PythonReleases));
    for (name, runtime, warm_up) in [
        ("java", Runtime::Java, None),
        ("java_compiled", Runtime::Java, Some(WARM_UP)),
        ("java_interpreted", Runtime::JavaInterpreted, None),
    ] {
        let body = move |suite: &Suite| java_as_it_tells_itself(suite, runtime, warm_up);
        all.push(test(name, body).needs(Need::Runtime(runtime)));
    }
    for (name, runtime, leak) in [
        ("ruby", Runtime::Ruby, "transaction"),
        ("ruby_in_a_thread", Runtime::Ruby, "thread"),
        ("ruby_compiled", Runtime::RubyCompiled, "transaction"),
    ] {
        let body = move |suite: &Suite| ruby_as_it_tells_itself(suite, runtime, leak);
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

/// A running service, and a trace that has met its process.
fn traced(suite: &Suite, runtime: Runtime) -> Result<(Program, Trace)> {
    traced_after(suite, runtime, 2)
}

/// The same of a service that has served so many requests before.
fn traced_after(suite: &Suite, runtime: Runtime, requests: u32) -> Result<(Program, Trace)> {
    let mut shop = runtime.start(suite)?;
    shop.ok(&format!("serve {requests}"))?;
    let trace = suite.trace().pid(shop.pid()).start()?;
    shop.ok("serve 1")?;
    Ok((shop, trace))
}

/// Leaves a transaction open and waits for the finding.
fn leak(shop: &mut Program, trace: &Trace) -> Result<Finding> {
    shop.ok("transaction")?;
    trace.finding(|finding| finding.reason == "idle_in_transaction" && finding.is_leak())
}

/// The stack of a finding by its last use.
fn stack_of<'a>(report: &'a Report, finding: &Finding) -> Result<&'a Stack> {
    ensure!(finding.stack_of.as_deref() == Some("last_used_by"), "{finding:#?}");
    report.stack(finding.stack.as_ref())
}

fn is_whole(stack: &Stack, runtime: Runtime) -> Result<()> {
    let found = (stack.quality.as_str(), stack.language.as_str());
    ensure!(found == ("complete", runtime.language()), "{found:?}: {stack:#?}");
    Ok(())
}

/// The number of the source line that ends with `ending`, counted from 1.
fn line_of(runtime: Runtime, ending: &str) -> Result<u32> {
    let source = fs::read_to_string(runtime.source())?;
    let index = source.lines().position(|line| line.ends_with(ending));
    Ok(u32::try_from(index.with_context(|| format!("no line ends with {ending}"))? + 1)?)
}

/// The same of every other release, and of what it compiles.
fn newer_pythons(suite: &Suite) -> Result<()> {
    for minor in python::unpacked(&target()) {
        let plain = Runtime::PythonRelease(minor);
        python_as_it_tells_itself(suite, plain, 2).context(format!("3.{minor}"))?;
        let compiled = Runtime::PythonCompiled(minor);
        if compiled.is_there() {
            let told = python_as_it_tells_itself(suite, compiled, WARM_UP_OF_PYTHON);
            told.context(format!("3.{minor}, compiled"))?;
        }
    }
    Ok(())
}

/// All Python calls from the leaking function outward equal Python's own traceback, with function
/// and line.
fn python_as_it_tells_itself(suite: &Suite, runtime: Runtime, warm_up: u32) -> Result<()> {
    let (mut shop, trace) = traced_after(suite, runtime, warm_up)?;
    let witness = shop.ok("transaction")?.word("stack")?.to_owned();
    let finding = trace
        .finding(|finding| finding.reason == "idle_in_transaction" && finding.stack.is_some())?;

    let report = trace.stop()?;
    let stack = stack_of(&report, &finding)?;
    is_whole(stack, runtime)?;
    let told: Vec<&str> = witness.split('|').collect();
    let traced: Vec<String> = stack
        .frames
        .iter()
        .filter(|frame| frame.module.is_some() && frame.module == frame.file)
        .filter_map(|frame| {
            // Python's traceback has function names without their classes.
            let function = frame.function.as_deref()?.rsplit('.').next()?;
            Some(format!("{function}:{}", frame.line?))
        })
        .collect();
    ensure!(traced.len() >= told.len(), "{told:#?} against {traced:#?}");
    let outer = &traced[traced.len() - told.len()..];
    assert_eq!(outer, told, "{stack:#?}");
    let culprit = finding.culprit.as_ref().context("no culprit")?;
    let named =
        format!("{}:{}", culprit.function.as_deref().unwrap_or("?"), culprit.line.unwrap_or(0));
    assert_eq!(named, told[0]);
    Ok(())
}

/// uvloop defers the write: the coroutine that requested it is not on the stack, and the function
/// that started the loop must not be accused.
fn deferred_by_the_loop(suite: &Suite) -> Result<()> {
    let runtime = Runtime::Python("uvloop");
    let (mut shop, trace) = traced(suite, runtime)?;
    leak(&mut shop, &trace)?;
    let report = trace.stop()?;
    let finding = report.findings.iter().find(|finding| finding.reason == "idle_in_transaction");
    let finding = finding.context("the report lacks the finding")?;
    let stack = stack_of(&report, finding)?;
    is_whole(stack, runtime)?;
    assert!(stack.frames.iter().any(|frame| frame.function.as_deref() == Some("<module>")));
    assert_eq!(finding.function(), None, "{stack:#?}");
    Ok(())
}

/// All calls from the leaking function outward equal V8's own, with function and line, without a
/// flag and with a map, and the leak is reported once, whatever is compiled meanwhile.
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
    let culprit = finding.culprit.as_ref().context("no culprit")?;
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

/// The finding and the report of a leak in a JVM that has compiled its methods and written a perf
/// map.
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
    // A compiled method may contain inlined callees, which the perf map does not list.
    let named = finding.function().context("no culprit")?;
    ensure!(["Shop.showInvoice", "Shop.handle"].contains(&named), "{named}: {stack:#?}");
    Ok(())
}

/// All calls from the leaking method outward equal Java's own stack trace, with class, method and
/// line, without options and without a perf map. One leak is one finding, even if methods are
/// compiled in the meantime.
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
    // Java's stack trace omits some of its own calls.
    let outward = traced[leaking..].iter().filter(|call| told.contains(&call.as_str()));
    assert!(outward.eq(&told), "{told:#?} against {traced:#?}");
    ensure!(traced.iter().any(|c| c.starts_with("org.postgresql.jdbc.PgStatement.execute:")));
    let culprit = finding.culprit.as_ref().context("no culprit")?;
    assert_eq!(culprit.function.as_deref(), Some("Shop.refundOrder"), "{stack:#?}");
    assert_eq!(culprit.file.as_deref(), Some("Shop.java"));
    assert_eq!(culprit.line, Some(line_of(runtime, "// LEAK transaction")?));
    Ok(())
}

/// All Ruby calls from the leaking method outward equal Ruby's own, with method and line, and the
/// leak is reported once.
fn ruby_as_it_tells_itself(suite: &Suite, runtime: Runtime, leak: &str) -> Result<()> {
    let (mut shop, trace) = traced(suite, runtime)?;
    shop.ok("serve 100")?;
    let witness = shop.ok(leak)?.word("stack")?.to_owned();
    shop.ok("serve 3")?;
    shop.ok(leak)?;
    let finding = trace.finding(|finding| finding.stack.is_some() && finding.count == 2)?;

    let report = trace.stop()?;
    let stack = stack_of(&report, &finding)?;
    is_whole(stack, runtime)?;
    let culprit = finding.culprit.as_ref().context("no culprit")?;
    assert_eq!(culprit.function.as_deref(), Some("block in Refunds#refund_order"), "{stack:#?}");
    assert_eq!(culprit.line, Some(line_of(runtime, "held.exec(\"SELECT 'refund'\")")?));
    let calls = stack.frames.iter();
    let traced: Vec<_> = calls
        .filter(|frame| frame.file.is_some() && frame.file == frame.module)
        .map(|frame| (bare(frame.function.as_deref().unwrap_or("?")), frame.line.unwrap_or(0)))
        .collect();
    let told: Result<Vec<_>> = witness
        .split('|')
        .map(|call| {
            let (name, line) = call.rsplit_once(':').context("a call has no line")?;
            Ok((bare(&name.replace("rescue_in_", "")), line.parse()?))
        })
        .collect();
    assert_eq!(traced, told?, "{stack:#?}");
    Ok(())
}

/// A method as all releases tell it: without its class.
fn bare(name: &str) -> String {
    let name = name.replace(' ', "_");
    let (start, method) = name.rsplit_once("_in_").unwrap_or_default();
    let method = if start.is_empty() { &name } else { method };
    format!("{start}:{}", method.rsplit(['#', '.']).next().unwrap_or(method))
}

/// All calls from the leaking function outward equal PHP's own, with function, class and line, and
/// the leak is reported once, whatever is compiled meanwhile.
fn php_as_it_tells_itself(suite: &Suite, runtime: Runtime) -> Result<()> {
    let (mut shop, trace) = traced(suite, runtime)?;
    for _ in 0..3 {
        shop.ok("transaction")?;
        shop.ok("serve 3")?;
    }
    let witness = shop.ok("transaction")?.word("stack")?.to_owned();
    let finding = trace.finding(|finding| finding.stack.is_some() && finding.count == 4)?;

    let report = trace.stop()?;
    let stack = stack_of(&report, &finding)?;
    is_whole(stack, runtime)?;
    let told: Vec<&str> = witness.split('|').collect();
    let traced: Vec<String> = stack
        .frames
        .iter()
        .map(|frame| {
            format!("{}:{}", frame.function.as_deref().unwrap_or("?"), frame.line.unwrap_or(0))
        })
        .skip_while(|call| *call != told[0])
        .take(told.len())
        .collect();
    assert_eq!(traced, told, "{stack:#?}");
    let culprit = finding.culprit.as_ref().context("no culprit")?;
    assert_eq!(culprit.file.as_deref().map(str::as_ref), Some(runtime.source().as_path()));
    assert_eq!(culprit.function.as_deref(), Some("refund_order"), "{stack:#?}");
    Ok(())
}

/// Functions that the user declares as a driver's, and their callees, are never the culprit.
fn driver_frames(suite: &Suite) -> Result<()> {
    let mut shop = suite.shop(Build::Debug)?;
    let trace = suite.trace().pid(shop.pid()).option("--driver-frames", "refund_*").start()?;
    shop.ok("transaction")?;
    let finding = trace.finding(|finding| finding.stack.is_some() && finding.is_leak())?;
    let named = finding.function().context("no culprit")?;
    ensure!(named != "refund_order", "{finding:#?}");
    trace.stop()?;
    Ok(())
}

/// Like [`driver_frames`], with a pattern for source files, through the environment.
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
