//! The tracer's own figures of each interval: the `interval` events of `--output ndjson`.

use std::{
    io::{BufRead as _, BufReader, Read},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::Value;

/// How long it may take until all connections are known.
const LIMIT: Duration = Duration::from_secs(120);

/// What one interval's work took, in CPU time. `None` is what was not measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Interval {
    /// Connections whose state was read.
    pub(super) connections: usize,
    /// Reading it from the kernel's table, in microseconds.
    pub(super) read_us: Option<u64>,
    /// Comparing it with what was known, in microseconds.
    pub(super) taken_in_us: Option<u64>,
    /// Having the kernel list its sockets, in microseconds.
    pub(super) list_us: Option<u64>,
    /// Finding the processes that hold them, in microseconds.
    pub(super) holders_us: Option<u64>,
}

/// The events that are of interest here.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Event {
    Interval(Interval),
    Report(Value),
}

impl Event {
    /// Reads a line of events; `None` where it is another event.
    fn read(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok()
    }
}

/// Milliseconds of microseconds.
pub(super) fn milliseconds(microseconds: Option<u64>) -> Option<f64> {
    Some(microseconds? as f64 / 1000.0)
}

/// The intervals of a tracer that is at work, and the report at its end.
pub(super) struct Events {
    intervals: Receiver<Interval>,
    report: Receiver<Value>,
}

impl Events {
    /// Reads them from the tracer's output, on a thread of its own: the tracer must never wait.
    pub(super) fn read(output: impl Read + Send + 'static) -> Self {
        let (to_intervals, intervals) = mpsc::channel();
        let (to_report, report) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                // Sending fails only when nobody listens any more.
                match Event::read(&line) {
                    Some(Event::Interval(interval)) => drop(to_intervals.send(interval)),
                    Some(Event::Report(whole)) => drop(to_report.send(whole)),
                    None => {}
                }
            }
        });
        Self { intervals, report }
    }

    /// The next intervals in which the tracer knows at least so many connections.
    pub(super) fn next(&self, connections: usize, count: usize) -> Result<Vec<Interval>> {
        let end = Instant::now() + LIMIT;
        let mut found = Vec::new();
        while found.len() < count {
            let left = end.saturating_duration_since(Instant::now());
            let next = self.intervals.recv_timeout(left);
            let next = next.context("The tracer does not see all connections.")?;
            found.extend(Some(next).filter(|one| one.connections >= connections));
        }
        Ok(found)
    }

    /// The report of a tracer that was told to end.
    pub(super) fn report(&self) -> Result<Value> {
        self.report.recv_timeout(LIMIT).context("The tracer gives no report.")
    }

    /// Those that have come meanwhile.
    pub(super) fn so_far(&self) -> impl Iterator<Item = Interval> {
        self.intervals.try_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_an_interval_took() {
        let line = r#"{"event":"interval","time":"2026-01-31T12:00:00Z","connections":10,
            "read_us":1500,"taken_in_us":250,"listed":12,"list_us":null}"#;
        let read = Interval {
            connections: 10,
            read_us: Some(1500),
            taken_in_us: Some(250),
            ..Interval::default()
        };
        assert_eq!(Event::read(line), Some(Event::Interval(read)));
        assert_eq!(milliseconds(read.read_us), Some(1.5));
        assert_eq!(milliseconds(read.list_us), None);
        for other in [r#"{"event":"opened","id":1}"#, "{", ""] {
            assert_eq!(Event::read(other), None, "{other}");
        }
    }

    #[test]
    fn waits_until_all_connections_are_known() {
        let line =
            |connections| format!("{{\"event\":\"interval\",\"connections\":{connections}}}\n");
        let output = line(1) + &line(7) + &line(8) + r#"{"event":"report","lost":0}"#;
        let events = Events::read(std::io::Cursor::new(output));
        let found: Vec<_> = events.next(7, 2).unwrap().iter().map(|one| one.connections).collect();
        assert_eq!(found, [7, 8]);
        assert!(events.next(7, 1).is_err());
        assert_eq!(events.report().unwrap()["lost"], 0);
    }
}
