//! Programs in Python, as far as their native frames go.

use std::process::Command;

use crate::tests::{Running, assert_in_order, resolve};
use crate::{Language, Quality};

/// Python's own executable, not a wrapper script.
fn python_program() -> String {
    let mut command = Command::new("python3");
    let output = command
        .args(["-c", "import sys; print(sys.executable)"])
        .output()
        .expect("this needs python3; `cargo xtask setup` installs it");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn python() {
    let python = python_program();
    let code =
        "import socket\ndef leaks(s): return s.recv(9)\na, b = socket.socketpair()\nleaks(a)";
    let running = Running::start(Command::new(python).args(["-c", code]));
    let raw = running.blocked_in(&[libc::SYS_recvfrom]);
    let (_, resolved) = resolve(&raw);
    let stack = resolved.stack.unwrap();
    assert_in_order(&stack, &["recv", "_PyEval_EvalFrameDefault", "_start"]);
    assert_eq!(stack.quality, Quality::Complete);
    assert_eq!(stack.language, Language::Python);
    assert_eq!(stack.culprit, None, "native frames of an interpreter are nobody's fault");
}
