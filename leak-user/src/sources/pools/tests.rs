//! Real programs' pools, against what they say of them themselves.

mod broken;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use leak_stacks::Resolver;
use serde::Deserialize;

use super::*;
use crate::sources::procfs::identify;

/// What the program says.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    from: u64,
    to: u64,
    open: u64,
    in_use: u64,
    idle: u64,
    max: u64,
    wait_count: u64,
    wait_nanos: u64,
    #[serde(default)]
    taken: Vec<u64>,
}

impl State {
    fn is(&self, numbers: &PoolNumbers) -> bool {
        (self.open, self.in_use, self.idle, Some(self.max).filter(|max| *max > 0))
            == (numbers.open, numbers.in_use(), numbers.idle, numbers.max_open)
            && numbers.wait_count.is_none_or(|count| count == self.wait_count)
            && numbers.wait_nanoseconds.is_none_or(|waited| waited == self.wait_nanos)
    }
}

/// Which pool a program has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    DatabaseSql,
    /// Of pgx 4: there is no source of pgx 5 to build.
    PgxPool,
}

impl Which {
    fn kind(self) -> &'static str {
        match self {
            Self::DatabaseSql => "database/sql",
            Self::PgxPool => "pgxpool",
        }
    }

    fn file(self) -> &'static str {
        match self {
            Self::DatabaseSql => "sql.go",
            Self::PgxPool => "pgx.go",
        }
    }
}

