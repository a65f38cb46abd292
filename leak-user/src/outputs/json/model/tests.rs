use serde_json::Value;

use crate::outputs::json;
use crate::outputs::testing::Run;

fn report() -> Value {
    let mut run = Run::new();
    run.turn(200.0);
    let mut out = Vec::new();
    json::write(&mut out, &run.snapshot(200.0)).unwrap();
    serde_json::from_slice(&out).unwrap()
}

/// The keys of the object at `pointer`, sorted as the JSON reader keeps them.
fn keys(report: &Value, pointer: &str) -> Vec<String> {
    let value = report.pointer(pointer).unwrap_or_else(|| panic!("{pointer} is missing"));
    value.as_object().unwrap().keys().cloned().collect()
}

fn sorted(keys: &str) -> Vec<String> {
    let mut keys: Vec<_> = keys.split_whitespace().map(str::to_owned).collect();
    keys.sort();
    keys
}

#[test]
fn has_the_keys_of_its_schema_and_no_others() {
    let report = report();
    let schema = [
        (
            "",
            "schema version host kernel hooks started_at ended_at ports events stack_quality \
             stack_copies skipped_runs cost processes connections stacks findings servers",
        ),
        ("/events", "received lost reconciled"),
        ("/stack_quality", "complete truncated none reasons"),
        ("/stack_copies", "recorded over_budget no_slot unreadable"),
        ("/cost", "kernel_cores collector_cores"),
        (
            "/processes/0",
            "pid container_pid started_at comm exe container_id pod_uid pod open opened_total \
             closed_total peak_open refused",
        ),
        ("/processes/0/pod", "namespace name container labels"),
        (
            "/connections/0",
            "id pid tid goroutine held_by local remote destination tcp_state wire opened_at \
             opened_before_trace silent_ms bytes_sent bytes_received unread_bytes \
             opened_since_silent opened_by last_used_by last_used_goroutine server",
        ),
        ("/connections/0/wire", "state tls listens user database application_name backend_pid"),
        ("/stacks/6c65616b00000000", "quality quality_reason language frames"),
        ("/stacks/6c65616b00000000/frames/0", "function module file line address"),
        (
            "/findings/0",
            "id reason severity since process remote connections count evidence stack_of stack \
             culprit next_step retracted_at",
        ),
        ("/findings/0/process", "pid comm"),
        ("/findings/0/culprit", "function file line"),
    ];
    for (pointer, wanted) in schema {
        assert_eq!(keys(&report, pointer), sorted(wanted), "at {pointer:?}");
    }
}

#[test]
fn says_what_it_knows_and_null_otherwise() {
    let report = report();
    assert_eq!(report["schema"], "pgsocktrace.report/1");
    assert_eq!(report["ended_at"], "1970-01-01T00:03:20.000Z");
    let process = &report["processes"][0];
    assert_eq!((&process["open"], &process["opened_total"]), (&13.into(), &13.into()));
    assert_eq!(process["container_id"], "3f4f6c1c0a3f".repeat(5));
    assert_eq!(process["container_pid"], 7);
    assert_eq!(process["pod"]["namespace"], "shop");
    assert_eq!(process["pod"]["labels"]["app"], "orders");
    let connection = &report["connections"][1];
    assert_eq!(connection["id"], 1);
    assert_eq!(connection["local"], "127.0.0.1:40001");
    assert_eq!(connection["tcp_state"], "ESTABLISHED");
    assert_eq!(connection["wire"]["state"], "idle");
    assert_eq!(connection["silent_ms"], 189_899);
    assert_eq!(connection["opened_since_silent"], 11);
    assert_eq!(connection["opened_by"], Value::Null);
    assert_eq!(connection["last_used_by"], "6c65616b00000000");
    assert_eq!(connection["unread_bytes"], Value::Null);
    assert_eq!(report["connections"][0]["last_used_by"], Value::Null, "its stack is not at hand");
    let finding = &report["findings"][0];
    assert_eq!(finding["reason"], "abandoned");
    assert_eq!(finding["severity"], "leak");
    assert_eq!(finding["count"], 11);
    assert_eq!(finding["stack_of"], "last_used_by");
    assert_eq!(finding["culprit"]["function"], "app::report");
    assert_eq!(finding["culprit"]["line"], 41);
    let step = finding["next_step"].as_str().unwrap();
    assert!(step.contains("given back in app::report (report.go:41)"), "{step}");
    assert_eq!(finding["retracted_at"], Value::Null);
}
