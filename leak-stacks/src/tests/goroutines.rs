//! Goroutines of running programs.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::tests::{NOW, Running, key};
use crate::{GoroutineState, Quality, ReadWatchdog, Resolver};

/// Prints the runtime's own account of all goroutines once they are parked, and stays.
const PROGRAM: &str = r#"
package main

import (
	"os"
	"runtime"
	"time"
)

var never = make(chan int)

// Were it collected, the pipe would be closed.
var kept *os.File

//go:noinline
func waits(depth int) int {
	if depth > 0 {
		var frame [64]int
		frame[depth%64] = waits(depth - 1)
		return frame[(depth+1)%64]
	}
	return <-never
}

func main() {
	for i := 0; i < 300; i++ {
		go waits(i % 40)
	}
	go func() { select { case <-never: case <-time.After(time.Hour): } }()
	go func() { r, w, _ := os.Pipe(); kept = w; r.Read(make([]byte, 1)) }()
	time.Sleep(200 * time.Millisecond)
	runtime.GC()
	text := make([]byte, 1<<22)
	os.Stdout.Write(text[:runtime.Stack(text, true)])
	os.Stdout.Write([]byte("\nend\n"))
	time.Sleep(time.Hour)
}
"#;

fn started(directory: &Path, arguments: &[&str], cgo: &str) -> (Running, Vec<String>) {
    let source = match cgo {
        "1" => PROGRAM.replace("import (", "import \"C\"\nimport ("),
        _ => PROGRAM.to_owned(),
    };
    std::fs::write(directory.join("main.go"), source).unwrap();
    let built = Command::new("go")
        .current_dir(directory)
        .envs([("GO111MODULE", "off"), ("GOFLAGS", "-mod=mod"), ("CGO_ENABLED", cgo)])
        .env("GOCACHE", std::env::temp_dir().join("leak-stacks-go-cache"))
        .arg("build")
        .args(arguments)
        .args(["-o", "parked", "main.go"])
        .status();
    assert!(built.expect("this needs the Go toolchain; `cargo xtask setup` installs it").success());
    let program = Command::new(directory.join("parked")).stdout(Stdio::piped()).spawn();
    let mut running = Running(program.unwrap());
    let output = BufReader::new(running.0.stdout.take().unwrap());
    let lines = output.lines().map(Result::unwrap).take_while(|line| line != "end").collect();
    (running, lines)
}

/// The functions of each parked goroutine, innermost first, as the runtime tells them.
fn told(lines: &[String]) -> BTreeMap<u64, Vec<String>> {
    let mut all: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    let mut id = None;
    for line in lines {
        if let Some(rest) = line.strip_prefix("goroutine ") {
            let (number, state) = rest.split_once(" [").unwrap();
            id = Some(number.parse().unwrap()).filter(|_| !state.starts_with("running"));
        } else if let (Some(id), false) = (id, line.starts_with(['\t', '.']) || line.is_empty()) {
            let name = line.strip_prefix("created by ").map_or_else(
                || line.rsplit_once('(').unwrap().0,
                |creator| creator.split(" in goroutine").next().unwrap(),
            );
            all.entry(id).or_default().push(name.to_owned());
        }
    }
    all
}

#[track_caller]
fn assert_goroutines(arguments: &[&str], cgo: &str) {
    let directory = tempfile::tempdir().unwrap();
    let (running, lines) = started(directory.path(), arguments, cgo);
    let told = told(&lines);
    assert!(told.len() >= 300);
    let mut resolver = Resolver::new(Arc::<ReadWatchdog>::default());
    let program = resolver.go_program(key(running.pid()), NOW).expect("it is a Go program");
    let goroutines = program.goroutines(100_000).expect("they can be listed");
    assert!(!goroutines.are_cut);
    let by_id: BTreeMap<_, _> = goroutines.all.iter().map(|one| (one.id, one)).collect();
    let (mut checked, mut since) = (0, 0);
    for (id, mut functions) in told {
        let goroutine = by_id.get(&id).unwrap_or_else(|| panic!("{id} {functions:?}"));
        assert_eq!(goroutine.state, GoroutineState::Waiting);
        since += usize::from(goroutine.waiting_since.is_some());
        let creator = functions.pop().unwrap();
        let creator_seen = goroutine.created_at.and_then(|at| program.function(at));
        assert_eq!(creator_seen.as_deref(), Some(creator.as_str()));
        let raw = program.stack(goroutine).expect("it is parked");
        let resolved = resolver.resolve(&raw, NOW);
        assert_eq!(resolved.goroutine, Some(id));
        let stack = resolved.stack.unwrap();
        assert_eq!(stack.quality, Quality::Complete);
        let seen: Vec<_> = stack.frames.iter().filter_map(|frame| frame.function.clone()).collect();
        // The runtime leaves its own innermost functions out, and wrappers that compilers made.
        let first = seen.iter().position(|name| *name == functions[0]).unwrap();
        let whole: Vec<_> =
            seen[first..].iter().filter(|name| !name.starts_with("runtime.")).collect();
        let functions: Vec<_> =
            functions.iter().filter(|name| !name.starts_with("runtime.")).collect();
        assert!(whole.starts_with(&functions), "{whole:?} {functions:?}");
        assert!(whole.len() <= functions.len() + 1, "{whole:?} {functions:?}");
        checked += 1;
    }
    assert!(checked >= 300 && since >= 300, "{checked} {since}");
    let states: BTreeSet<_> =
        goroutines.all.iter().filter_map(|one| program.function(one.pc)).collect();
    assert!(states.contains("runtime.gopark"), "{states:?}");
    assert!(program.goroutines(10).unwrap().are_cut);
    let first = &goroutines.all[0];
    drop(running);
    assert!(program.goroutines(10).is_none() && program.stack(first).is_none(), "it has ended");
}

#[test]
fn goroutines() {
    assert_goroutines(&[], "0");
}

#[test]
fn goroutines_of_a_stripped_position_independent_program_with_c() {
    assert_goroutines(&["-buildmode=pie", "-ldflags", "-s -w"], "1");
}

#[test]
fn goroutines_of_a_stripped_program() {
    assert_goroutines(&["-ldflags", "-s -w"], "0");
}

#[test]
fn another_program_has_none() {
    let mut resolver = Resolver::new(Arc::<ReadWatchdog>::default());
    assert!(resolver.go_program(key(std::process::id()), NOW).is_none());
}
