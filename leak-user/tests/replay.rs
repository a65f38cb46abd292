//! A recording of a real run, made by an older build, still gives the verdicts that it gave.
//!
//! `recordings/shop.rec`: a Python program loses connections, leaves transactions open, and keeps a
//! connection that the server has closed; some of that it gives up again.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::{Map, Value};

fn recording(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings").join(name)
}

fn replayed(format: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_pgsocktrace"))
        .env_clear()
        // The text has the time of day of whoever reads it.
        .env("TZ", "UTC")
        .args(["replay", "--output", format])
        .arg(recording("shop.rec"))
        .output()
        .expect("the binary runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("reports are UTF-8")
}

#[test]
fn the_text_is_the_same_byte_for_byte() {
    let expected = fs::read_to_string(recording("shop.txt")).unwrap();
    let text = replayed("text");
    let differs = text.lines().zip(expected.lines()).find(|(line, expected)| line != expected);
    assert_eq!(differs, None);
    assert_eq!(text, expected);
}

/// What a terminal of this name and of 80 columns gets.
fn terminal(name: &str) -> String {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let mut screen = File::from(openpt(flags).expect("a pseudo-terminal"));
    grantpt(&screen).expect("it is ours");
    unlockpt(&screen).expect("it is ours");
    let own_side = ioctl_tiocgptpeer(&screen, flags).expect("its other side");
    let size = Winsize { ws_row: 30, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&own_side, size).expect("it has a size");
    let mut child = Command::new(env!("CARGO_BIN_EXE_pgsocktrace"))
        .args(["replay", "--color", "never"])
        .arg(recording("shop.rec"))
        .env_clear()
        .env("TERM", name)
        .stdin(Stdio::null())
        .stdout(own_side)
        .spawn()
        .expect("the binary runs");
    let mut bytes = Vec::new();
    // When the last one who writes has gone, a terminal says so by an error.
    while let Ok(1..) = screen.by_ref().take(4096).read_to_end(&mut bytes) {}
    assert!(child.wait().expect("it ends").success());
    String::from_utf8(bytes).expect("reports are UTF-8")
}

/// What a terminal of 80 columns gets is redrawn in place, and the report stays at the end.
#[test]
fn on_a_terminal_the_view_is_redrawn_and_nothing_is_wider() {
    let text = terminal("xterm");
    assert!(text.matches("\x1b[J").count() > 10, "{text}");
    let mut plain = String::new();
    for (index, part) in text.split("\x1b[").enumerate() {
        let end = if index == 0 { None } else { part.find(|one: char| one.is_ascii_alphabetic()) };
        plain.push_str(part.get(end.map_or(0, |end| end + 1)..).unwrap_or_default());
    }
    let is_too_wide = |line: &&str| line.trim_end().chars().count() > 80;
    assert_eq!(plain.lines().find(is_too_wide), None);
    let (_, report) = text.rsplit_once("\x1b[J").unwrap();
    assert!(report.contains("\nLEAK 1  ") && report.contains("load_invoice"), "{report}");
    assert!(!terminal("dumb").contains('\x1b'), "a dumb terminal gets lines");
}

/// Fields may be added; those that the older build knew keep their values.
#[test]
fn the_findings_are_the_same() {
    let expected = fs::read_to_string(recording("shop.findings.json")).unwrap();
    let expected: Vec<Map<String, Value>> = serde_json::from_str(&expected).unwrap();
    let report: Value = serde_json::from_str(&replayed("json")).unwrap();
    let findings = report["findings"].as_array().unwrap();
    assert_eq!(findings.len(), expected.len());
    for (finding, expected) in findings.iter().zip(&expected) {
        for (field, value) in expected {
            assert_eq!(&finding[field], value, "{field} of {}", finding["id"]);
        }
    }
}