struct Witness {
    which: Which,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    resolver: Resolver,
    reader: PoolReader,
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Witness {
    fn start(which: Which, directory: &Path, arguments: &[&str]) -> Self {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sources/pools/tests/witness");
        let program: PathBuf = directory.join("witness");
        let built = Command::new("go")
            .current_dir(directory)
            .envs([("GO111MODULE", "off"), ("GOFLAGS", "-mod=mod"), ("CGO_ENABLED", "0")])
            // Where Debian has the sources of packages.
            .env("GOPATH", "/usr/share/gocode")
            .env("GOCACHE", std::env::temp_dir().join("leak-stacks-go-cache"))
            .arg("build")
            .args(arguments)
            .arg("-o")
            .args([&program, &sources.join("main.go"), &sources.join(which.file())])
            .status();
        let Ok(built) = built else {
            panic!("this needs the Go toolchain; `cargo xtask setup` installs it")
        };
        assert!(built.success(), "`cargo xtask setup` installs what this needs");
        let child = Command::new(&program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (resolver, reader) = (Resolver::new(Arc::default()), PoolReader::default());
        let mut witness = Self { which, child, input, output, resolver, reader };
        // The goroutine by which a pool is found has to have run once.
        let until = Instant::now() + Duration::from_secs(20);
        let process = identify(witness.child.id()).unwrap();
        let is_found = |witness: &mut Self| {
            let read = witness.reader.read(&mut witness.resolver, process);
            read.is_some_and(|read| !read.pools.is_empty())
        };
        while !is_found(&mut witness) {
            assert!(Instant::now() < until, "its pool is not found");
            thread::sleep(Duration::from_millis(10));
        }
        witness
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line
    }

    fn tell(&mut self, command: &str) -> State {
        writeln!(self.input, "{command}").unwrap();
        serde_json::from_str(&self.line()).unwrap()
    }

    /// Its only pool.
    fn read(&mut self) -> (Timestamp, Timestamp, FoundPool) {
        let process = identify(self.child.id()).unwrap();
        let read = self.reader.read(&mut self.resolver, process);
        let mut read = read.expect("its memory can be read");
        assert_eq!(read.pools.len(), 1, "{read:?}");
        let pool = read.pools.remove(0);
        assert_eq!(pool.kind, self.which.kind());
        (read.began, clock::now(), pool)
    }

    /// Checks the pool against what the program has just said; `waiting` callers wait.
    #[track_caller]
    fn assert_is(&mut self, state: &State, waiting: impl Into<Option<u64>>) {
        let (_, _, pool) = self.read();
        let numbers = pool.numbers.expect("it is at rest");
        assert!(state.is(&numbers), "{state:?} {numbers:?}");
        assert_eq!(numbers.waiting, waiting.into());
        let counts = self.which == Which::DatabaseSql;
        assert_eq!(numbers.wait_count.is_some(), counts);
        let taken = pool.sockets.iter().filter(|(_, taken)| *taken).map(|(inode, _)| *inode);
        let mut taken: Vec<_> = taken.collect();
        let mut expected = state.taken.clone();
        taken.sort_unstable();
        expected.sort_unstable();
        assert_eq!(taken, expected);
        assert_eq!(pool.sockets.len() as u64, state.open);
    }
}

const STRIPPED: &[&str] = &["-ldflags", "-s -w"];
const STRIPPED_AND_MOVED: &[&str] = &["-buildmode=pie", "-ldflags", "-s -w"];

#[track_caller]
fn assert_reads_database_sql(arguments: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    let mut witness = Witness::start(Which::DatabaseSql, directory.path(), arguments);
    let none = witness.tell("stats");
    witness.assert_is(&none, 0);
    // More than a small map has room for, with statements among them.
    for command in ["take 1", "take 12", "prepare", "give 4", "take 7", "give 12", "take 2"] {
        let state = witness.tell(command);
        witness.assert_is(&state, 0);
    }
    witness.tell("limit 0");
    let state = witness.tell("take 140");
    assert!(state.open > 140);
    witness.assert_is(&state, 0);
    witness.tell("give 140");
    witness.tell("limit 20");
    let open = witness.tell("stats").in_use;
    witness.tell(&format!("take {}", 20 - open));
    let state = witness.tell("wait 27");
    assert_eq!((state.in_use, state.idle, state.wait_count), (20, 0, 27));
    witness.assert_is(&state, 27);
}

#[track_caller]
fn assert_reads_pgxpool(arguments: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    let mut witness = Witness::start(Which::PgxPool, directory.path(), arguments);
    let one = witness.tell("stats");
    assert_eq!((one.open, one.idle), (1, 1));
    witness.assert_is(&one, 0);
    for command in ["take 1", "take 12", "give 4", "take 7", "give 12", "take 16"] {
        let state = witness.tell(command);
        witness.assert_is(&state, 0);
    }
    let state = witness.tell("wait 27");
    assert_eq!((state.in_use, state.idle), (20, 0));
    witness.assert_is(&state, 27);
    // Who gave up keeps a place in the queue, so that it does not tell any more who waits.
    let state = witness.tell("cancel 1");
    witness.assert_is(&state, None);
}

#[test]
fn a_program_s_own_numbers_of_database_sql() {
    assert_reads_database_sql(&[]);
    assert_reads_database_sql(STRIPPED_AND_MOVED);
}

#[test]
fn a_program_s_own_numbers_of_pgxpool() {
    assert_reads_pgxpool(&[]);
    assert_reads_pgxpool(STRIPPED_AND_MOVED);
}

/// The pool changes all the time; what is read must have been true while it was read.
#[track_caller]
fn assert_is_read_right_or_not_at_all(which: Which) {
    const LENGTH: u64 = 2000;
    let directory = tempfile::tempdir().unwrap();
    let mut witness = Witness::start(which, directory.path(), STRIPPED);
    let mut readings = Vec::new();
    writeln!(witness.input, "load {LENGTH}").unwrap();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(LENGTH) {
        readings.push(witness.read());
        thread::sleep(Duration::from_millis(1));
    }
    let mut states: Vec<State> = Vec::new();
    loop {
        match witness.line().as_str() {
            "end\n" => break,
            line => states.push(serde_json::from_str(line).unwrap()),
        }
    }
    let exact = readings.iter().filter_map(|(from, to, pool)| Some((from, to, pool.numbers?)));
    let exact: Vec<_> = exact.collect();
    let changes = states.len();
    for (from, to, numbers) in &exact {
        let first = states.partition_point(|state| state.to < from.0);
        let mut at_the_time = states[first..].iter().take_while(|state| state.from <= to.0);
        assert!(at_the_time.any(|state| state.is(numbers)), "{from:?} {to:?} {numbers:?}");
    }
    assert!(changes > 1000 && exact.len() * 2 > readings.len(), "{} {changes}", exact.len());
}

#[test]
fn a_database_sql_that_changes() {
    assert_is_read_right_or_not_at_all(Which::DatabaseSql);
}

#[test]
fn a_pgxpool_that_changes() {
    assert_is_read_right_or_not_at_all(Which::PgxPool);
}

#[test]
fn ten_thousand_goroutines_hide_no_pool() {
    let directory = tempfile::tempdir().unwrap();
    let mut witness = Witness::start(Which::DatabaseSql, directory.path(), STRIPPED);
    for command in ["take 3", "park 10000"] {
        let state = witness.tell(command);
        witness.assert_is(&state, 0);
    }
}

#[test]
fn another_program_has_no_pools() {
    let process = identify(std::process::id()).unwrap();
    let mut resolver = Resolver::new(Arc::default());
    assert_eq!(PoolReader::default().read(&mut resolver, process), None);
}
