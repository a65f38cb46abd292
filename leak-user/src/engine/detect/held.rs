//! Calls that hold their connections and never go on.
//!
//! A slow call holds its connection, too, and gives it back in the end. What tells them apart is
//! that callers keep coming while none that came after the first goes on: then there will never be
//! enough connections.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;

use crate::engine::detect::View;
use crate::engine::detect::code::CodePath;
use crate::engine::fate::Fate;
use crate::engine::table::Connection;
use crate::model::{ConnectionId, ProcessKey, Timestamp};

/// For how many thresholds calls must have piled up; in each such part of the time one must have
/// come.
const PARTS: u32 = 5;

/// Calls by the same path of a process that hold connections to one server.
type Holders = (ProcessKey, SocketAddr, CodePath);

impl View<'_> {
    /// Finds the connections that are held by calls which pile up.
    pub(super) fn note_pile_ups(&mut self, now: Timestamp) {
        let mut held: BTreeMap<Holders, Vec<&Connection>> = BTreeMap::new();
        for connection in self.silent_connections(now) {
            if self.is_at_work(connection) || self.fates().of(connection) != Fate::Held {
                continue;
            }
            if let Some(path) = self.path(connection) {
                let holders = (connection.process, connection.endpoints.remote, path);
                held.entry(holders).or_default().push(connection);
            }
        }
        let piled = held.iter().filter(|((.., path), members)| self.pile_up(path, members, now));
        let piled: HashSet<ConnectionId> =
            piled.flat_map(|(_, members)| members.iter().map(|one| one.id)).collect();
        self.set_piled_up(piled);
    }

    fn pile_up(&self, path: &CodePath, members: &[&Connection], now: Timestamp) -> bool {
        let silent_after = self.thresholds().silent_after;
        let starts: Vec<Timestamp> = members.iter().map(|one| one.silent_since()).collect();
        let Some(&first) = starts.iter().min() else { return false };
        // Those that came later are not silent for long yet.
        let last = now.before(silent_after);
        let part = last.since(first) / PARTS;
        let is_in = |index: u32, at: Timestamp| {
            let from = first.after(part * index);
            (from..=from.after(part)).contains(&at)
        };
        now.since(first) >= silent_after * PARTS
            && (0..PARTS).all(|index| starts.iter().any(|&at| is_in(index, at)))
            && !members.iter().any(|one| self.has_let_go(&self.table().pool_of(one), path, first))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::engine::detect::testing::{THRESHOLDS, judge_with};
    use crate::engine::detect::{Severity, Stacks};
    use crate::engine::testing::{World, secs};
    use crate::model::{ConnectionId, Event, StackId, Whereabouts};
    use leak_stacks::{Frame, Language, Quality, Stack};

    /// The call of `pay`, where it uses the database or waits for somebody else.
    fn stacks() -> Stacks {
        let stack = |name: &str, line| {
            let frame = |(function, line): (&str, u32)| Frame {
                function: Some(function.to_owned()),
                module: None,
                file: Some("/srv/shop.py".to_owned()),
                line: Some(line),
                address: 0,
            };
            let stack = Stack {
                id: StackId::from(name),
                quality: Quality::Complete,
                truncation: None,
                language: Language::Python,
                frames: [("pay", line), ("serve", 3)].map(frame).into(),
                culprit: Some(0),
                callers: vec![1],
            };
            (stack.id, Arc::new(stack))
        };
        [stack("query", 20), stack("wait", 31)].into()
    }

    /// Every 20 s a call takes a connection and waits for somebody who does not answer, each for
    /// this long at most.
    fn calls(at_most: f64, until: f64) -> World {
        let mut world = World::new();
        let starts = (0..).map(|number| (number, 10.0 + 20.0 * number as f64));
        for (number, at) in starts.take_while(|&(_, at)| at < until) {
            world.open(number, at);
            world.request_of(number, at + 0.1, StackId::from("query"), 5000 + number as u32);
        }
        let ended = (0..).map(|number| (number, 10.0 + 20.0 * number as f64 + at_most));
        for (number, at) in ended.take_while(|&(_, at)| at < until) {
            world.close(number, at);
        }
        for number in 0..100 {
            let id = ConnectionId(number);
            let Some(connection) = world.table.get(id) else { continue };
            let request = connection.requests.count;
            let place = Whereabouts::At(StackId::from("wait"));
            world.apply(&Event::UserSeen { id, request, place }, secs(until));
        }
        world
    }

    fn gravest(world: &World, now: f64) -> Severity {
        let verdicts = judge_with(world, &stacks(), &THRESHOLDS, now);
        verdicts.iter().map(|verdict| verdict.severity).max().unwrap()
    }

    #[test]
    fn calls_of_which_none_goes_on_are_a_leak_in_the_end() {
        assert_eq!(gravest(&calls(1e6, 250.0), 251.0), Severity::Suspect, "too early to tell");
        assert_eq!(gravest(&calls(1e6, 400.0), 401.0), Severity::Leak);
    }

    #[test]
    fn slow_calls_go_on() {
        assert!(gravest(&calls(250.0, 800.0), 801.0) < Severity::Leak);
        assert!(gravest(&calls(350.0, 800.0), 801.0) < Severity::Leak);
    }

    #[test]
    fn workers_that_hold_one_each_do_not_pile_up() {
        // Nobody has come for a while.
        assert!(gravest(&calls(1e6, 300.0), 700.0) < Severity::Leak);
    }
}
