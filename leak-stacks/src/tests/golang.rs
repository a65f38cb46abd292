//! Programs in Go.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::tests::{Running, assert_in_order, resolve};
use crate::{Language, Quality};

const GO_PROGRAM: &str = r#"
package main

import (
	"fmt"
	"net"
)

type Shop struct{ conn net.Conn }

// Were it collected, the socket would be closed.
var kept net.Conn

//go:noinline
func handler(s *Shop) int { var b [70000]byte; return s.Leaks(b[:]) * 2 }

// Small enough to be inlined into its caller.
func (s *Shop) Leaks(b []byte) int { n, _ := s.conn.Write(b); return n + 1 }

func main() {
	l, _ := net.Listen("tcp", "127.0.0.1:0")
	go func() { kept, _ = l.Accept() }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil { panic(err) }
	// A blocking descriptor, so that a full socket blocks in the system call itself.
	f, _ := c.(*net.TCPConn).File()
	fd := int(f.Fd())
	done := make(chan int)
	go func() { done <- serve(fd, &Shop{c}) }()
	fmt.Println(<-done)
}
"#;

const GO_SERVE: &str = r#"
package main

import "syscall"

//go:noinline
func serve(fd int, s *Shop) int {
	syscall.SetNonblock(fd, false)
	for { handler(s) }
}
"#;

/// Builds the program.
pub(crate) fn compiled_go(directory: &Path, arguments: &[&str]) -> std::path::PathBuf {
    fs::write(directory.join("main.go"), GO_PROGRAM).unwrap();
    fs::write(directory.join("serve.go"), GO_SERVE).unwrap();
    let status = Command::new("go")
        .current_dir(directory)
        .env("GO111MODULE", "off")
        .env("GOFLAGS", "-mod=mod")
        .arg("build")
        .args(arguments)
        .args(["-o", "shop", "main.go", "serve.go"])
        .status()
        .expect("this needs the Go toolchain; `cargo xtask setup` installs it");
    assert!(status.success());
    directory.join("shop")
}

#[track_caller]
fn assert_go(arguments: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    let program = compiled_go(directory.path(), arguments);
    let running = Running::start(&mut Command::new(program));
    let raw = running.blocked_in(&[libc::SYS_write]);
    let (_, resolved) = resolve(&raw);
    let stack = resolved.stack.unwrap();
    let chain = [
        "Syscall6",
        "syscall.write",
        "internal/poll.ignoringEINTRIO",
        "internal/poll.(*FD).Write",
        "net.(*conn).Write",
        "main.(*Shop).Leaks",
        "main.handler",
        "main.serve",
        "main.main.func2",
        "runtime.goexit",
    ];
    assert_in_order(&stack, &chain);
    assert_eq!(stack.quality, Quality::Complete);
    assert_eq!(stack.language, Language::Go);
    let culprit = &stack.frames[stack.culprit.unwrap()];
    assert_eq!(culprit.function.as_deref(), Some("main.(*Shop).Leaks"));
    assert!(culprit.file.as_deref().unwrap().ends_with("main.go"), "{culprit:?}");
    assert_eq!(culprit.line, Some(18));
    // The runtime's own goroutines have the first numbers.
    assert!(
        resolved.goroutine.is_some_and(|id| (2..1000).contains(&id)),
        "{:?}",
        resolved.goroutine
    );
}

#[test]
fn go() {
    assert_go(&[]);
}

#[test]
fn go_stripped() {
    assert_go(&["-ldflags", "-s -w"]);
}

#[test]
fn go_position_independent_and_stripped() {
    assert_go(&["-buildmode=pie", "-ldflags", "-s -w"]);
}
