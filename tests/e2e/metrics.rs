//! Metrics, alerts and dashboards with a real Prometheus, and the flame graph of open connections.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use harness::prometheus::{Prometheus, deployed};
use harness::server::free_port;
use harness::suite::finish;
use harness::{
    Build, Finding, Need, Shop, Suite, Test, Trace, TraceBuilder, bpf, eventually, http, test,
};
use serde_json::Value;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("figures_of_a_leak", figures_of_a_leak).needs(Need::Libpq).needs(Need::Prometheus),
        test("the_alert_fires_and_every_panel_shows", alert_and_panels)
            .needs(Need::Libpq)
            .needs(Need::Prometheus),
        test("rules", rules).needs(Need::Prometheus),
        test("health", health),
        test("an_address_in_use", address_in_use),
        test("wrong_labels_are_bad_usage", wrong_labels),
        test("flamegraph_names_the_leak", flamegraph_names_the_leak).needs(Need::Libpq),
        test("flamegraph_that_cannot_be_written", flamegraph_that_cannot_be_written),
    ]
}

/// A trace that serves metrics, and its address.
fn serving(trace: TraceBuilder) -> Result<(Trace, SocketAddr)> {
    let port = free_port()?;
    let trace = trace.option("--metrics-addr", &port.to_string()).start()?;
    Ok((trace, (Ipv4Addr::LOCALHOST, port).into()))
}

/// The value of the series whose line begins with `series`.
fn value(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with(series))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// Waits until `wanted` accepts the metrics, and returns them.
fn metrics_when(address: SocketAddr, wanted: impl Fn(&str) -> bool) -> Result<String> {
    let mut last = String::new();
    eventually("metrics match", || {
        last = http::get(address, "/metrics", &[])?.body;
        Ok(wanted(&last))
    })
    .with_context(|| last.clone())?;
    Ok(last)
}

/// A traced shop that has served requests and has left a transaction open.
fn leaking(
    suite: &Suite,
    more: fn(TraceBuilder) -> TraceBuilder,
) -> Result<(Shop, Trace, SocketAddr)> {
    let mut shop = suite.shop(Build::Debug)?;
    let (trace, address) = serving(more(suite.trace().pid(shop.pid())))?;
    shop.ok("serve 3")?;
    shop.ok("transaction")?;
    trace.finding(|finding| finding.reason == "idle_in_transaction")?;
    Ok((shop, trace, address))
}

fn figures_of_a_leak(suite: &Suite) -> Result<()> {
    let labels = |trace: TraceBuilder| trace.option("--label", "service=orders,env=test");
    let (shop, trace, address) = leaking(suite, labels)?;
    let group = format!("comm=\"shop\",destination=\"127.0.0.1:{}\"", suite.port());
    let common = "service=\"orders\",env=\"test\"";
    let leak = format!(
        "pgsocktrace_suspected_leaked_connections{{{group},reason=\"idle_in_transaction\",severity=\"leak\",{common}}}"
    );
    let text = metrics_when(address, |text| value(text, &leak) == Some(1.0))?;
    let open = |state| {
        value(&text, &format!("pgsocktrace_open_connections{{{group},state=\"{state}\",{common}}}"))
    };
    assert_eq!(open("in_transaction"), Some(1.0), "{text}");
    let opened = value(&text, &format!("pgsocktrace_connections_opened_total{{{group},{common}}}"));
    let closed = value(&text, &format!("pgsocktrace_connections_closed_total{{{group},{common}}}"));
    let all: f64 = ["in_transaction", "idle", "busy"].into_iter().filter_map(open).sum();
    assert_eq!(opened.context("opened")? - closed.context("closed")?, all, "{text}");
    assert!(value(&text, "pgsocktrace_findings_total{reason=\"idle_in_transaction\"") >= Some(1.0));
    assert!(value(&text, "pgsocktrace_events_total{kind=\"opened\"") >= opened, "{text}");
    assert!(value(&text, "process_resident_memory_bytes") > Some(1e6), "{text}");
    for pid in [shop.pid(), trace.pid()] {
        assert!(!text.contains(&format!("\"{pid}\"")), "{pid} is a label's value in\n{text}");
    }
    check_metrics(&text)?;

    let accept = "Accept: application/openmetrics-text;version=1.0.0";
    let openmetrics = http::get(address, "/metrics", &[accept])?;
    assert!(openmetrics.head.contains("application/openmetrics-text"), "{}", openmetrics.head);
    assert!(openmetrics.body.ends_with("# EOF\n"));
    let picture = http::get(address, "/flamegraph.svg", &[])?;
    assert_eq!(picture.status, 200);
    assert!(picture.body.contains("refund_order"), "{}", picture.body);
    trace.stop()?;
    Ok(())
}

