use serde_json::Value;

use crate::engine::testing::{APP, endpoints, secs, server_lists, session};
use crate::model::server::SessionState;
use crate::model::{ConnectionId, Destination, DestinationKind, Event, Use};
use crate::outputs::json;
use crate::outputs::json::schema::tests::{assert_is_listing, assert_is_report};
use crate::outputs::testing::Run;

fn report() -> Value {
    let mut run = Run::new();
    run.turn(200.0);
    written(&run)
}

fn written(run: &Run) -> Value {
    let mut out = Vec::new();
    json::write(&mut out, &run.snapshot(200.0)).unwrap();
    serde_json::from_slice(&out).unwrap()
}

#[test]
fn follows_its_schema() {
    assert_is_report(&report());
}

#[test]
fn follows_its_schema_with_all_that_can_be_known() {
    let mut run = Run::new();
    run.turn(200.0);
    let destination =
        Destination { kind: DestinationKind::Service, namespace: "db".into(), name: "main".into() };
    run.destinations.insert(endpoints(1).remote.ip(), destination);
    let one = Use {
        request: 1,
        acquired_at: secs(10.0),
        released_at: Some(secs(10.5)),
        pid: APP.pid,
        tid: APP.pid,
        goroutine: Some(1),
        stack: Some("leak".into()),
    };
    run.world.apply(&Event::Uses { id: ConnectionId(1), uses: vec![one] }, secs(200.0));
    let sessions = [SessionState::Idle, SessionState::IdleInTransaction].into_iter().zip(1..);
    // Connections 1 and 2 were opened at seconds 10 and 20.
    let sessions = sessions.map(|(state, id)| session(id, 200.0 - 10.0 * id as f64, state));
    run.world.hear(200.0, server_lists(sessions.collect()));

    let report = written(&run);
    assert_is_report(&report);
    let connection = &report["connections"][1];
    assert_eq!(connection["uses"][0]["released_at"], "1970-01-01T00:00:10.500Z");
    assert_eq!(connection["destination"]["kind"], "service");
    assert_eq!(connection["server"]["state"], "idle");
    assert_eq!(report["servers"][0]["applications"][0]["states"]["idle in transaction"], 1);
    assert_eq!(report["servers"][0]["status"], "answering");
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
    assert_eq!(finding["evidence_numbers"]["threshold_ms"], 60_000);
    assert_eq!(finding["evidence_numbers"]["silent_max_ms"], 189_899);
    let step = finding["next_step"].as_str().unwrap();
    assert!(step.contains("back in app::report (report.go:41)"), "{step}");
    assert_eq!(finding["retracted_at"], Value::Null);
}

#[test]
fn a_listing_has_the_connections_and_their_processes() {
    let run = Run::new();
    let mut out = Vec::new();
    json::write_listing(&mut out, &run.snapshot(200.0), false).unwrap();
    let listing: Value = serde_json::from_slice(&out).unwrap();
    assert_is_listing(&listing);
    assert_eq!(listing["complete"], false);
    let connections = listing["connections"].as_array().unwrap();
    assert_eq!(connections.len(), 13);
    assert_eq!(connections[0]["pid"], 4242);
    assert!(connections[0]["silent_ms"].as_u64() >= connections[1]["silent_ms"].as_u64());
    assert_eq!(listing["processes"][0]["exe"], "/srv/shop");
}
