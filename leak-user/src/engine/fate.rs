//! Whether the call that used a connection last still runs.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

use crate::engine::table::{Connection, ConnectionTable};
use crate::model::{StackId, Timestamp, Whereabouts};
use leak_stacks::{Frame, Quality, Stack, is_application, waits_for_connection};

/// What became of a connection, by the call that used it last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// The code that used it last has returned.
    Lost,
    /// The call that used it last still runs.
    Held,
    /// Nobody knows.
    #[default]
    Unknown,
}

/// Whoever sends requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum User {
    /// A thread, by PID and number.
    Thread(u32, u32),
    /// A goroutine, by PID and number.
    Goroutine(u32, u64),
}

impl User {
    /// Who sent a connection's latest request, as far as that is known.
    #[must_use]
    pub fn of(connection: &Connection) -> Option<Self> {
        let (pid, tid) = connection.requests.latest_by?;
        let goroutine = connection.callers.last_used_goroutine;
        Some(goroutine.map_or(Self::Thread(pid, tid), |number| Self::Goroutine(pid, number)))
    }
}

/// Tells what became of connections.
#[derive(Debug)]
pub struct Fates<'a> {
    table: &'a ConnectionTable,
    stacks: &'a HashMap<StackId, Arc<Stack>>,
    /// When each user began its latest request.
    latest: OnceCell<HashMap<User, Timestamp>>,
}

impl<'a> Fates<'a> {
    /// Of the connections of a table.
    #[must_use]
    pub fn new(table: &'a ConnectionTable, stacks: &'a HashMap<StackId, Arc<Stack>>) -> Self {
        Self { table, stacks, latest: OnceCell::new() }
    }

    /// What became of a connection.
    #[must_use]
    pub fn of(&self, connection: &Connection) -> Fate {
        match connection.callers.user_seen {
            None | Some(Whereabouts::Unknown) => Fate::Unknown,
            Some(Whereabouts::Ended) => Fate::Lost,
            Some(Whereabouts::At(now)) => self.by_stack(connection, now).unwrap_or_default(),
        }
    }

    /// What all of some connections have in common.
    pub(super) fn of_all<'b>(&self, connections: impl Iterator<Item = &'b Connection>) -> Fate {
        let mut fates = connections.map(|connection| self.of(connection));
        let Some(first) = fates.next() else { return Fate::Unknown };
        if fates.all(|fate| fate == first) { first } else { Fate::Unknown }
    }

    /// The stack of the call that holds a connection.
    #[must_use]
    pub fn held_at(&self, connection: &Connection) -> Option<StackId> {
        match connection.callers.user_seen {
            Some(Whereabouts::At(stack)) if self.of(connection) == Fate::Held => Some(stack),
            _ => None,
        }
    }

    /// By where its user is now.
    ///
    /// A thread may have come to the same place once more. When it has used another connection
    /// since, or waits for one, that is as likely.
    fn by_stack(&self, connection: &Connection, now: StackId) -> Option<Fate> {
        let now = self.stacks.get(&now)?;
        let used = self.stacks.get(connection.callers.last_used_by.as_ref()?)?;
        let culprit = used.culprit?;
        let runs = |call: &[Frame]| {
            let mut inner = (0..now.frames.len()).filter_map(|at| now.frames.get(at..));
            inner.any(|frames| is_in(call, frames))
        };
        let calls = (culprit..used.frames.len()).filter_map(|at| used.frames.get(at..));
        let own = calls.enumerate().filter(|(index, call)| {
            *index == 0 || call.first().is_some_and(|call| is_application(call, used.language))
        });
        match own.filter(|(_, call)| runs(call)).map(|(index, _)| index).next() {
            // What is missing of a stack may be what is looked for.
            None => return (now.quality == Quality::Complete).then_some(Fate::Lost),
            Some(0) => {}
            // A helper has returned, but its caller may have the connection.
            Some(_) => return None,
        }
        let user = User::of(connection)?;
        let latest = self.latest.get_or_init(|| latest_requests(self.table));
        let has_gone_on = latest.get(&user).copied() > connection.requests.latest_at;
        (!has_gone_on && !waits_for_connection(now)).then_some(Fate::Held)
    }
}

/// Whether frames begin with the function of a call that is further in there, and its callers are
/// the same and at the same places, as they are as long as it runs.
fn is_in(call: &[Frame], frames: &[Frame]) -> bool {
    let (Some((function, callers)), Some((other, others))) =
        (call.split_first(), frames.split_first())
    else {
        return false;
    };
    let is_same = |one: &Frame, other: &Frame| {
        one.function.is_some() && one.function == other.function && one.file == other.file
    };
    let is_at_same = |(one, other): (&Frame, &Frame)| {
        (&one.function, &one.file, one.line) == (&other.function, &other.file, other.line)
    };
    is_same(function, other) && callers.iter().zip(others).all(is_at_same)
}

