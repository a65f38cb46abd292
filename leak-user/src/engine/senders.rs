//! Which code sends which statement.
//!
//! Of a connection that is older than the trace no stack is known, but its server tells its last
//! statement. Whoever sends that statement left the connection as it is. It is learnt in two ways:
//! from connections whose latest request's stack is known, by what the server says of them, in
//! every process of the same program; and from the texts in the program itself, which are looked up
//! for statements that nobody was seen to send.
//!
//! Where several functions send the same statement, all are told and none is blamed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::engine::table::Connection;
use crate::model::{Learnt, ProcessInfo, ProcessKey, ProgramId};
use leak_stacks::{Frame, Language, Stack};

/// Most statements of a program that are remembered, and of all programs.
const MAX_OF_PROGRAM: usize = 1024;
const MAX_STATEMENTS: usize = 16 * 1024;
/// Most functions that are remembered to send the same statement.
const MAX_SENDERS: usize = 8;
/// How much earlier than its request a statement may seem to have begun: the server says how long
/// ago that was, and its answer takes time.
const EARLIER: Duration = Duration::from_millis(50);

/// The code that sends a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    /// One place of each function that does; there is at least one.
    pub code: Vec<Frame>,
    /// It was seen to send the statement. If not, the statement is among its texts.
    pub is_seen: bool,
}

impl Sender {
    /// The code, if no other one sends the statement too.
    #[must_use]
    pub fn only(&self) -> Option<&Frame> {
        match self.code.as_slice() {
            [only] => Some(only),
            _ => None,
        }
    }

    /// Adds a place, and says whether that changes anything.
    fn add(&mut self, frame: &Frame) -> bool {
        let same = self.code.iter_mut().find(|known| is_same_function(known, frame));
        if let Some(known) = same {
            // Of several places nobody knows which.
            let line = known.line.filter(|line| Some(*line) == frame.line);
            return std::mem::replace(&mut known.line, line) != line;
        }
        let has_room = self.code.len() < MAX_SENDERS;
        if has_room {
            self.code.push(frame.clone());
        }
        has_room
    }
}

fn is_same_function(one: &Frame, other: &Frame) -> bool {
    let is_named = one.function.is_some();
    one.file == other.file && one.function == other.function && (is_named || one.line == other.line)
}

type Statements = BTreeMap<Arc<str>, Sender>;

/// What is known of who sends what.
#[derive(Debug, Default)]
pub struct Senders {
    programs: HashMap<ProcessKey, ProgramId>,
    /// By programs of compiled languages, and by what else makes a program.
    seen: HashMap<u64, Statements>,
    /// What was looked up in a process's program; `None`: it is not there, or anybody may send it.
    looked_up: HashMap<ProcessKey, BTreeMap<Arc<str>, Option<Sender>>>,
    count: usize,
    /// How often what was seen has changed.
    revision: u64,
}

impl Senders {
    /// Learns what program a process runs.
    pub(super) fn describe(&mut self, info: &ProcessInfo) {
        if let Some(program) = info.program {
            self.programs.insert(info.key, program);
        }
    }

    /// Learns where a process's program has a statement: `None` when the answer says nothing.
    pub(in crate::engine) fn found(
        &mut self,
        process: ProcessKey,
        statement: &str,
        code: &[Frame],
    ) {
        let found = self.looked_up.entry(process).or_default();
        let is_full = found.len() >= MAX_OF_PROGRAM || self.count >= MAX_STATEMENTS;
        if is_full && !found.contains_key(statement) {
            return;
        }
        let mut sender = Sender { code: Vec::new(), is_seen: false };
        for frame in code {
            sender.add(frame);
        }
        let sender = (!sender.code.is_empty()).then_some(sender);
        if found.insert(statement.into(), sender).is_none() {
            self.count += 1;
        }
    }

    /// Learns from a connection whose latest request's stack is known that its code sent what the
    /// server says was the last statement.
    pub(super) fn learn(&mut self, connection: &Connection, stack: &Stack) {
        let Some(statement) = statement_of_latest_request(connection) else { return };
        let Some(frame) = stack.culprit.and_then(|index| stack.frames.get(index)) else { return };
        let Some(program) = self.programs.get(&connection.process) else { return };
        let program = match stack.language {
            Language::Go | Language::Native => program.binary,
            // The binary is an interpreter, which runs any program.
            _ => program.command,
        };
        self.saw(program, statement, std::slice::from_ref(frame));
    }

    /// Takes over what an earlier run has seen.
    pub(crate) fn remember(&mut self, learnt: &Learnt) {
        self.saw(learnt.program, &learnt.statement, &learnt.code);
    }

