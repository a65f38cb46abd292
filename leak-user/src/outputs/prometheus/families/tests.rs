use prometheus::{Encoder as _, Registry, TextEncoder};

use crate::model::{EventKind, Health, ProgramHealth};
use crate::outputs::prometheus::accounts::Accounts;
use crate::outputs::prometheus::families::*;
use crate::outputs::prometheus::openmetrics;
use crate::outputs::testing::Run;

/// The collected families of a simulated run.
fn gathered(labels: &[&str], live: impl FnOnce(&mut Health)) -> Vec<MetricFamily> {
    let mut run = Run::new();
    run.turn(200.0);
    live(&mut run.health);
    let snapshot = run.snapshot(200.0);
    let mut accounts = Accounts::default();
    accounts.observe(&snapshot);
    let figures = Figures::new(&snapshot, accounts.balance());
    let labels: Vec<Label> = labels.iter().map(|label| label.parse().unwrap()).collect();
    let registry = Registry::new();
    let families = Families { figures: Arc::new(figures), labels: labels.into() };
    registry.register(Box::new(families)).unwrap();
    registry.gather()
}

fn text(families: &[MetricFamily]) -> String {
    let mut text = Vec::new();
    TextEncoder::new().encode(families, &mut text).unwrap();
    String::from_utf8(text).unwrap()
}

const GROUP: &str = "comm=\"shop\u{fffd}[2J\",destination=\"127.0.0.1:5432\",namespace=\"shop\",\
                     pod=\"orders-7d9f\",container=\"app\",label_app=\"orders\"";

#[track_caller]
fn says(text: &str, line: &str) {
    assert!(text.lines().any(|one| one == line), "no {line} in\n{text}");
}

#[test]
fn the_text_says_what_the_table_says() {
    let text = text(&gathered(&["env=te\"st", "service=shop"], |health| {
        health.kinds = vec![
            EventKind { name: "opened", sent: 13, lost: 0 },
            EventKind { name: "closed", sent: 0, lost: 3 },
        ];
        health.undecodable = 2;
        health.table_full = 5;
        health.copies.recorded = 21;
        health.unseen_calls = 4;
        health.programs = vec![ProgramHealth {
            program: "connect_tp_btf".into(),
            counted: Some((Duration::from_millis(1500), 7)),
            skipped: Some(6),
        }];
    }));
    let common = "env=\"te\\\"st\",service=\"shop\"";
    for line in [
        format!("pgsocktrace_open_connections{{{GROUP},state=\"idle\",{common}}} 13"),
        format!("pgsocktrace_connections_opened_total{{{GROUP},{common}}} 13"),
        format!("pgsocktrace_connections_closed_total{{{GROUP},{common}}} 0"),
        format!("pgsocktrace_connect_failures_total{{{GROUP},{common}}} 0"),
        format!("pgsocktrace_silent_connections{{{GROUP},{common}}} 13"),
        format!("pgsocktrace_oldest_silence_seconds{{{GROUP},{common}}} 189.899"),
        format!("pgsocktrace_connection_idle_seconds_bucket{{{GROUP},{common},le=\"60\"}} 0"),
        format!("pgsocktrace_connection_idle_seconds_bucket{{{GROUP},{common},le=\"+Inf\"}} 13"),
        format!("pgsocktrace_connection_idle_seconds_count{{{GROUP},{common}}} 13"),
        format!("pgsocktrace_findings_total{{reason=\"close_wait\",{common}}} 0"),
        format!("pgsocktrace_findings_retracted_total{{reason=\"abandoned\",{common}}} 0"),
        format!("pgsocktrace_events_total{{kind=\"opened\",{common}}} 13"),
        format!("pgsocktrace_events_lost_total{{kind=\"closed\",{common}}} 3"),
        format!("pgsocktrace_events_lost_total{{kind=\"undecodable\",{common}}} 2"),
        format!("pgsocktrace_events_lost_total{{kind=\"unseen_call\",{common}}} 4"),
        format!("pgsocktrace_bpf_skipped_runs_total{{program=\"connect_tp_btf\",{common}}} 6"),
        format!("pgsocktrace_map_full_total{{kind=\"connections\",{common}}} 5"),
        format!("pgsocktrace_reconciled_total{{kind=\"added\",{common}}} 0"),
        format!("pgsocktrace_stacks_total{{quality=\"complete\",{common}}} 20"),
        format!(
            "pgsocktrace_bpf_run_time_seconds_total{{program=\"connect_tp_btf\",{common}}} 1.5"
        ),
        format!("pgsocktrace_bpf_run_count_total{{program=\"connect_tp_btf\",{common}}} 7"),
        format!("pgsocktrace_stack_copies_total{{result=\"recorded\",{common}}} 21"),
        format!("pgsocktrace_bpf_cores{{{common}}} 0.0005"),
        format!("pgsocktrace_interval_seconds{{{common}}} 10"),
        format!("pgsocktrace_last_evaluation_timestamp_seconds{{{common}}} 200"),
        format!("pgsocktrace_build_info{{version=\"0.1.0\",revision=\"{REVISION}\",{common}}} 1"),
    ] {
        says(&text, &line);
    }
    let leaked = "pgsocktrace_suspected_leaked_connections{";
    assert!(
        text.lines().any(|line| line.starts_with(leaked) && line.contains("severity=\"leak\""))
    );
}

