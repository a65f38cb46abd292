//! Statements as servers show them, to be found again among the texts of programs.
//!
//! A server shows a statement with its values where the driver has put them in, or with `$1` where
//! the values were sent apart. The program's text has `$1`, `?`, `:name`, `@name`, `%s` or
//! `%(name)s` in their place. So both are brought into the same shape: literals, parameters and
//! placeholders become `?`, comments and superfluous white space go.

use std::ops::RangeInclusive;

use leak_stacks::{TextMatch, WantedTexts};

use crate::sources::postgres::masking::{ELLIPSIS, mask};

/// Most places that are tried for the end of a statement.
const MAX_TRIES: usize = 256;
/// How many characters before the place where a statement should end it is looked for, too.
const BEFORE: usize = 8;
/// Shortest statement of which only the beginning is known.
const SHORTEST_CUT: usize = 40;

/// Statements to look for.
#[derive(Debug, Default)]
pub struct WantedStatements(Vec<Wanted>);

#[derive(Debug)]
struct Wanted {
    shape: String,
    /// How many characters that has.
    length: usize,
    /// The first word.
    word: String,
    /// The statement goes on.
    is_cut: bool,
}

impl WantedStatements {
    /// Statements that were masked.
    pub fn new<'a>(masked: impl IntoIterator<Item = &'a str>) -> Self {
        Self(masked.into_iter().map(Wanted::new).collect())
    }
}

impl Wanted {
    fn new(masked: &str) -> Self {
        let (statement, is_cut) = match masked.strip_suffix(ELLIPSIS) {
            // What was cut in the middle of a parameter's number.
            Some(cut) => (cut.trim_end_matches(|c: char| c.is_ascii_digit() || c == '$'), true),
            None => (masked, false),
        };
        let shape = without_numbers(statement.trim_end_matches([';', ' ']));
        let word = first_word(&shape).to_owned();
        Self { length: shape.chars().count(), shape, word, is_cut }
    }

    /// How long `text` must be to be this statement.
    fn lengths(&self, text: &str) -> Option<RangeInclusive<usize>> {
        if self.is_cut {
            let begins = self.length >= SHORTEST_CUT && shape(text).starts_with(&self.shape);
            return begins.then_some(self.shape.len()..=usize::MAX);
        }
        let ends: Vec<usize> =
            text.char_indices().map(|(at, _)| at).skip(1).chain([text.len()]).collect();
        let reaches = |end: &usize| {
            let shape = text.get(..*end).map(shape).unwrap_or_default();
            shape.chars().count() >= self.length
        };
        let first = ends.partition_point(|end| !reaches(end));
        let tries = ends.get(first.saturating_sub(BEFORE)..)?.iter().take(MAX_TRIES);
        let is_it = |end: &&usize| text.get(..**end).is_some_and(|text| shape(text) == self.shape);
        let mut fitting = tries.skip_while(|end| !is_it(end)).take_while(is_it).copied();
        let shortest = fitting.next()?;
        Some(shortest..=fitting.last().unwrap_or(shortest))
    }
}

impl WantedTexts for WantedStatements {
    fn may_begin(&self, start: &str) -> bool {
        let start = start.trim_start();
        // What comes after a comment is not known yet.
        start.starts_with("--")
            || start.starts_with("/*")
            || self.0.iter().any(|wanted| first_word(start) == wanted.word)
    }

    fn beginning(&self, text: &str) -> Vec<TextMatch> {
        let matches = |(wanted, statement): (usize, &Wanted)| {
            Some(TextMatch { wanted, lengths: statement.lengths(text)? })
        };
        self.0.iter().enumerate().filter_map(matches).collect()
    }
}

fn first_word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphabetic()).unwrap_or(text.len());
    text.get(..end).unwrap_or_default()
}

/// The shape of a program's text.
fn shape(text: &str) -> String {
    let masked = mask(&with_values(text));
    without_numbers(masked.trim_end_matches([';', ' ']))
}

/// `$1` becomes `?`.
fn without_numbers(masked: &str) -> String {
    let mut shape = String::with_capacity(masked.len());
    let mut rest = masked;
    while let Some(at) = rest.find('$') {
        let (before, after) = rest.split_at(at);
        let number = after.get(1..).unwrap_or_default();
        let end = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
        shape.push_str(before);
        shape.push_str(if end > 0 { "?" } else { "$" });
        rest = number.get(end..).unwrap_or_default();
    }
    shape.push_str(rest);
    shape
}

/// `text` with a number in place of each placeholder of a driver or of `printf`.
fn with_values(text: &str) -> String {
    const VALUE: char = '0';
    let mut with_values = String::with_capacity(text.len());
    let mut before = ' ';
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let length = match character {
            '%' => formatted(rest),
            ':' | '@' if !in_name(before) && before != character => named(rest),
            _ => None,
        };
        let taken = length.unwrap_or(character.len_utf8());
        match (length, character) {
            // An escaped percent sign.
            (Some(_), '%') if rest.starts_with("%%") => with_values.push('%'),
            (Some(_), _) => with_values.push(VALUE),
            (None, _) => with_values.push(character),
        }
        before = character;
        rest = rest.get(taken..).unwrap_or_default();
    }
    with_values
}

