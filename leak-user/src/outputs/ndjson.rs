//! One JSON object a line, as things happen; the last line is the report.

mod sink;

use std::io;

use serde::Serialize;

pub use sink::Ndjson;

use crate::engine::findings::Change;
use crate::engine::snapshot::Snapshot;
use crate::model::server::ServerAnswer;
use crate::model::time::Clock;
use crate::model::{Event, IntervalCost, Timestamp};
use crate::outputs::json::model::{FindingModel, Report};
use leak_stacks::Frame;

/// A line: what kind of thing, when, and what there is to say about it.
#[derive(Serialize)]
struct Line<T> {
    event: &'static str,
    time: String,
    #[serde(flatten)]
    body: T,
}

#[derive(Serialize)]
struct Opened<'a> {
    id: u64,
    pid: u32,
    tid: u32,
    comm: &'a str,
    remote: String,
}

#[derive(Serialize)]
struct Established {
    id: u64,
    local: String,
    remote: String,
}

#[derive(Serialize)]
struct Failed {
    id: u64,
    errno: Option<i32>,
}

#[derive(Serialize)]
struct Closed {
    id: u64,
    pid: u32,
    local: Option<String>,
    remote: String,
    opened_at: Option<String>,
    bytes_sent: u64,
    bytes_received: u64,
}

#[derive(Serialize)]
struct Asked<'a> {
    server: &'a str,
    status: &'static str,
    message: Option<&'a str>,
    max_connections: Option<u32>,
    used: Option<usize>,
}

#[derive(Serialize)]
struct Found<'a> {
    #[serde(flatten)]
    finding: FindingModel<'a>,
    /// Why it was retracted, or what became of connections that are no longer part of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
    /// Of its stack, so that a line can be understood before the report comes.
    frames: Option<&'a [Frame]>,
}

fn line(
    out: &mut impl io::Write,
    event: &'static str,
    time: String,
    body: impl Serialize,
) -> io::Result<()> {
    serde_json::to_writer(&mut *out, &Line { event, time, body })?;
    writeln!(out)
}

/// Writes what happened to one connection, or what a server answered; nothing for events that are the collector's own.
///
/// # Errors
/// What `out` returns.
pub fn write_event(out: &mut impl io::Write, event: &Event, clock: &Clock) -> io::Result<()> {
    match event {
        Event::Opened { id, at, caller, endpoints } => {
            let body = Opened {
                id: id.0,
                pid: caller.process.pid,
                tid: caller.tid,
                comm: &caller.comm,
                remote: endpoints.remote.to_string(),
            };
            line(out, "connection_opened", clock.rfc3339(*at), body)
        }
        Event::Established { id, at, endpoints } => {
            let local = endpoints.local.to_string();
            let body = Established { id: id.0, local, remote: endpoints.remote.to_string() };
            line(out, "connection_established", clock.rfc3339(*at), body)
        }
        Event::Failed { id, at, errno } => {
            let body = Failed { id: id.0, errno: *errno };
            line(out, "connection_failed", clock.rfc3339(*at), body)
        }
        Event::Closed { id, at, usage } => {
            let local = usage.endpoints.local;
            let body = Closed {
                id: id.0,
                pid: usage.opener.process.pid,
                local: (local.port() != 0).then(|| local.to_string()),
                remote: usage.endpoints.remote.to_string(),
                opened_at: (!usage.adopted).then(|| clock.rfc3339(usage.opened_at)),
                bytes_sent: usage.bytes_sent,
                bytes_received: usage.bytes_received,
            };
            line(out, "connection_closed", clock.rfc3339(*at), body)
        }
        Event::ServerSessions { server, at, answer } => {
            let (status, message, listing) = match answer.as_ref() {
                ServerAnswer::Listed(listing) => ("answering", None, Some(listing)),
                ServerAnswer::Refused { why } => ("refusing", Some(why.as_str()), None),
                ServerAnswer::Unreachable { why } => ("unreachable", Some(why.as_str()), None),
            };
            let max_connections = listing.map(|listing| listing.settings.max_connections);
            let used = listing.map(|listing| listing.used());
            let body = Asked { server, status, message, max_connections, used };
            line(out, "server", clock.rfc3339(*at), body)
        }
        Event::Used { .. }
        | Event::Unchanged { .. }
        | Event::Inventory { .. }
        | Event::Uses { .. }
        | Event::StackResolved { .. }
        | Event::UserGone { .. } => Ok(()),
    }
}

/// What an interval has cost the tracer, in microseconds of CPU time.
#[derive(Serialize)]
struct Interval {
    connections: usize,
    read_us: Option<u128>,
    taken_in_us: Option<u128>,
    listed: Option<usize>,
    list_us: Option<u128>,
    holders_us: Option<u128>,
}

/// Writes what an interval has cost the tracer.
///
/// # Errors
/// What `out` returns.
pub fn write_interval_cost(
    out: &mut impl io::Write,
    now: Timestamp,
    cost: &IntervalCost,
    clock: &Clock,
) -> io::Result<()> {
    let IntervalCost { connections, read, taken_in, listed, list, holders } = *cost;
    let body = Interval {
        connections,
        read_us: read.map(|time| time.as_micros()),
        taken_in_us: taken_in.map(|time| time.as_micros()),
        listed,
        list_us: list.map(|time| time.as_micros()),
        holders_us: holders.map(|time| time.as_micros()),
    };
    line(out, "interval", clock.rfc3339(now), body)
}

