//! Masks the literals of SQL statements.
//!
//! Source: PostgreSQL's documentation, "Lexical Structure". The server cuts statements off at
//! `track_activity_query_size`, so a literal may be unterminated: it then ends with the text.

use std::iter::Peekable;
use std::str::CharIndices;

/// Most characters of a masked statement.
const LONGEST: usize = 500;

/// Stands for what was cut off.
pub(super) const ELLIPSIS: char = '…';

/// Replaces a literal.
const MASK: char = '?';

/// Replaces every literal by `?`, removes comments, collapses white space, and cuts the statement
/// to 500 characters.
///
/// Whether a backslash escapes a quote depends on a session setting that is not visible here: where
/// it would make a difference, the rest of the statement is masked.
#[must_use]
pub fn mask(statement: &str) -> String {
    let mut masker = Masker {
        text: statement,
        characters: statement.char_indices().peekable(),
        masked: String::new(),
        length: 0,
        gap: false,
        cut: false,
    };
    masker.run();
    if masker.cut {
        masker.masked.push(ELLIPSIS);
    }
    masker.masked
}

struct Masker<'a> {
    text: &'a str,
    characters: Peekable<CharIndices<'a>>,
    masked: String,
    /// Characters in `masked`.
    length: usize,
    /// White space or a comment comes before what is written next.
    gap: bool,
    /// The statement is longer than `masked` may be.
    cut: bool,
}

