//! One JSON object a line, as things happen; the last line is the report.

mod events;
mod lines;
mod sink;

use std::io;

pub use self::events::{EventKind, Events, NoEventKind};
use self::lines::{
    Asked, Closed, Established, Failed, Found, Interval, Line, Opened, Started, Timed,
};
pub use self::sink::Ndjson;

use crate::engine::Beginning;
use crate::engine::findings::Change;
use crate::engine::snapshot::Snapshot;
use crate::model::time::{Clock, rfc3339};
use crate::model::{Event, IntervalCost, Timestamp};
use crate::outputs::json::model::{FindingModel, Report, Time};
use crate::outputs::json::schema;

/// Writes the JSON schema of a line.
///
/// # Errors
/// What `out` returns.
pub fn write_schema(out: &mut impl io::Write) -> io::Result<()> {
    schema::write::<Line<'_>>(out)
}

fn write_line(out: &mut impl io::Write, line: &Line<'_>) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    writeln!(out)
}

/// Writes what happened to one connection, or what a server answered; nothing for events that are
/// the collector's own.
///
/// # Errors
/// What `out` returns.
pub fn write_event(out: &mut impl io::Write, event: &Event, clock: &Clock) -> io::Result<()> {
    let time = |at| Time(clock.rfc3339(at));
    let line = match event {
        Event::Opened { id, at, caller, endpoints } => Line::ConnectionOpened(Timed {
            time: time(*at),
            body: Opened {
                id: id.0,
                pid: caller.process.pid,
                tid: caller.tid,
                comm: &caller.comm,
                remote: endpoints.remote.to_string(),
            },
        }),
        Event::Established { id, at, endpoints } => Line::ConnectionEstablished(Timed {
            time: time(*at),
            body: Established {
                id: id.0,
                local: endpoints.local.to_string(),
                remote: endpoints.remote.to_string(),
            },
        }),
        Event::Failed { id, at, errno } => Line::ConnectionFailed(Timed {
            time: time(*at),
            body: Failed { id: id.0, errno: *errno },
        }),
        Event::Closed { id, at, usage } => {
            Line::ConnectionClosed(Timed { time: time(*at), body: Closed::new(id.0, usage, clock) })
        }
        Event::ServerSessions { server, at, answer } => {
            Line::Server(Timed { time: time(*at), body: Asked::new(server, answer) })
        }
        Event::Used { .. }
        | Event::Unchanged { .. }
        | Event::Inventory { .. }
        | Event::Uses { .. }
        | Event::StackResolved { .. }
        | Event::PoolsRead { .. }
        | Event::StatesRead { .. }
        | Event::UserGone { .. }
        | Event::Waiting { .. }
        | Event::UserSeen { .. } => return Ok(()),
    };
    write_line(out, &line)
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
    let body = Interval::new(cost);
    write_line(out, &Line::Interval(Timed { time: Time(clock.rfc3339(now)), body }))
}

/// Writes the first line.
///
/// # Errors
/// What `out` returns.
pub fn write_start(out: &mut impl io::Write, beginning: &Beginning) -> io::Result<()> {
    let time = Time(rfc3339(beginning.run.started_at));
    write_line(out, &Line::RunStarted(Timed { time, body: Started::new(beginning) }))
}

/// Writes how a finding changed, with a line of each kind that `events` want: `finding` when it is
/// new or has changed, with the same id, `finding_opened` or `finding_updated`, which tell them
/// apart, and `finding_retracted`.
///
/// # Errors
/// What `out` returns.
pub fn write_change(
    out: &mut impl io::Write,
    change: &Change,
    snapshot: &Snapshot<'_>,
    events: &Events,
) -> io::Result<()> {
    let finding = change.finding();
    let stack = snapshot.stack(finding.verdict.stack.as_ref());
    let why = match change {
        Change::Opened(_) => None,
        Change::Updated(_, why) => why.as_deref(),
        Change::Retracted(_, why) => Some(why.as_str()),
    };
    for &kind in EventKind::of_change(change).iter().filter(|&&kind| events.want(kind)) {
        let found = Timed {
            time: Time(snapshot.clock.rfc3339(snapshot.now)),
            body: Found {
                finding: FindingModel::new(snapshot, finding),
                why,
                frames: stack.map(|stack| stack.frames.as_slice()),
            },
        };
        let line = match kind {
            EventKind::FindingOpened => Line::FindingOpened(found),
            EventKind::FindingUpdated => Line::FindingUpdated(found),
            EventKind::FindingRetracted => Line::FindingRetracted(found),
            _ => Line::Finding(found),
        };
        write_line(out, &line)?;
    }
    Ok(())
}

/// Writes the last line.
///
/// # Errors
/// What `out` returns.
pub fn write_report(out: &mut impl io::Write, snapshot: &Snapshot<'_>) -> io::Result<()> {
    let time = Time(snapshot.clock.rfc3339(snapshot.now));
    let body = Box::new(Report::new(snapshot));
    write_line(out, &Line::Report(Timed { time, body }))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use serde_json::Value;

    use super::*;
    use crate::engine::testing::{APP, caller, endpoints, secs, server_lists, session, usage};
    use crate::model::ConnectionId;
    use crate::model::server::{ServerAnswer, SessionState};
    use crate::outputs::json::schema::tests::assert_are_lines;
    use crate::outputs::testing::Run;

    fn lines(bytes: &[u8]) -> Vec<Value> {
        let text = std::str::from_utf8(bytes).unwrap();
        let lines: Vec<_> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_are_lines(&lines);
        lines
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
        let stacks = vec![Duration::from_micros(312)];
        let cost = IntervalCost { connections: 7, read, stacks, ..IntervalCost::default() };
        write_interval_cost(&mut out, secs(1.0), &cost, &clock).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"event\":\"interval\",\"time\":\"1970-01-01T00:00:01.000Z\",\"connections\":7,\
             \"read_us\":1500,\"taken_in_us\":null,\"listed\":null,\"list_us\":null,\"holders_us\":null,\
             \"stacks_us\":[312],\"looked_at\":0,\"looks_us\":0}\n"
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
            write_change(&mut out, &change, &run.snapshot(200.0), &Events::default()).unwrap();
        }
        for number in 0..=12 {
            run.world.close(number, 210.0);
        }
        for change in run.turn(210.0) {
            write_change(&mut out, &change, &run.snapshot(210.0), &Events::default()).unwrap();
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

    #[test]
    fn new_findings_are_told_apart_from_changed_ones_when_asked() {
        let mut run = Run::new();
        let changes = run.turn(200.0);
        let asked = [EventKind::FindingOpened, EventKind::FindingRetracted];
        let mut out = Vec::new();
        for change in &changes {
            let events = Events::new(asked.to_vec());
            write_change(&mut out, change, &run.snapshot(200.0), &events).unwrap();
        }
        let lines = lines(&out);
        assert_eq!(lines.len(), changes.len());
        assert!(lines.iter().all(|line| line["event"] == "finding_opened"), "{lines:#?}");
        assert_eq!(lines[0]["fingerprint"].as_str().unwrap().len(), 16);
    }
}