fn latest_requests(table: &ConnectionTable) -> HashMap<User, Timestamp> {
    let mut latest: HashMap<User, Timestamp> = HashMap::new();
    for connection in table.connections() {
        if let (Some(user), Some(at)) = (User::of(connection), connection.requests.latest_at) {
            let known = latest.entry(user).or_default();
            *known = (*known).max(at);
        }
    }
    latest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::{APP, World, secs};
    use crate::model::{ConnectionId, Event};
    use leak_stacks::Language;

    /// A stack of these calls, innermost first, as `function:line`; the second is the culprit.
    fn stack(calls: &[&str], quality: Quality) -> Arc<Stack> {
        let frame = |call: &&str| {
            let (function, line) = call.split_once(':').unwrap();
            Frame {
                function: Some(function.to_owned()),
                module: None,
                file: Some("/srv/shop.py".to_owned()),
                line: line.parse().ok(),
                address: 0,
            }
        };
        Arc::new(Stack {
            id: StackId::from(calls.concat().as_str()),
            quality,
            truncation: None,
            language: Language::Python,
            frames: calls.iter().map(frame).collect(),
            culprit: Some(1),
            callers: Vec::new(),
        })
    }

    fn fate_after(now: &Arc<Stack>, later: impl FnOnce(&mut World)) -> Fate {
        let used = stack(&["send:1", "pay:20", "work:7", "main:3"], Quality::Complete);
        let stacks = [&used, now].map(|stack| (stack.id, Arc::clone(stack))).into();
        let mut world = World::new();
        world.open(1, 1.0);
        world.open(2, 1.0);
        world.request_of(1, 10.0, used.id, APP.pid + 1);
        let id = ConnectionId(1);
        let request = world.table.get(id).unwrap().requests.count;
        let place = Whereabouts::At(now.id);
        world.apply(&Event::UserSeen { id, request: request - 1, place }, secs(50.0));
        let fates = Fates::new(&world.table, &stacks);
        assert_eq!(fates.of(world.table.get(id).unwrap()), Fate::Unknown, "of an earlier request");
        world.apply(&Event::UserSeen { id, request, place }, secs(50.0));
        later(&mut world);
        Fates::new(&world.table, &stacks).of(world.table.get(id).unwrap())
    }

    fn fate(calls: &[&str], quality: Quality) -> Fate {
        fate_after(&stack(calls, quality), |_| {})
    }

    #[test]
    fn a_call_that_is_still_on_the_stack_holds_its_connection() {
        let whole = Quality::Complete;
        assert_eq!(fate(&["sleep:1", "pay:31", "work:7", "main:3"], whole), Fate::Held);
        assert_eq!(fate(&["poll:1", "mail:9", "pay:31", "work:7"], Quality::Truncated), Fate::Held);
        // Only its callers run still, or call it from elsewhere; others do; nobody does.
        assert_eq!(fate(&["sleep:1", "work:8", "main:3"], whole), Fate::Unknown);
        assert_eq!(fate(&["sleep:1", "pay:31", "work:9", "main:3"], whole), Fate::Unknown);
        assert_eq!(fate(&["sleep:1", "pay:31", "loop:9", "serve:3"], whole), Fate::Lost);
        assert_eq!(fate(&["sleep:1", "loop:7"], whole), Fate::Lost);
        assert_eq!(fate(&["sleep:1"], Quality::Truncated), Fate::Unknown);
    }

    #[test]
    fn a_thread_that_has_come_back_holds_nothing_for_sure() {
        let waits = ["sem_wait:1", "pay:31", "work:7", "main:3"];
        let other = |world: &mut World| {
            world.request_of(2, 20.0, StackId::from("other"), APP.pid + 1);
        };
        assert_eq!(fate_after(&stack(&waits, Quality::Complete), other), Fate::Unknown);
        let another_s = |world: &mut World| {
            world.request_of(2, 20.0, StackId::from("other"), APP.pid + 2);
        };
        assert_eq!(fate_after(&stack(&waits, Quality::Complete), another_s), Fate::Held);
        let mut pool = stack(&["getconn:1", "pay:18", "work:7", "main:3"], Quality::Complete);
        Arc::get_mut(&mut pool).unwrap().frames[0].file = Some("/x/psycopg_pool/pool.py".into());
        assert_eq!(fate_after(&pool, |_| {}), Fate::Unknown, "it waits for a connection");
    }

    #[test]
    fn a_user_that_has_ended_holds_nothing() {
        let mut world = World::new();
        world.open(1, 1.0);
        let id = ConnectionId(1);
        let request = world.table.get(id).unwrap().requests.count;
        let stacks = HashMap::new();
        for (place, fate) in
            [(Whereabouts::Unknown, Fate::Unknown), (Whereabouts::Ended, Fate::Lost)]
        {
            world.apply(&Event::UserSeen { id, request, place }, secs(50.0));
            let connection = world.table.get(id).unwrap();
            assert_eq!(Fates::new(&world.table, &stacks).of(connection), fate);
        }
        world.request_of(1, 60.0, StackId::from("pay"), 1);
        let connection = world.table.get(id).unwrap();
        assert_eq!(Fates::new(&world.table, &stacks).of(connection), Fate::Unknown, "used again");
    }
}