impl Masker<'_> {
    fn run(&mut self) {
        while let Some(&(at, character)) = self.characters.peek() {
            if self.cut {
                return;
            }
            match character {
                _ if character.is_whitespace() => {
                    self.characters.next();
                    self.gap = true;
                }
                '-' if self.rest(at).starts_with("--") => self.line_comment(),
                '/' if self.rest(at).starts_with("/*") => self.block_comment(),
                '\'' => self.literal(false),
                '"' => self.quoted_name(),
                '$' => self.dollar(at),
                '0'..='9' => self.number(),
                '.' if self.digit_follows(at) => self.number(),
                _ if starts_word(character) => self.word(at),
                _ => {
                    self.characters.next();
                    self.put(character);
                }
            }
        }
    }

    fn rest(&self, at: usize) -> &str {
        self.text.get(at..).unwrap_or_default()
    }

    fn digit_follows(&self, at: usize) -> bool {
        self.rest(at).chars().nth(1).is_some_and(|next| next.is_ascii_digit())
    }

    fn put(&mut self, character: char) {
        if self.length >= LONGEST {
            self.cut = true;
            return;
        }
        if std::mem::take(&mut self.gap) && !self.masked.is_empty() {
            self.masked.push(' ');
            self.length += 1;
        }
        self.masked.push(character);
        self.length += 1;
    }

    fn skip(&mut self, count: usize) {
        for _ in 0..count {
            self.characters.next();
        }
    }

    fn skip_to_end(&mut self) {
        self.characters.by_ref().for_each(drop);
    }

    /// `-- …`
    fn line_comment(&mut self) {
        while self.characters.next_if(|&(_, c)| c != '\n' && c != '\r').is_some() {}
        self.gap = true;
    }

    /// `/* … /* … */ … */`
    fn block_comment(&mut self) {
        let mut depth = 0_u32;
        while let Some((at, _)) = self.characters.next() {
            if self.rest(at).starts_with("/*") {
                depth += 1;
                self.characters.next();
            } else if self.rest(at).starts_with("*/") {
                depth -= 1;
                self.characters.next();
                if depth == 0 {
                    break;
                }
            }
        }
        self.gap = true;
    }

    /// `'…'`, from its first quote.
    fn literal(&mut self, escapes: bool) {
        self.characters.next();
        self.put(MASK);
        while let Some((_, character)) = self.characters.next() {
            match character {
                '\\' if escapes => {
                    self.characters.next();
                }
                '\\' if self.characters.peek().is_some_and(|&(_, next)| next == '\'') => {
                    return self.skip_to_end();
                }
                // A doubled quote is a quote within the literal.
                '\'' if self.characters.next_if(|&(_, next)| next == '\'').is_none() => return,
                _ => {}
            }
        }
    }

    /// `"…"`: a name.
    fn quoted_name(&mut self) {
        self.characters.next();
        self.put('"');
        while let Some((_, character)) = self.characters.next() {
            if self.cut {
                return;
            }
            self.put_in_name(character);
            if character == '"' {
                match self.characters.next_if(|&(_, next)| next == '"') {
                    Some(_) => self.put('"'),
                    None => return,
                }
            }
        }
    }

    /// Names may contain line breaks, which would break reports that are read line by line.
    fn put_in_name(&mut self, character: char) {
        self.put(if character.is_control() { ' ' } else { character });
    }

    /// `$1` is a parameter; `$$ … $$` and `$tag$ … $tag$` are literals.
    fn dollar(&mut self, at: usize) {
        let rest = self.rest(at);
        let tag = rest.get(1..).and_then(|after| after.split_once('$')).map(|(tag, _)| tag);
        let tag = tag.filter(|tag| {
            let mut characters = tag.chars();
            characters.next().is_none_or(starts_word) && characters.all(|c| c != '$' && in_word(c))
        });
        let Some(tag) = tag else {
            self.characters.next();
            self.put('$');
            while let Some((_, digit)) = self.characters.next_if(|&(_, c)| c.is_ascii_digit()) {
                self.put(digit);
            }
            return;
        };
        let delimiter = format!("${tag}$");
        let body = rest.get(delimiter.len()..).unwrap_or_default();
        let length = body.split(&delimiter).next().unwrap_or_default().chars().count();
        let delimiters = delimiter.chars().count();
        self.put(MASK);
        self.skip(2 * delimiters + length);
    }

    /// Anything that begins like a number and continues like one or like a name.
    fn number(&mut self) {
        self.put(MASK);
        let mut last = '0';
        while let Some((_, character)) = self.characters.next_if(|&(_, next)| {
            in_word(next) || next == '.' || (matches!(next, '+' | '-') && matches!(last, 'e' | 'E'))
        }) {
            last = character;
        }
    }

    /// A name or keyword, or the prefix of a literal.
    fn word(&mut self, at: usize) {
        let rest = self.rest(at);
        let end = rest.find(|c| !in_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let length = word.chars().count();
        let is_prefix = |prefixes: &str| length == 1 && prefixes.contains(word);
        if after.starts_with('\'') && is_prefix("eEbBxXnN") {
            let escapes = is_prefix("eE");
            self.skip(length);
            self.literal(escapes);
        } else if after.starts_with("&'") && is_prefix("uU") {
            self.skip(length + 1);
            self.literal(false);
        } else {
            let word = word.to_owned();
            word.chars().for_each(|character| self.put(character));
            self.skip(length);
        }
    }
}

fn starts_word(character: char) -> bool {
    character.is_alphabetic() || character == '_' || !character.is_ascii()
}

