//! A recording of a real run, made by an older build, still gives the verdicts that it gave.
//!
//! `recordings/shop.rec`: a Python program loses connections, leaves transactions open, and keeps a
//! connection that the server has closed; some of that it gives up again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Map, Value};

fn recording(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings").join(name)
}

fn replayed(format: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_pgsocktrace"))
        .env_clear()
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
