//! Texts in real programs, and the functions that have them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::tests::{NOW, Running, key};
use crate::{Resolver, TextMatch, TextUse, TextUser, WantedTexts};

/// Texts that are wanted as they are.
pub(super) struct Exactly(pub(super) &'static [&'static str]);

impl WantedTexts for Exactly {
    fn may_begin(&self, start: &str) -> bool {
        self.0.iter().any(|wanted| start.starts_with(wanted.get(..5).unwrap()))
    }

    fn beginning(&self, text: &str) -> Vec<TextMatch> {
        let wanted = self.0.iter().enumerate().filter(|(_, wanted)| text.starts_with(**wanted));
        let found = |(index, wanted): (usize, &&str)| TextMatch {
            wanted: index,
            lengths: wanted.len()..=wanted.len(),
        };
        wanted.map(found).collect()
    }
}

const WANTED: Exactly = Exactly(&[
    "SELECT one FROM alone",
    "SELECT two FROM shared",
    "SELECT three FROM a_table",
    "SELECT four FROM nowhere",
    "SELECT five FROM start_up",
]);

const C_PROGRAM: &str = r#"
#include <stdio.h>
#include <unistd.h>
static const char *volatile sink;
static const char *const table[] = {"SELECT three FROM a_table", "SELECT one FROM alone and more"};
__attribute__((noinline)) void alone(void) { sink = "SELECT one FROM alone"; }
__attribute__((noinline)) void shared_a(void) {
    sink = "SELECT two FROM shared";
}
__attribute__((noinline)) void shared_b(void) { puts("x"); sink = "SELECT two FROM shared"; }
__attribute__((noinline)) void tabled(int i) { sink = table[i ? 1 : 0]; }
int main(int c, char **v) { alone(); shared_a(); shared_b(); tabled(c > 1); puts(sink); pause(); return 0; }
"#;

const GO_PROGRAM: &str = r#"
package main

import (
	"fmt"
	"os"
	"time"
)

var held = "SELECT three FROM a_table"
var texts = map[string]string{"five": "SELECT five FROM start_up", os.Args[0]: "x"}
var sink string

//go:noinline
func alone() { sink = "SELECT one FROM alone" }

//go:noinline
func sharedA() {
	sink = "SELECT two FROM shared"
}

//go:noinline
func sharedB() { fmt.Println("x"); sink = "SELECT two FROM shared" }

//go:noinline
func longer() { sink = "SELECT one FROM alone and more" }

//go:noinline
func tabled() { fmt.Println(held) }

//go:noinline
func mapped() { sink = texts["five"] }

func main() {
	alone(); sharedA(); sharedB(); tabled(); mapped(); longer()
	time.Sleep(time.Hour)
}
"#;

pub(super) fn uses(program: &mut Command, wanted: &dyn WantedTexts) -> Vec<TextUse> {
    let running = Running::start(program);
    let process = key(running.0.id());
    // Its binaries are mapped once it has begun to wait.
    while !fs::read_to_string(format!("/proc/{}/stat", process.pid)).unwrap().contains(") S ") {
        std::thread::yield_now();
    }
    Resolver::new(Arc::default()).uses_of_texts(process, wanted, NOW)
}

/// The functions that have a text, each with its line.
pub(super) fn users(uses: &[TextUse], wanted: usize, user: TextUser) -> Vec<(String, u32)> {
    let its = uses.iter().filter(|one| one.wanted == wanted && one.user == user && one.is_whole);
    let mut users: Vec<_> =
        its.map(|one| (one.frame.function.clone().unwrap(), one.frame.line.unwrap_or(0))).collect();
    users.sort();
    users.dedup();
    users
}

fn compiled(directory: &Path, source: &str, text: &str, command: &[&str]) -> PathBuf {
    fs::write(directory.join(source), text).unwrap();
    let status = Command::new(command[0])
        .current_dir(directory)
        .env("GO111MODULE", "off")
        .args(&command[1..])
        .args(["-o", "program", source])
        .status()
        .unwrap();
    assert!(status.success());
    directory.join("program")
}

#[track_caller]
fn assert_users(found: &[TextUse], wanted: usize, expected: &[(&str, u32)]) {
    let expected: Vec<_> =
        expected.iter().map(|(name, line)| ((*name).to_owned(), *line)).collect();
    assert_eq!(users(found, wanted, TextUser::Application), expected, "{found:#?}");
}

#[test]
fn c() {
    for options in [&["gcc", "-O2", "-g"][..], &["gcc", "-O1", "-g", "-no-pie", "-fno-pie"]] {
        let directory = tempfile::tempdir().unwrap();
        let program = compiled(directory.path(), "shop.c", C_PROGRAM, options);
        let found = uses(&mut Command::new(program), &WANTED);
        assert_users(&found, 0, &[("alone", 6)]);
        assert_users(&found, 1, &[("shared_a", 8), ("shared_b", 10)]);
        assert_users(&found, 3, &[]);
    }
}

#[test]
fn go() {
    for options in [
        &["go", "build"][..],
        &["go", "build", "-ldflags", "-s -w"],
        &["go", "build", "-buildmode=pie"],
    ] {
        let directory = tempfile::tempdir().unwrap();
        let program = compiled(directory.path(), "main.go", GO_PROGRAM, options);
        let found = uses(&mut Command::new(program), &WANTED);
        assert_users(&found, 0, &[("main.alone", 15)]);
        assert_users(&found, 1, &[("main.sharedA", 19), ("main.sharedB", 23)]);
        assert_users(&found, 2, &[("main.tabled", 29)]);
        assert_users(&found, 4, &[]);
        let initialiser = users(&found, 4, TextUser::Initialiser);
        assert!(!initialiser.is_empty(), "{found:#?}");
    }
}
