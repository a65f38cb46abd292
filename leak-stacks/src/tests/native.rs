//! Programs in C.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crate::Timestamp;
use crate::tests::{NOW, Running, assert_in_order, resolve};
use crate::{Quality, Resolver, Stack};

pub(crate) const C_PROGRAM: &str = r#"
#include <unistd.h>
#include <stdlib.h>
static volatile int sink;
__attribute__((noinline)) int leaks(int fd) { char b[200]; int r = read(fd, b, 200); sink = b[0]; return r + 1; }
__attribute__((noinline)) int handler(int fd) { char *p = alloca(fd + 99); sink = *p; int r = leaks(fd); return r + sink; }
__attribute__((noinline)) int serve(int fd) { int r = handler(fd) * 3; sink = r; return r; }
int main(void) { int r = serve(0); return r + sink; }
"#;

pub(crate) fn compiled_c(directory: &Path) -> std::path::PathBuf {
    let (source, program) = (directory.join("shop.c"), directory.join("shop"));
    fs::write(&source, C_PROGRAM).unwrap();
    let status = Command::new("gcc")
        .args(["-O2", "-g", "-fomit-frame-pointer", "-o"])
        .args([&program, &source])
        .status()
        .unwrap();
    assert!(status.success());
    program
}

const C_CHAIN: [&str; 5] = ["read", "leaks", "handler", "serve", "main"];

#[track_caller]
fn assert_is_c_chain(stack: &Stack) {
    assert_in_order(stack, &C_CHAIN);
    assert_in_order(stack, &["main", "_start"]);
    assert_eq!(stack.quality, Quality::Complete);
    let culprit = &stack.frames[stack.culprit.unwrap()];
    assert_eq!(culprit.function.as_deref(), Some("leaks"));
    assert!(culprit.file.as_deref().unwrap().ends_with("shop.c"));
    assert_eq!(culprit.line, Some(5));
}

#[test]
fn c_without_frame_pointers() {
    let directory = tempfile::tempdir().unwrap();
    let running = Running::start(&mut Command::new(compiled_c(directory.path())));
    let raw = running.blocked_in(&[libc::SYS_read]);
    let (_, resolved) = resolve(&raw);
    assert_is_c_chain(&resolved.stack.unwrap());
    assert_eq!(resolved.goroutine, None);
}

#[test]
fn the_binary_was_deleted_before_first_sight() {
    let directory = tempfile::tempdir().unwrap();
    let program = compiled_c(directory.path());
    let running = Running::start(&mut Command::new(&program));
    let raw = running.blocked_in(&[libc::SYS_read]);
    fs::remove_file(&program).unwrap();
    // What lies in its place now must not be taken for it.
    fs::copy("/bin/true", &program).unwrap();
    assert_is_c_chain(&resolve(&raw).1.stack.unwrap());
}

#[test]
fn the_process_exited_after_first_sight() {
    let directory = tempfile::tempdir().unwrap();
    let running = Running::start(&mut Command::new(compiled_c(directory.path())));
    let raw = running.blocked_in(&[libc::SYS_read]);
    let mut resolver = Resolver::new(Arc::default());
    resolver.first_sight(raw.process, NOW).unwrap();
    drop(running);
    drop(directory);
    assert_is_c_chain(&resolver.resolve(&raw, Timestamp(60_000_000_000)).stack.unwrap());
}

#[test]
fn two_runs_of_a_program_have_the_same_stack() {
    let directory = tempfile::tempdir().unwrap();
    let program = compiled_c(directory.path());
    let mut resolver = Resolver::new(Arc::default());
    let mut stacks = (0..2).map(|_| {
        let running = Running::start(&mut Command::new(&program));
        let raw = running.blocked_in(&[libc::SYS_read]);
        resolver.resolve(&raw, NOW).stack.unwrap()
    });
    let (first, second) = (stacks.next().unwrap(), stacks.next().unwrap());
    assert!(Arc::ptr_eq(&first, &second));
}

#[test]
fn code_of_a_program_executed_later_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let program = compiled_c(directory.path());
    let script = format!("read line; exec {}", program.display());
    let mut running = Running::start(Command::new("sh").args(["-c", &script]));
    let shell = running.blocked_in(&[libc::SYS_read]);
    let mut resolver = Resolver::new(Arc::default());
    resolver.first_sight(shell.process, NOW).unwrap();
    let mut input = running.0.stdin.take().unwrap();
    input.write_all(b"go\n").unwrap();
    let executable = format!("/proc/{}/exe", running.pid());
    while fs::read_link(&executable).unwrap() != program {
        std::thread::sleep(Duration::from_millis(5));
    }
    let raw = running.blocked_in(&[libc::SYS_read]);
    assert_eq!(raw.process, shell.process, "executing a program keeps the process's identity");
    let later = Timestamp(2_000_000_000);
    assert_is_c_chain(&resolver.resolve(&raw, later).stack.unwrap());
}

const C_HOST: &str = r#"
#include <dlfcn.h>
#include <unistd.h>
int main(int n, char **a) {
    char b; if (read(0, &b, 1) != 1) return 1;
    int (*leaks)(void) = (int (*)(void))dlsym(dlopen(a[1], RTLD_NOW), "leaks");
    return leaks() + 1;
}
"#;

const C_LIBRARY: &str = r#"
#include <sys/socket.h>
static volatile int sink;
int leaks(void) { int s[2]; char b[9]; socketpair(AF_UNIX, SOCK_STREAM, 0, s); int r = recv(s[0], b, 9, 0); sink = r; return r; }
"#;

#[test]
fn a_library_loaded_after_first_sight_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let (host, library) = (directory.path().join("host"), directory.path().join("plugin.so"));
    for (source, target, options) in
        [(C_HOST, &host, &["-O2"][..]), (C_LIBRARY, &library, &["-O2", "-shared", "-fPIC"])]
    {
        let file = target.with_extension("c");
        fs::write(&file, source).unwrap();
        let mut gcc = Command::new("gcc");
        gcc.args(options).arg("-fomit-frame-pointer").arg("-o").args([target, &file]);
        assert!(gcc.status().unwrap().success());
    }
    let mut running = Running::start(Command::new(host).arg(&library));
    let before = running.blocked_in(&[libc::SYS_read]);
    let mut resolver = Resolver::new(Arc::default());
    resolver.first_sight(before.process, NOW).unwrap();
    running.0.stdin.take().unwrap().write_all(b"x").unwrap();
    let raw = running.blocked_in(&[libc::SYS_recvfrom]);
    // Too soon to read the mappings again: what can be had is had, and not taken for whole.
    let early = resolver.resolve(&raw, NOW).stack.unwrap();
    assert_eq!(early.quality, Quality::Truncated);
    let late = resolver.resolve(&raw, Timestamp(2_000_000_000)).stack.unwrap();
    assert_in_order(&late, &["recv", "leaks", "main", "_start"]);
    assert_eq!(late.quality, Quality::Complete);
}
