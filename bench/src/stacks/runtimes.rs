//! Stacks of interpreters and JIT compilers.

mod witness;

use std::{
    fs,
    io::{BufRead as _, BufReader, Lines, Write as _},
    process::{ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use harness::{cost::Statistics, trace::privileged};
use serde_json::Value;
use support::{
    command::output,
    process::{Guarded, Signal, pause},
    workspace::node_path,
};
use tempfile::TempDir;

use super::{Bench, Row, Share};

/// How long the tracer gets to attach.
const ATTACH: Duration = Duration::from_secs(2);
/// How long after its last request a connection is looked at: silent for long enough.
const SILENCE: Duration = Duration::from_secs(4);
/// How long the tracer may take to write its report.
const REPORT_LIMIT: Duration = Duration::from_secs(30);
/// Requests whose cost is measured.
const ROUNDS: u32 = 300;
/// Connections that are leaked before the one whose stack is compared.
const LEAKS: u64 = 4;

/// The functions that leak, as each language spells them.
const LEAKING: [&str; 6] = [
    "show_invoice",
    "refund_order",
    "show_invoice_async",
    "refund_order_async",
    "showInvoice",
    "refundOrder",
];

/// A service in one language, and how it is started.
struct Subject {
    language: &'static str,
    build: &'static str,
    program: &'static str,
    /// What tells the version.
    version: &'static [&'static str],
    options: Vec<String>,
    source: &'static str,
    driver: Option<&'static str>,
    /// Told before tracing, so that the compiler has taken on everything.
    warm_up: Option<&'static str>,
    /// Whether the JVM is asked for its perf map.
    ask_for_map: bool,
}

const SUBJECT: Subject = Subject {
    language: "",
    build: "",
    program: "",
    version: &["--version"],
    options: Vec::new(),
    source: "",
    driver: None,
    warm_up: None,
    ask_for_map: false,
};

fn subjects() -> Vec<Subject> {
    let python = |driver, build| Subject {
        language: "Python",
        build,
        program: "/usr/bin/python3",
        source: "shop_drivers.py",
        driver: Some(driver),
        ..SUBJECT
    };
    let node = |build, options: &[&str]| Subject {
        language: "JavaScript",
        build,
        program: "node",
        options: options.iter().map(|&option| option.to_owned()).collect(),
        source: "shop.js",
        ..SUBJECT
    };
    let java = |build, ask_for_map| {
        let jars = ["HikariCP", "postgresql", "slf4j-api", "slf4j-nop"];
        let jars = jars.map(|jar| format!("/usr/share/java/{jar}.jar"));
        let mut options = vec!["-cp".to_owned(), jars.join(":")];
        if ask_for_map {
            options.push("-XX:+PreserveFramePointer".to_owned());
        }
        Subject {
            language: "Java",
            build,
            program: "java",
            version: &["--version"],
            options,
            source: "Shop.java",
            warm_up: ask_for_map.then_some("warm 6000"),
            ask_for_map,
            ..SUBJECT
        }
    };
    vec![
        python("psycopg2", "psycopg2"),
        python("psycopg", "psycopg 3"),
        python("asyncpg", "asyncpg"),
        python("gevent", "psycopg2 on gevent"),
        node("node-postgres", &[]),
        node(
            "node-postgres, perf map",
            &["--perf-basic-prof", "--interpreted-frames-native-stack"],
        ),
        java("HikariCP", false),
        java("HikariCP, frame pointers, perf map", true),
        Subject { language: "Ruby", build: "pg", program: "ruby", source: "shop.rb", ..SUBJECT },
        Subject {
            language: "PHP",
            build: "PDO",
            program: "php",
            source: "shop.php",
            driver: Some("pdo"),
            ..SUBJECT
        },
    ]
}

/// Measures all of them.
pub(super) fn rows(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let measured = |subject: Subject| {
        let what = format!("{}, {}", subject.language, subject.build);
        subject.measure(bench).with_context(|| what)
    };
    subjects().into_iter().map(measured).collect()
}

/// A running service.
struct Service {
    process: Guarded,
    /// Where it may leave logs behind, as V8 does with a perf map.
    directory: TempDir,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Service {
    /// Tells it something; returns its answer.
    fn ok(&mut self, command: &str) -> Result<String> {
        let stdin = self.process.child().stdin.as_mut().context("It has no input.")?;
        writeln!(stdin, "{command}")?;
        stdin.flush()?;
        let answer = self.answers.next().context("It has ended.")??;
        ensure!(answer.starts_with("ok"), "\"{command}\": {answer}");
        Ok(answer)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Absent when it wrote none.
        let _ = fs::remove_file(format!("/tmp/perf-{}.map", self.process.pid()));
    }
}

impl Subject {
    fn start(&self, bench: &Bench<'_>) -> Result<Service> {
        let port = bench.postgres.port().to_string();
        let directory = tempfile::tempdir()?;
        let mut command = Command::new(self.program);
        command
            .args(&self.options)
            .arg(bench.workspace.join("tests/apps/runtimes").join(self.source))
            .args(self.driver)
            .args(["127.0.0.1", &port, "postgres"])
            .env("NODE_PATH", node_path(bench.workspace))
            .current_dir(directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = Guarded::spawn(&mut command, Signal::TERM)?;
        let stdout = process.child().stdout.take().context("It has no output.")?;
        Ok(Service { process, directory, answers: BufReader::new(stdout).lines() })
    }

    fn measure(&self, bench: &Bench<'_>) -> Result<Row> {
        let mut service = self.start(bench)?;
        service.ok(self.warm_up.unwrap_or("serve 5"))?;
        let pid = service.process.pid();
        if self.ask_for_map {
            output(Command::new("jcmd").args([&pid.to_string(), "Compiler.perfmap"]))?;
        }
        let mut tracer = Guarded::spawn(
            privileged(bench.binary)
                .args([
                    "--quiet",
                    "--output",
                    "json",
                    "--silent-after",
                    "1s",
                    "--interval",
                    "500ms",
                ])
                .args(["--port", &bench.postgres.port().to_string(), "--pid", &pid.to_string()])
                .stdin(Stdio::null())
                .stdout(Stdio::piped()),
            Signal::INT,
        )?;
        pause(ATTACH)?;
        tracer.ensure_running()?;
        let added_ns = added(&mut service, tracer.pid())?;
        for _ in 0..LEAKS {
            service.ok("return")?;
        }
        let mut answer = String::new();
        let directory = service.directory.path().to_owned();
        let native = witness::frames(&directory, pid, || {
            answer = service.ok("transaction")?;
            Ok(())
        })?;
        pause(SILENCE)?;
        tracer.dismiss();
        let stdout = tracer.child().stdout.take().context("The tracer has no output.")?;
        let report: Value = serde_json::from_reader(stdout)?;
        tracer.wait(REPORT_LIMIT)?;
        let (frames, witness) = match answer.split_once("stack=") {
            Some((_, told)) if self.language == "Ruby" => {
                let told: Vec<_> = told.trim_end().split('|').map(as_ruby_tells).collect();
                let traced: Vec<_> = ruby(&report).iter().map(|call| as_ruby_tells(call)).collect();
                (compare(&told, &traced), "Ruby")
            }
            Some((_, told)) => {
                // PHP's own functions have no line.
                let told: Vec<_> = told.split('|').filter(|call| !call.ends_with(":0")).collect();
                (compare(&told, &interpreted(&report)), self.language)
            }
            None => {
                (compare(&native_names(&native), &traced_names(&report)), "gdb, of native frames")
            }
        };
        let version = output(Command::new(self.program).args(self.version))?;
        Ok(Row {
            language: self.language.to_owned(),
            version: version_in(&version),
            build: self.build.to_owned(),
            frames,
            opened_by: named(&report, "opened_by"),
            last_used_by: named(&report, "last_used_by"),
            added_ns,
            witness,
        })
    }
}

/// What the kernel programs add to one request and its answer.
fn added(service: &mut Service, tracer: u32) -> Result<f64> {
    let statistics = Statistics::on()?;
    let before = statistics.of(&[tracer])?;
    service.ok(&format!("serve {ROUNDS}"))?;
    let costs = statistics.of(&[tracer])?.since(&before);
    let total: f64 = costs.iter().map(|cost| cost.nanoseconds * cost.runs as f64).sum();
    let sends = costs.iter().filter(|cost| cost.name.contains("send")).map(|cost| cost.runs).max();
    Ok(total / sends.context("No request was seen.")? as f64)
}

/// The stack of the connection that was left in a transaction.
fn compared(report: &Value) -> Option<&Vec<Value>> {
    let connections = report["connections"].as_array()?;
    let left = connections.iter().find(|c| c["wire"]["state"] == "in_transaction")?;
    report["stacks"][left["last_used_by"].as_str()?]["frames"].as_array()
}

/// The interpreter's calls of that stack, as Python and PHP would tell them.
fn interpreted(report: &Value) -> Vec<String> {
    let frames = compared(report).into_iter().flatten();
    frames
        .filter(|frame| !frame["module"].is_null() && frame["module"] == frame["file"])
        .filter_map(|frame| {
            let function = frame["function"].as_str()?.rsplit('.').next()?;
            Some(format!("{function}:{}", frame["line"]))
        })
        .collect()
}

/// The Ruby calls of that stack.
fn ruby(report: &Value) -> Vec<String> {
    let frames = compared(report).into_iter().flatten();
    let calls =
        frames.filter(|frame| !frame["module"].is_null() && frame["module"] == frame["file"]);
    calls
        .filter_map(|frame| Some(format!("{}:{}", frame["function"].as_str()?, frame["line"])))
        .collect()
}

/// A Ruby call as every release tells it: without its class, and a `rescue` by what it is in.
fn as_ruby_tells(call: &str) -> String {
    let call = call.replace(' ', "_").replace("rescue_in_", "").replace("ensure_in_", "");
    let (start, method) = call.rsplit_once("_in_").unwrap_or_default();
    let method = if start.is_empty() { &call } else { method };
    format!("{start}:{}", method.rsplit(['#', '.']).next().unwrap_or(method))
}

/// The native functions of that stack.
fn traced_names(report: &Value) -> Vec<String> {
    let frames = compared(report).into_iter().flatten();
    let native = frames.filter(|frame| !frame["module"].is_null());
    native.filter_map(|frame| frame["function"].as_str()).map(plain).collect()
}

/// The functions that gdb has a name for.
fn native_names(frames: &[String]) -> Vec<String> {
    frames.iter().filter(|name| *name != "?").map(|name| plain(name)).collect()
}

/// A function's name without its arguments: only one of two debuggers may tell them.
fn plain(name: &str) -> String {
    let name = name.replace("(anonymous namespace)", "{anonymous}");
    name.split(['(', '<']).next().unwrap_or_default().trim().to_owned()
}

/// How many of the `told` frames were traced, in their order.
fn compare<T: AsRef<str>>(told: &[T], traced: &[String]) -> Share {
    // The longest common subsequence, row by row.
    let mut best = vec![0u32; traced.len() + 1];
    for frame in told {
        let mut diagonal = 0;
        for (index, other) in traced.iter().enumerate() {
            let above = best[index + 1];
            best[index + 1] =
                if frame.as_ref() == other { diagonal + 1 } else { above.max(best[index]) };
            diagonal = above;
        }
    }
    let of = u32::try_from(told.len()).unwrap_or(u32::MAX);
    Share { right: best.last().copied().unwrap_or(0), of }
}

/// How many of the leaked connections' stacks in this role show a function that leaks.
fn named(report: &Value, role: &str) -> Share {
    let connections = report["connections"].as_array().into_iter().flatten();
    let seen = connections.filter(|connection| connection["opened_before_trace"] == false);
    let is_leaking = |frame: &Value| {
        let function = frame["function"].as_str().unwrap_or_default();
        LEAKING.contains(&function.rsplit(['.', '#', ' ']).next().unwrap_or_default())
    };
    let mut share = Share::default();
    for connection in seen {
        let stack = connection[role].as_str().map(|id| &report["stacks"][id]["frames"]);
        let frames = stack.and_then(Value::as_array);
        share.of += 1;
        share.right += u32::from(frames.is_some_and(|frames| frames.iter().any(is_leaking)));
    }
    share
}

/// The first word of a text that looks like a version.
fn version_in(text: &str) -> String {
    let is_version =
        |word: &&str| word.contains('.') && word.starts_with(|c: char| c.is_ascii_digit());
    let mut words = text.split_whitespace().map(|word| word.trim_start_matches('v'));
    words.find(is_version).unwrap_or("?").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_compared_in_order() {
        let traced = ["send", "x", "PQexec", "main"].map(str::to_owned);
        assert_eq!(compare(&["send", "PQexec", "main"], &traced), Share { right: 3, of: 3 });
        assert_eq!(compare(&["main", "send"], &traced), Share { right: 1, of: 2 });
        assert_eq!(compare::<&str>(&[], &traced), Share { right: 0, of: 0 });
        assert_eq!(compare(&["send"], &[]), Share { right: 0, of: 1 });
    }

    #[test]
    fn names_are_compared_without_arguments() {
        let frames = ["send", "?", "PQexec(conn*)"].map(str::to_owned);
        assert_eq!(native_names(&frames), ["send", "PQexec"]);
        assert_eq!(plain("node::(anonymous namespace)::F<int>(int*)"), "node::{anonymous}::F");
    }

    #[test]
    fn versions_as_runtimes_tell_them() {
        assert_eq!(version_in("Python 3.11.2"), "3.11.2");
        assert_eq!(version_in("v20.1.0"), "20.1.0");
        assert_eq!(version_in("openjdk 17.0.15 2025-04-15"), "17.0.15");
        assert_eq!(version_in("none"), "?");
    }
}