/// Checks metrics in the text format with promtool.
fn check_metrics(text: &str) -> Result<()> {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    promtool.stdin.take().context("no stdin")?.write_all(text.as_bytes())?;
    let output = promtool.wait_with_output()?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(output.status.success() && said.is_empty(), "promtool: {said}");
    Ok(())
}

fn rules(_: &Suite) -> Result<()> {
    for (what, file) in [("check", "prometheus/rules.yaml"), ("test", "prometheus/rules_test.yaml")]
    {
        let output = finish(Command::new("promtool").args([what, "rules"]).arg(deployed(file)))?;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        ensure!(output.status.success() && said.contains("SUCCESS"), "{said}");
    }
    Ok(())
}

/// Prometheus scrapes the trace of a leak. No alert fires before the leak, the right alert fires
/// after it, and each query of the dashboard returns data.
fn alert_and_panels(suite: &Suite) -> Result<()> {
    let _counting = bpf::count_runs()?;
    let mut shop = suite.shop(Build::Debug)?;
    let trace = suite.trace().pid(shop.pid()).option("--limit", "100");
    let (trace, address) = serving(trace.option("--label", "service=orders"))?;
    let prometheus = Prometheus::start(&suite.directory()?, address)?;
    shop.ok("serve 3")?;
    eventually("Prometheus has evaluated what it scraped", || {
        let open = prometheus.query("group:pgsocktrace_open_connections:sum > 0")?;
        let alive = prometheus.query("up == 1")?;
        Ok(!open.is_empty() && !alive.is_empty())
    })?;
    // Before the first scrape, the alert about an absent tracer may fire.
    eventually("nothing fires", || Ok(prometheus.firing()?.is_empty()))
        .with_context(|| format!("{:?}", prometheus.firing()))?;

    shop.ok("transaction")?;
    trace.finding(Finding::is_leak)?;
    let is_it = |labels: &Value| {
        labels["alertname"] == "PgsocktraceIdleInTransaction"
            && labels["comm"] == "shop"
            && labels["service"] == "orders"
            && labels["destination"] == format!("127.0.0.1:{}", suite.port())
    };
    eventually("the alert fires", || Ok(prometheus.firing()?.iter().any(is_it)))?;
    check_dashboard(&prometheus)?;

    // The finding is retracted once the connection is used again.
    shop.ok("remember")?;
    eventually("the alert is resolved", || Ok(!prometheus.firing()?.iter().any(is_it)))?;
    trace.stop()?;
    Ok(())
}

/// Runs the dashboard's queries as Grafana does, with all variables set to "All".
fn check_dashboard(prometheus: &Prometheus) -> Result<()> {
    let text = fs::read_to_string(deployed("grafana/pgsocktrace.json"))?;
    let dashboard: Value = serde_json::from_str(&text)?;
    let variables = dashboard["templating"]["list"].as_array().context("no variables")?;
    let mut names: Vec<_> = variables.iter().filter_map(|one| one["name"].as_str()).collect();
    assert_eq!(names, ["datasource", "namespace", "pod", "service", "comm"]);
    names.sort_unstable_by_key(|name| std::cmp::Reverse(name.len()));
    let substituted = |expression: &str| {
        let rated = expression.replace("$__rate_interval", "30s");
        names.iter().fold(rated, |query, name| query.replace(&format!("${name}"), ".*"))
    };
    for variable in variables {
        let Some(definition) = variable["definition"].as_str() else { continue };
        let inner =
            definition.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
        let (metric, label) =
            inner.and_then(|inner| inner.rsplit_once(", ")).context("odd variable")?;
        prometheus.query(&format!("group by ({label}) ({})", substituted(metric)))?;
    }
    let panels = dashboard["panels"].as_array().context("no panels")?;
    let mut queries = 0;
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let title = panel["title"].as_str().context("a panel without a title")?;
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        for target in panel["targets"].as_array().context("a panel without queries")? {
            let expression = target["expr"].as_str().context("a query without an expression")?;
            let query = substituted(expression);
            ensure!(!query.contains('$'), "{title}: {query}");
            // This trace has no server join, so these panels are empty.
            let may_be_empty = query.contains("pgsocktrace_server_");
            eventually(&format!("{title} shows something"), || {
                let shows = !prometheus.query(&query)?.is_empty();
                Ok(shows || may_be_empty)
            })
            .with_context(|| query.clone())?;
            queries += 1;
        }
    }
    ensure!(queries >= 20, "only {queries} queries");
    Ok(())
}