    fn saw(&mut self, program: u64, statement: &str, code: &[Frame]) {
        let statements = self.seen.entry(program).or_default();
        if !statements.contains_key(statement) {
            if statements.len() >= MAX_OF_PROGRAM || self.count >= MAX_STATEMENTS {
                return;
            }
            let sender = Sender { code: Vec::new(), is_seen: true };
            statements.insert(statement.into(), sender);
            self.count += 1;
        }
        let sender = statements.get_mut(statement);
        let changes = sender.map(|sender| code.iter().filter(|frame| sender.add(frame)).count());
        self.revision += u64::from(changes.unwrap_or_default() > 0);
    }

    /// What was seen, in this run and those before.
    pub fn seen_so_far(&self) -> impl Iterator<Item = Learnt> {
        self.seen.iter().flat_map(|(&program, statements)| {
            statements.iter().map(move |(statement, sender)| Learnt {
                program,
                statement: statement.to_string(),
                code: sender.code.clone(),
            })
        })
    }

    /// A number that grows when [`Self::seen_so_far`] changes.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Who sends the statement that a connection's server shows, when that is known.
    #[must_use]
    pub fn of(&self, connection: &Connection) -> Option<Sender> {
        let statement = connection.server_now()?.session.query.as_deref()?;
        let process = connection.process;
        let seen = self.seen(process, statement);
        let looked_up = self.looked_up.get(&process).and_then(|found| found.get(statement));
        match (seen, looked_up.and_then(Option::as_ref)) {
            (Some(seen), Some(found)) => {
                let mut sender = seen.clone();
                found.code.iter().for_each(|frame| {
                    // Where it was seen, its place is that of the call.
                    if !sender.code.iter().any(|known| is_same_function(known, frame)) {
                        sender.add(frame);
                    }
                });
                Some(sender)
            }
            (Some(one), None) | (None, Some(one)) => Some(one.clone()),
            (None, None) => None,
        }
    }

    /// The statement of a connection whose code nobody knows, if it was not looked up yet.
    #[must_use]
    pub fn unknown<'a>(&self, connection: &'a Connection) -> Option<&'a str> {
        if !connection.is_user_unknown() {
            return None;
        }
        let statement = connection.server_now()?.session.query.as_deref()?;
        let found = self.looked_up.get(&connection.process);
        let is_asked = found
            .is_some_and(|found| found.contains_key(statement) || found.len() >= MAX_OF_PROGRAM);
        (!is_asked && self.count < MAX_STATEMENTS).then_some(statement)
    }

    /// Forgets processes that are gone. What their programs were seen to do stays.
    pub(super) fn keep(&mut self, is_needed: impl Fn(ProcessKey) -> bool) {
        self.programs.retain(|&process, _| is_needed(process));
        let count = &mut self.count;
        self.looked_up.retain(|&process, found| {
            let stays = is_needed(process);
            *count -= if stays { 0 } else { found.len() };
            stays
        });
    }

    fn seen(&self, process: ProcessKey, statement: &str) -> Option<&Sender> {
        let program = self.programs.get(&process)?;
        let of = |program: u64| self.seen.get(&program)?.get(statement);
        of(program.command).or_else(|| of(program.binary))
    }
}