/// Length of `%s`, `%(name)s`, `%5d` or `%%` at the beginning of `text`.
fn formatted(text: &str) -> Option<usize> {
    let after = text.get(1..)?;
    if after.starts_with('%') {
        return Some(2);
    }
    let conversion = match after.strip_prefix('(') {
        Some(name) => name.get(name.find(')')? + 1..)?,
        None => after.trim_start_matches(|c: char| c.is_ascii_digit() || "-+ #.lhzjt".contains(c)),
    };
    let kind = conversion.chars().next()?;
    let end = text.len() - conversion.len() + 1;
    let goes_on = text.get(end..).and_then(|rest| rest.chars().next()).is_some_and(in_name);
    ("sdiufgxvq".contains(kind) && !goes_on).then_some(end)
}

/// Length of `:name` or `@name` at the beginning of `text`.
fn named(text: &str) -> Option<usize> {
    let name = text.get(1..)?;
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let length = name.find(|c| !in_name(c)).unwrap_or(name.len());
    begins.then_some(1 + length)
}

fn in_name(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn lengths(sent: &str, text: &str) -> Option<RangeInclusive<usize>> {
        let wanted = WantedStatements::new([mask(sent).as_str()]);
        let found = wanted.may_begin(text).then(|| wanted.beginning(text))?;
        found.into_iter().next().map(|found| found.lengths)
    }

    #[test]
    fn texts_are_found_whatever_their_placeholders_are() {
        for (sent, text) in [
            ("SELECT 1", "SELECT 1"),
            ("BEGIN", "BEGIN"),
            ("SELECT a FROM t WHERE b = $1 AND c=$2", "SELECT a FROM t WHERE b = ? AND c=?"),
            ("SELECT a FROM t WHERE b = $1", "SELECT a FROM t WHERE b = $1"),
            ("SELECT a FROM t WHERE b = 'x''y'", "SELECT a FROM t WHERE b = %s"),
            ("SELECT a FROM t WHERE b = 5", "SELECT a FROM t WHERE b = %(number)s"),
            ("SELECT a FROM t WHERE b = 5", "SELECT a FROM t WHERE b = %lld"),
            ("SELECT a FROM t WHERE b = $1::int", "SELECT a FROM t WHERE b = :number::int"),
            ("SELECT a FROM t WHERE b = $1", "SELECT a FROM t WHERE b = @number"),
            ("SELECT 'x' LIKE 'a%'", "SELECT %s LIKE 'a%%'"),
            ("-- name: Get :one\nSELECT a\n  FROM t", "-- name: Get :one\nSELECT a\n  FROM t"),
            ("\n\tSELECT a\n\tFROM t", "\n\tSELECT a\n\tFROM t"),
            ("SELECT a FROM t;", "SELECT a FROM t"),
        ] {
            let found = lengths(sent, text);
            assert!(found.is_some_and(|found| found.contains(&text.len())), "{sent}: {text}");
        }
    }

    #[test]
    fn other_texts_are_others() {
        for (sent, text) in [
            ("SELECT a FROM t", "SELECT b FROM t"),
            ("SELECT a FROM t", "SELECT a FROM"),
            ("SELECT a FROM t", "select a from t"),
            ("SELECT a FROM t WHERE b = $1", "SELECT a FROM t WHERE b = c"),
            ("SELECT a FROM t WHERE b = $1", "SELECT a FROM t WHERE "),
            ("SELECT a FROM t", ""),
            ("", "SELECT a FROM t"),
        ] {
            assert_eq!(lengths(sent, text), None, "{sent}: {text}");
        }
    }

    /// Texts of some compilers lie one behind the other.
    #[test]
    fn where_a_text_ends_is_told() {
        let sent = "SELECT a FROM t WHERE b = $1";
        let found = lengths(sent, "SELECT a FROM t WHERE b = $1SELECT c FROM u").unwrap();
        assert_eq!(found, 28..=28);
        let found = lengths(sent, "SELECT a FROM t WHERE b = $1 ; AND c").unwrap();
        assert_eq!(found, 28..=31);
        let found = lengths("SELECT a FROM t", "SELECT a FROM tables").unwrap();
        assert_eq!(found, 15..=15);
        let secret = lengths("SELECT 'abc'", "SELECT 'abc' FROM t").unwrap();
        assert!(secret.contains(&12) && !secret.contains(&14));
    }

    #[test]
    fn of_a_statement_that_was_cut_the_beginning_counts() {
        let long = format!("SELECT {}", "column_name, ".repeat(100));
        assert!(lengths(&long, &format!("{long} more FROM t")).is_some());
        assert!(lengths(&long, "SELECT column_name, column").is_none());
        let short = WantedStatements::new(["SELECT a…"]);
        assert!(short.beginning("SELECT a, b FROM t").is_empty());
    }

    #[test]
    fn nothing_in_a_text_is_too_odd() {
        const PIECES: [&str; 12] =
            ["%", "%(", "%(é)", "%s", ":", "::", "@", "$", "$1", "é", "'", "/*"];
        let wanted = WantedStatements::new(["SELECT ?"]);
        for first in PIECES {
            for second in PIECES {
                for third in PIECES {
                    wanted.beginning(&format!("SELECT {first}{second}{third}"));
                    wanted.beginning(&format!("{first}{second}{third}"));
                }
            }
        }
    }
}