fn health(suite: &Suite) -> Result<()> {
    let client = suite.client()?;
    let (trace, address) = serving(suite.trace().pid(client.pid()))?;
    let status = |path: &str| Ok::<_, anyhow::Error>(http::get(address, path, &[])?.status);
    assert_eq!(status("/healthz")?, 200);
    eventually("/readyz answers 200", || Ok(status("/readyz")? == 200))?;
    assert_eq!(status("/metrics")?, 200);
    assert_eq!(status("/elsewhere")?, 404);
    trace.stop()?;
    if http::get(address, "/healthz", &[]).is_ok() {
        bail!("metrics are still served after the end");
    }
    Ok(())
}

fn address_in_use(suite: &Suite) -> Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let output = suite.tool_says(&["--metrics-addr", &address])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&address) && said.contains("in use"), "{said}");
    assert!(!said.contains("tracing"), "it had begun: {said}");
    Ok(())
}

fn wrong_labels(suite: &Suite) -> Result<()> {
    for label in ["service", "1a=b", "a-b=c", "__a=b", "comm=x", "a=b,a=c"] {
        let output = suite.tool_says(&["--label", label])?;
        assert_eq!(output.status.code(), Some(2), "{label}");
    }
    let output = finish(suite.tool().env("PGSOCKTRACE_METRICS_ADDR", "nowhere"))?;
    assert_eq!(output.status.code(), Some(2));
    Ok(())
}

fn flamegraph_names_the_leak(suite: &Suite) -> Result<()> {
    let directory = suite.directory()?;
    let path = |name: &str| directory.join(name).display().to_string();
    let mut shop = suite.shop(Build::Debug)?;
    let trace = suite.trace().pid(shop.pid()).option("--record", &path("run"));
    let trace = trace.option("--flamegraph", &path("live.svg")).start()?;
    shop.ok("transaction")?;
    trace.finding(Finding::is_leak)?;
    let open = trace.stop()?.connections.len();
    let live = fs::read_to_string(path("live.svg"))?;
    let total = format!("<title>all ({open} connections, 100%)</title>");
    assert!(live.contains(&total), "{total} in {live}");
    assert!(live.contains("refund_order"), "{live}");

    let replay = |options: &[&str]| {
        let mut arguments = vec!["replay", "-o", "json"];
        arguments.extend_from_slice(options);
        let run = path("run");
        arguments.push(&run);
        let output = suite.tool_says(&arguments)?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    replay(&["--flamegraph", &path("again.svg")])?;
    assert!(live == fs::read_to_string(path("again.svg"))?, "the replay's picture is another");
    replay(&["--flamegraph", &path("opened.svg"), "--flamegraph-by", "opened-by"])?;
    assert!(fs::read_to_string(path("opened.svg"))?.contains("that opened them"));
    let mut names: Vec<_> =
        fs::read_dir(&directory)?.map(|entry| Ok(entry?.file_name())).collect::<Result<_>>()?;
    names.sort_unstable();
    assert_eq!(names, ["again.svg", "live.svg", "opened.svg", "run"], "no draft stays");
    Ok(())
}

fn flamegraph_that_cannot_be_written(suite: &Suite) -> Result<()> {
    for path in ["/nowhere/at/all.svg", "/dev/null", "/tmp"] {
        let output = suite.tool_says(&["--flamegraph", path])?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(path) && !said.contains("tracing"), "{said}");
    }
    Ok(())
}