#[test]
fn no_label_tells_one_process_connection_or_stack_from_another() {
    let text = text(&gathered(&[], |_| ()));
    // The process's PID, the client's ports, and code on the stacks.
    for told in ["4242", "4000", "4001", "report.go", "app::report"] {
        assert!(!text.contains(told), "{told} in\n{text}");
    }
}

#[test]
fn what_is_not_known_is_not_told() {
    let text = text(&gathered(&[], |_| ()));
    for absent in ["bpf_run", "server_", "connection_limit"] {
        assert!(!text.contains(absent), "{absent} in\n{text}");
    }
}

#[test]
fn openmetrics_names_families_without_total_and_ends() {
    let text = openmetrics::encode(&gathered(&["env=a\\b\nc"], |_| ()));
    let common = "env=\"a\\\\b\\nc\"";
    says(&text, "# TYPE pgsocktrace_connections_opened counter");
    says(&text, &format!("pgsocktrace_connections_opened_total{{{GROUP},{common}}} 13"));
    says(&text, "# TYPE pgsocktrace_connection_idle_seconds histogram");
    let bucket = "pgsocktrace_connection_idle_seconds_bucket";
    says(&text, &format!("{bucket}{{{GROUP},{common},le=\"60.0\"}} 0"));
    says(&text, &format!("{bucket}{{{GROUP},{common},le=\"+Inf\"}} 13"));
    says(&text, &format!("pgsocktrace_interval_seconds{{{common}}} 10"));
    assert!(text.ends_with("\n# EOF\n"));
}

/// A scraper with `honor_labels` replaces missing labels by its own, but not empty ones.
#[test]
fn with_kubernetes_a_process_outside_of_pods_has_empty_labels() {
    let set = LabelSet { comm: "psql".into(), destination: "10.0.0.1:5432".into(), pod: None };
    let own = [("comm", "psql"), ("destination", "10.0.0.1:5432")];
    let empty = [("namespace", ""), ("pod", ""), ("container", "")];
    assert_eq!(GroupLabels::new(&set, false).with([]), own);
    assert_eq!(GroupLabels::new(&set, true).with([]), [&own[..], &empty].concat());
}

#[test]
fn labels_of_a_pod_that_become_the_same_are_told_once() {
    let labels = ["a.b", "a/b", "a-b"].map(|name| (name.to_owned(), "x".to_owned()));
    let pod = crate::model::Pod {
        namespace: "n".into(),
        name: "p".into(),
        container: "c".into(),
        labels: labels.into(),
    };
    let set = LabelSet { comm: "c".into(), destination: "d".into(), pod: Some(pod) };
    let labels = GroupLabels::new(&set, true);
    let named = labels.with([]).into_iter().filter(|(name, _)| *name == "label_a_b").count();
    assert_eq!(named, 1);
}