/// The statement that the latest request on a connection sent, by its server's word, if nothing has
/// moved on the connection since the server was asked. Not every request sends a statement: the
/// server's must have begun with this one.
fn statement_of_latest_request(connection: &Connection) -> Option<&str> {
    let side = connection.server_now()?;
    let began = side.at.before(side.session.query_age?);
    let requested = connection.requests.latest_at?;
    (began.after(EARLIER) >= requested).then_some(side.session.query.as_deref()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::{APP, World, server_lists, session};
    use crate::model::server::{Session, SessionState};
    use crate::model::{ConnectionId, StackId, WireState};
    use leak_stacks::Quality;

    fn frame(function: &str, line: u32) -> Frame {
        Frame {
            function: Some(function.into()),
            module: Some("/srv/shop".into()),
            file: Some("store.go".into()),
            line: Some(line),
            address: 1,
        }
    }

    fn stack(function: &str, line: u32) -> Stack {
        Stack {
            id: StackId::from(function),
            quality: Quality::Complete,
            truncation: None,
            language: Language::Go,
            frames: vec![frame(function, line)],
            culprit: Some(0),
            callers: Vec::new(),
        }
    }

    fn info(pid: u32, program: ProgramId) -> ProcessInfo {
        let key = ProcessKey { pid, ..APP };
        ProcessInfo { program: Some(program), ..ProcessInfo::gone(key, "shop") }
    }

    /// A world whose connection 1 sent something at second 20, of which the server says at second
    /// 30 that its last statement began so many seconds before.
    fn world(query_age: f64) -> World {
        let mut world = World::new();
        world.open(1, 10.0);
        world.request(1, 20.0, "pay", WireState::Idle);
        let word = Session {
            query_age: Some(Duration::from_secs_f64(query_age)),
            ..session(1, 20.0, SessionState::Idle)
        };
        world.hear(30.0, server_lists(vec![word]));
        world
    }

    fn learnt(world: &World, stacks: &[Stack]) -> Senders {
        let mut senders = Senders::default();
        senders.describe(&info(APP.pid, ProgramId { binary: 1, command: 2 }));
        let connection = world.table.get(ConnectionId(1)).unwrap();
        stacks.iter().for_each(|stack| senders.learn(connection, stack));
        senders
    }

    #[test]
    fn a_statement_is_that_of_the_latest_request_only_if_it_began_with_it() {
        let world_now = world(9.99);
        let connection = world_now.table.get(ConnectionId(1)).unwrap();
        let senders = learnt(&world_now, &[stack("pay", 7)]);
        let sender = senders.of(connection).unwrap();
        assert_eq!((sender.only(), sender.is_seen), (Some(&frame("pay", 7)), true));
        let before = world(10.5);
        let connection = before.table.get(ConnectionId(1)).unwrap();
        assert_eq!(learnt(&before, &[stack("pay", 7)]).of(connection), None);
        let mut later = world(9.99);
        later.request(1, 31.0, "refund", WireState::Idle);
        let connection = later.table.get(ConnectionId(1)).unwrap();
        assert_eq!(learnt(&later, &[stack("refund", 7)]).of(connection), None);
    }

    #[test]
    fn what_several_functions_send_is_nobodys() {
        let world = world(9.99);
        let connection = world.table.get(ConnectionId(1)).unwrap();
        let two = learnt(&world, &[stack("pay", 7), stack("refund", 9)]);
        let sender = two.of(connection).unwrap();
        assert_eq!((sender.only(), sender.code.len()), (None, 2));
        // The same function elsewhere is the same function, but the line is not known.
        let one = learnt(&world, &[stack("pay", 7), stack("pay", 9)]).of(connection).unwrap();
        assert_eq!(one.only().unwrap().line, None);
        // Nor is it known when one was seen and another one has the text.
        let mut mixed = learnt(&world, &[stack("pay", 7)]);
        mixed.found(APP, "SELECT ?", &[frame("pay", 6)]);
        assert_eq!(mixed.of(connection).unwrap().only(), Some(&frame("pay", 7)));
        mixed.found(APP, "SELECT ?", &[frame("pay", 6), frame("refund", 9)]);
        assert_eq!(mixed.of(connection).unwrap().only(), None);
    }

    #[test]
    fn what_one_process_does_the_others_of_its_program_do() {
        let world = world(9.99);
        let mut senders = learnt(&world, &[stack("pay", 7)]);
        let connection = world.table.get(ConnectionId(1)).unwrap();
        let mut of = |program| {
            senders.describe(&info(5, program));
            let process = ProcessKey { pid: 5, ..APP };
            let mut other = connection.clone();
            other.process = process;
            senders.of(&other).is_some()
        };
        assert!(of(ProgramId { binary: 1, command: 9 }));
        assert!(!of(ProgramId { binary: 3, command: 9 }));
    }

    #[test]
    fn statements_are_looked_up_once() {
        let mut world = World::new();
        world.open(1, 10.0);
        world.request(1, 15.0, "", WireState::Unknown);
        world.hear(30.0, server_lists(vec![session(1, 20.0, SessionState::Idle)]));
        let connection = world.table.get(ConnectionId(1)).unwrap();
        let mut senders = Senders::default();
        assert_eq!(senders.unknown(connection), Some("SELECT ?"));
        senders.found(APP, "SELECT ?", &[]);
        assert_eq!((senders.unknown(connection), senders.of(connection)), (None, None));
        senders.keep(|process| process != APP);
        assert_eq!(senders.unknown(connection), Some("SELECT ?"));
        world.request(1, 31.0, "pay", WireState::Unknown);
        world.hear(40.0, server_lists(vec![session(1, 30.0, SessionState::Idle)]));
        let connection = world.table.get(ConnectionId(1)).unwrap();
        assert_eq!(senders.unknown(connection), None, "its stack is known");
    }
}
