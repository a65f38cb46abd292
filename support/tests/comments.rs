//! Comments keep to the width that rustfmt sets for code; stable rustfmt does not look at them.
//!
//! Rows of tables may be wider: Markdown has no way to break them.

use std::{fs, io, path::Path};

use support::workspace::root;

/// What `rustfmt.toml` says.
const WIDTH: usize = 100;

/// Directories that hold no sources of ours.
const FOREIGN: [&str; 3] = ["target", ".git", "node_modules"];

#[test]
fn comments_are_not_too_wide() -> io::Result<()> {
    let mut wide = Vec::new();
    visit(root(), &mut wide)?;
    assert!(
        wide.is_empty(),
        "{} comments are wider than {WIDTH} columns:\n{}",
        wide.len(),
        wide.join("\n")
    );
    Ok(())
}

/// Looks for wide comments in every Rust file below a directory.
fn visit(directory: &Path, wide: &mut Vec<String>) -> io::Result<()> {
    let mut paths =
        fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        if path.is_dir() {
            if !FOREIGN.iter().any(|name| path.ends_with(name)) {
                visit(&path, wide)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path)?;
            let shown = path.strip_prefix(root()).unwrap_or(&path).display();
            for (index, line) in text.lines().enumerate() {
                if line.chars().count() > WIDTH && has_comment(line) && !is_table_row(line) {
                    wide.push(format!("{shown}:{}", index + 1));
                }
            }
        }
    }
    Ok(())
}

/// Whether a line is a row of a table in a documentation comment.
fn is_table_row(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("//! | ") || line.starts_with("/// | ")
}

/// Whether a line is a comment, or ends with one: two slashes outside of a string.
fn has_comment(line: &str) -> bool {
    line.match_indices("//").any(|(at, _)| {
        let before = &line[..at];
        before.trim().is_empty()
            || (before.ends_with(' ') && before.matches('"').count().is_multiple_of(2))
    })
}

#[test]
fn strings_are_no_comments() {
    assert!(has_comment("    /// What it is."));
    assert!(has_comment("let x = 1; // one"));
    assert!(!has_comment("let x = \"https://example.com\";"));
    assert!(!has_comment("let x = \"a // b\";"));
}