/// Writes how a finding changed: `finding` when it is new or has changed, with the same id, and
/// `finding_retracted`.
///
/// # Errors
/// What `out` returns.
pub fn write_change(
    out: &mut impl io::Write,
    change: &Change,
    snapshot: &Snapshot<'_>,
) -> io::Result<()> {
    let (event, why) = match change {
        Change::Opened(_) => ("finding", None),
        Change::Updated(_, why) => ("finding", why.as_deref()),
        Change::Retracted(_, why) => ("finding_retracted", Some(why.as_str())),
    };
    let finding = change.finding();
    let stack = snapshot.stack(finding.verdict.stack.as_ref());
    let body = Found {
        finding: FindingModel::new(snapshot, finding),
        why,
        frames: stack.map(|stack| stack.frames.as_slice()),
    };
    line(out, event, snapshot.clock.rfc3339(snapshot.now), body)
}

/// Writes the last line.
///
/// # Errors
/// What `out` returns.
pub fn write_report(out: &mut impl io::Write, snapshot: &Snapshot<'_>) -> io::Result<()> {
    line(out, "report", snapshot.clock.rfc3339(snapshot.now), Report::new(snapshot))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use serde_json::Value;

    use super::*;
    use crate::engine::table::testing::{
        APP, caller, endpoints, secs, server_lists, session, usage,
    };
    use crate::model::ConnectionId;
    use crate::model::server::SessionState;
    use crate::outputs::testing::Run;

    fn lines(bytes: &[u8]) -> Vec<Value> {
        let text = std::str::from_utf8(bytes).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn tells_a_life() {
        let clock = Clock::new(Timestamp(0), SystemTime::UNIX_EPOCH);
        let id = ConnectionId(7);
        let events = [
            Event::Opened { id, at: secs(1.0), caller: caller(APP), endpoints: endpoints(7) },
            Event::Established { id, at: secs(1.5), endpoints: endpoints(7) },
            Event::Closed { id, at: secs(2.0), usage: Box::new(usage(7, secs(1.0))) },
            Event::Failed { id, at: secs(3.0), errno: Some(111) },
            Event::Used { id, usage: Box::new(usage(7, secs(1.0))) },
        ];
        let mut out = Vec::new();
        for event in &events {
            write_event(&mut out, event, &clock).unwrap();
        }
        let lines = lines(&out);
        let kinds: Vec<_> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
        assert_eq!(
            kinds,
            [
                "connection_opened",
                "connection_established",
                "connection_closed",
                "connection_failed"
            ]
        );
        assert_eq!(lines[0]["time"], "1970-01-01T00:00:01.000Z");
        assert_eq!(lines[0]["pid"], 4242);
        assert_eq!(lines[1]["local"], "127.0.0.1:40007");
        assert_eq!(lines[2]["opened_at"], "1970-01-01T00:00:01.000Z");
        assert_eq!(lines[3]["errno"], 111);
    }

    #[test]
    fn tells_what_an_interval_costs() {
        let clock = Clock::new(Timestamp(0), SystemTime::UNIX_EPOCH);
        let mut out = Vec::new();
        let read = Some(Duration::from_micros(1500));
        let cost = IntervalCost { connections: 7, read, ..IntervalCost::default() };
        write_interval_cost(&mut out, secs(1.0), &cost, &clock).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"event\":\"interval\",\"time\":\"1970-01-01T00:00:01.000Z\",\"connections\":7,\
             \"read_us\":1500,\"taken_in_us\":null,\"listed\":null,\"list_us\":null,\"holders_us\":null}\n"
        );
    }

    #[test]
    fn tells_what_servers_answer() {
        let clock = Clock::new(Timestamp(0), SystemTime::UNIX_EPOCH);
        let sessions = vec![session(1, 5.0, SessionState::Idle)];
        let answers =
            [server_lists(sessions), ServerAnswer::Refused { why: "too many clients".into() }];
        let mut out = Vec::new();
        for answer in answers {
            let (server, answer) = ("db".into(), Box::new(answer));
            let event = Event::ServerSessions { server, at: secs(1.0), answer };
            write_event(&mut out, &event, &clock).unwrap();
        }
        let lines = lines(&out);
        assert_eq!((&lines[0]["event"], &lines[0]["server"]), (&"server".into(), &"db".into()));
        assert_eq!((&lines[0]["used"], &lines[0]["max_connections"]), (&1.into(), &10.into()));
        assert_eq!(lines[1]["status"], "refusing");
        assert_eq!(lines[1]["message"], "too many clients");
    }

    #[test]
    fn tells_findings_and_ends_with_the_report() {
        let mut run = Run::new();
        let mut out = Vec::new();
        for change in run.turn(200.0) {
            write_change(&mut out, &change, &run.snapshot(200.0)).unwrap();
        }
        for number in 0..=12 {
            run.world.close(number, 210.0);
        }
        for change in run.turn(210.0) {
            write_change(&mut out, &change, &run.snapshot(210.0)).unwrap();
        }
        write_report(&mut out, &run.snapshot(210.0)).unwrap();
        let lines = lines(&out);
        let about = |event: &str| {
            lines
                .iter()
                .filter(|line| line["event"] == event && line["reason"] == "abandoned")
                .collect::<Vec<_>>()
        };
        assert_eq!(about("finding")[0]["culprit"]["function"], "app::report");
        assert_eq!(about("finding")[0]["frames"][0]["function"], "write");
        let why = about("finding_retracted")[0]["why"].as_str().unwrap();
        assert!(why.starts_with("closed after"), "{why}");
        assert_eq!(lines.last().unwrap()["event"], "report");
        assert_eq!(lines.last().unwrap()["schema"], "pgsocktrace.report/1");
    }
}