fn in_word(character: char) -> bool {
    starts_word(character) || character.is_ascii_digit() || character == '$'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_masked() {
        for (statement, masked) in [
            ("SELECT 1", "SELECT ?"),
            ("SELECT * FROM t1 WHERE a = 'x'", "SELECT * FROM t1 WHERE a = ?"),
            ("SELECT 'it''s', 'b'", "SELECT ?, ?"),
            ("SELECT E'it\\'s secret', 2", "SELECT ?, ?"),
            ("SELECT e'\\\\', 'x'", "SELECT ?, ?"),
            ("SELECT x'ff', B'01', n'x', N'y'", "SELECT ?, ?, ?, ?"),
            ("SELECT U&'d\\0061t' UESCAPE '!'", "SELECT ? UESCAPE ?"),
            ("SELECT date'2020-01-02'", "SELECT date?"),
            ("SELECT 'a'\n  'b'", "SELECT ? ?"),
            ("SELECT -1.5e-10 + .5, 0x1F, 1_000, 5.", "SELECT -? + ?, ?, ?, ?"),
            ("SELECT a[1:2], b.c2", "SELECT a[?:?], b.c2"),
            ("SELECT $1, $23", "SELECT $1, $23"),
            ("DO $$ BEGIN secret; END $$", "DO ?"),
            ("SELECT $a$ $b$ 'x' $$ $a$, 1", "SELECT ?, ?"),
            ("SELECT $größe$secret$größe$ FROM t", "SELECT ? FROM t"),
            ("SELECT foo$bar$baz", "SELECT foo$bar$baz"),
            ("SELECT typee'secret'", "SELECT typee?"),
        ] {
            assert_eq!(mask(statement), masked, "{statement}");
        }
    }

    #[test]
    fn names_stay() {
        for (statement, masked) in [
            ("SELECT \"a 'b' 1\" FROM \"x\"\"y\"", "SELECT \"a 'b' 1\" FROM \"x\"\"y\""),
            ("SELECT U&\"d\\0061t\"", "SELECT U&\"d\\0061t\""),
            ("SELECT größe, _x FROM straße", "SELECT größe, _x FROM straße"),
            ("SELECT a - b, c->>d", "SELECT a - b, c->>d"),
            ("SELECT \"a\nb\"", "SELECT \"a b\""),
        ] {
            assert_eq!(mask(statement), masked, "{statement}");
        }
    }

    #[test]
    fn comments_and_white_space_go() {
        assert_eq!(mask("  SELECT\n\t a -- secret 'x\n, b"), "SELECT a , b");
        assert_eq!(mask("SELECT/* 'a /* b */ $$ */1"), "SELECT ?");
        assert_eq!(mask("SELECT 1 /* secret"), "SELECT ?");
        assert_eq!(mask("/* only */"), "");
    }

    #[test]
    fn a_literal_that_is_cut_off_ends_with_the_text() {
        for statement in [
            "SELECT 'secret",
            "SELECT E'secret\\",
            "SELECT $$secret",
            "SELECT $t$secret$t",
            "SELECT 'secret''",
            "SELECT x'5ec2e7",
            "SELECT U&'secret",
            "SELECT 5",
        ] {
            assert_eq!(mask(statement), "SELECT ?", "{statement}");
        }
        assert_eq!(mask("SELECT \"name"), "SELECT \"name");
        assert_eq!(mask("SELECT $"), "SELECT $");
        assert_eq!(mask("SELECT U&"), "SELECT U&");
    }

    #[test]
    fn where_a_backslash_may_escape_the_quote_the_rest_is_masked() {
        assert_eq!(mask("SELECT 'it\\' secret', 'b'"), "SELECT ?");
        assert_eq!(mask("SELECT 'C:\\x', b"), "SELECT ?, b");
    }

    #[test]
    fn what_is_long_is_cut() {
        let long = "SELECT ".to_owned() + &"größe, ".repeat(10_000);
        let masked = mask(&long);
        assert!(masked.ends_with('…'));
        assert!(masked.chars().count() <= LONGEST + 2, "{}", masked.chars().count());
        let name = format!("SELECT \"{}\"", "x".repeat(10_000));
        assert!(mask(&name).chars().count() <= LONGEST + 2);
        let word = format!("SELECT {}", "x".repeat(1000));
        assert!(mask(&word).chars().count() <= LONGEST + 2);
    }

    /// Pieces of SQL in every order: the inside of a literal never shows, and nothing panics.
    #[test]
    fn no_secret_shows() {
        const PIECES: [&str; 14] = [
            "'SECRET'",
            "E'SE\\'CRET'",
            "$$SECRET$$",
            "$a$SECRET$a$",
            "x'SECRET'",
            "U&'SECRET'",
            "--SECRET\n",
            "/*SECRET*/",
            " a ",
            "\"b\"",
            "$1",
            "12",
            "(",
            "größe",
        ];
        for first in PIECES {
            for second in PIECES {
                for third in PIECES {
                    let statement = format!("{first} {second} {third}");
                    let masked = mask(&statement);
                    assert!(!masked.contains("CRET"), "{statement} became {masked}");
                    for end in (0..statement.len()).filter(|&end| statement.is_char_boundary(end)) {
                        let masked = mask(&statement[..end]);
                        assert!(!masked.contains("CRET"), "{statement} became {masked}");
                    }
                }
            }
        }
    }
}
