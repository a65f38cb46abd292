//! Sources of languages that put functions in braces: JavaScript, TypeScript, PHP.

use crate::sources::header::{Block, arrow_name, block};
use crate::sources::literal::{Literal, assigned_name};
use crate::sources::scanner::Scanner;

/// Longest code that is remembered before a brace.
const MAX_HEADER: usize = 2048;

/// Which of these languages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    JavaScript,
    Php,
}

/// The string literals of a source file.
pub(crate) fn literals(source: &str, kind: Kind) -> Vec<Literal> {
    let mut reader = Reader::new(source, kind);
    reader.read();
    reader.found
}

/// The function that a line of a source file is in where it begins.
pub(crate) fn function_of_line(source: &str, kind: Kind, number: u32) -> Option<String> {
    let mut reader = Reader::new(source, kind);
    reader.read();
    reader.functions.get((number as usize).checked_sub(1)?)?.clone()
}

struct Reader<'a> {
    scanner: Scanner<'a>,
    kind: Kind,
    /// The blocks that are open, the outermost first.
    blocks: Vec<Block>,
    /// Code since the last brace or semicolon.
    header: String,
    /// The function that each line begins in.
    functions: Vec<Option<String>>,
    found: Vec<Literal>,
}

impl<'a> Reader<'a> {
    fn new(source: &'a str, kind: Kind) -> Self {
        let mut scanner = Scanner::new(source);
        if kind == Kind::Php {
            scanner.skip_past("<?php");
        }
        let (blocks, found) = (Vec::new(), Vec::new());
        let functions = vec![None; scanner.line() as usize];
        Self { scanner, kind, blocks, header: String::new(), functions, found }
    }

    fn read(&mut self) {
        while let Some(next) = self.scanner.next() {
            let line = self.scanner.line();
            let rest = self.scanner.rest();
            match next {
                '/' if rest.starts_with('/') => self.scanner.skip_line(),
                '/' if rest.starts_with('*') => self.scanner.skip_past("*/"),
                '#' if self.kind == Kind::Php && !rest.starts_with('[') => self.scanner.skip_line(),
                '/' if self.kind == Kind::JavaScript && self.may_be_regex() => self.skip_regex(),
                '?' if self.kind == Kind::Php && rest.starts_with('>') => {
                    self.scanner.skip_past("<?");
                }
                '\'' | '"' => self.take_quoted(next, line),
                '`' if self.kind == Kind::JavaScript => self.take_quoted(next, line),
                '<' if self.kind == Kind::Php && rest.starts_with("<<") => self.take_heredoc(line),
                '{' => {
                    let begins = block(&self.header, self.kind == Kind::Php);
                    self.blocks.push(begins);
                    self.header.clear();
                }
                '}' => {
                    self.blocks.pop();
                    self.header.clear();
                }
                ';' => self.header.clear(),
                other if self.header.len() < MAX_HEADER => self.header.push(other),
                _ => {}
            }
            let lines = self.scanner.line() as usize;
            if lines > self.functions.len() {
                let function = self.function();
                self.functions.resize(lines, function);
            }
        }
    }

    /// The innermost function with a name.
    fn function(&self) -> Option<String> {
        let named = |block: &Block| match block {
            Block::Function(name) => name.clone(),
            Block::Class(_) | Block::Other => None,
        };
        // A function without braces.
        if let Some((head, body)) = self.header.rsplit_once("=>")
            && goes_on(body)
            && let Some(name) = arrow_name(head)
        {
            return Some(name);
        }
        let at = self.blocks.iter().rposition(|block| named(block).is_some())?;
        let name = named(self.blocks.get(at)?)?;
        let class = at.checked_sub(1).and_then(|outer| self.blocks.get(outer));
        Some(match class {
            Some(Block::Class(class)) if self.kind == Kind::Php => format!("{class}::{name}"),
            Some(Block::Class(class)) => format!("{class}.{name}"),
            _ => name,
        })
    }

    fn add(&mut self, text: String, line: u32) {
        let function = self.function();
        let is_inside = self.blocks.iter().any(|block| matches!(block, Block::Function(_)));
        let last = self.header.lines().next_back().unwrap_or_default();
        let name = if is_inside { None } else { assigned_name(last) };
        self.found.push(Literal { text, line, function, name });
        self.header.push('"');
    }

    fn take_quoted(&mut self, quote: char, line: u32) {
        let (mut text, mut is_whole) = (String::new(), true);
        loop {
            match self.scanner.next() {
                None => return,
                Some(next) if next == quote => break,
                Some('\\') if self.kind == Kind::Php && quote == '\'' => {
                    let next = self.scanner.next();
                    if !matches!(next, Some('\'' | '\\')) {
                        text.push('\\');
                    }
                    text.extend(next);
                }
                Some('\\') => self.scanner.escape(&mut text),
                // Without its end it was none.
                Some('\n') if self.kind == Kind::JavaScript && quote != '`' => return,
                Some(other) => {
                    is_whole &= !self.is_inserted(quote, other);
                    text.push(other);
                }
            }
        }
        if is_whole {
            self.add(text, line);
        } else {
            self.header.push('"');
        }
    }

    /// Whether a value is inserted at a character of a literal.
    fn is_inserted(&self, quote: char, character: char) -> bool {
        let next = self.scanner.rest().chars().next();
        let begins_name = next.is_some_and(|c| c.is_ascii_alphabetic() || c == '_' || c == '{');
        match self.kind {
            Kind::JavaScript => quote == '`' && character == '$' && next == Some('{'),
            Kind::Php if quote == '\'' => false,
            Kind::Php => character == '$' && begins_name || character == '{' && next == Some('$'),
        }
    }

    /// `<<<SQL` and `<<<'SQL'`: the text on the lines that follow.
    fn take_heredoc(&mut self, line: u32) {
        let first = self.scanner.rest().lines().next().unwrap_or_default();
        let word = first.trim_start_matches('<').trim();
        let is_raw = word.starts_with('\'');
        let word = word.trim_matches(['\'', '"']).to_owned();
        let is_word = !word.is_empty() && word.chars().all(|c| c.is_alphanumeric() || c == '_');
        if !is_word {
            return;
        }
        self.scanner.skip_past("\n");
        let mut text = String::new();
        while !self.scanner.rest().is_empty() {
            let end = self.scanner.rest().find('\n').map_or(self.scanner.rest().len(), |at| at + 1);
            let body = self.scanner.rest().get(..end).unwrap_or_default();
            let indent = body.len() - body.trim_start().len();
            if body.trim_start().starts_with(&word) {
                self.scanner.skip(indent + word.len());
                break;
            }
            text.push_str(body);
            self.scanner.skip(end);
        }
        let after = |at: usize| text.get(at + 1..).and_then(|rest| rest.chars().next());
        let inserts = text.match_indices('$').any(|(at, _)| {
            after(at).is_some_and(|c| c.is_ascii_alphabetic() || c == '_' || c == '{')
        });
        if is_raw || !inserts {
            self.add(text, line);
        }
    }

    /// Whether a slash begins a regular expression: where a value may stand.
    fn may_be_regex(&self) -> bool {
        let before = self.header.trim_end();
        before.is_empty()
            || before.ends_with(['(', ',', '=', ':', '[', '!', '&', '|', '?', '>', '+'])
            || before.ends_with("return")
    }

    fn skip_regex(&mut self) {
        let mut in_class = false;
        while let Some(next) = self.scanner.next() {
            match next {
                '\\' => drop(self.scanner.next()),
                '[' => in_class = true,
                ']' => in_class = false,
                '/' if !in_class => break,
                '\n' => break,
                _ => {}
            }
        }
    }
}

/// Whether code is still the expression that it begins with: it is on one line or in brackets.
fn goes_on(code: &str) -> bool {
    let mut depth = 0_i32;
    code.trim_start().chars().all(|character| {
        match character {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            _ => {}
        }
        depth >= 0 && (character != '\n' || depth > 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = r#"
const RESERVE = 'update stock set reserved';
// it's a comment {
class Store {
  async pay(id) {
    if (id) { await this.c.query("insert into payments", [id]); }
    this.c.query(`select ${id} from t`);
    x = y.replace(/['"{]/g, '');
    await pool.connect(async (c) => { c.query(`select
       deep`) });
  }
}
const refund = async (c) => c.query('without braces');
const give = (c) => c.query(
  'in brackets')
run('after it')
exports.take = function () {
  return RESERVE;
};
register(function () { q('in nobody') })
"#;

    const PAGE: &str = r#"it's html <?php
const RESERVE = 'update stock set reserved';
class Store {
    # it's a comment {
    public function pay(int $id): ?array {
        $this->c->query("insert into payments values ($1)");
        $this->c->query("select $id from t");
        $f = function ($c) use ($id) { $c->query(<<<SQL
            select deep
            SQL); };
        return self::RESERVE;
    }
}
function list_all($c) { return $c->query('select it\'s'); }
"#;

    fn of<'a>(found: &'a [Literal], text: &str) -> (Option<&'a str>, Option<&'a str>, u32) {
        let one = found.iter().find(|literal| literal.text.trim() == text);
        let one = one.unwrap_or_else(|| panic!("{text:?} in {found:#?}"));
        (one.function.as_deref(), one.name.as_deref(), one.line)
    }

    #[test]
    fn javascript() {
        let found = literals(SCRIPT, Kind::JavaScript);
        assert_eq!(of(&found, "update stock set reserved"), (None, Some("RESERVE"), 2));
        assert_eq!(of(&found, "insert into payments"), (Some("Store.pay"), None, 6));
        assert_eq!(of(&found, "select\n       deep"), (Some("Store.pay"), None, 9));
        assert_eq!(of(&found, "without braces").0, Some("refund"));
        assert_eq!(of(&found, "in brackets").0, Some("give"));
        assert_eq!(of(&found, "after it").0, None);
        assert_eq!(of(&found, "in nobody").0, None);
        assert!(!found.iter().any(|literal| literal.text.contains("from t")));
        let function = function_of_line(SCRIPT, Kind::JavaScript, 18);
        assert_eq!(function.as_deref(), Some("take"));
    }

    #[test]
    fn php() {
        let found = literals(PAGE, Kind::Php);
        assert_eq!(of(&found, "update stock set reserved"), (None, Some("RESERVE"), 2));
        assert_eq!(of(&found, "insert into payments values ($1)").0, Some("Store::pay"));
        assert_eq!(of(&found, "select deep").0, Some("Store::pay"));
        assert_eq!(of(&found, "select it's").0, Some("list_all"));
        assert!(!found.iter().any(|literal| literal.text.contains("from t")));
        assert_eq!(function_of_line(PAGE, Kind::Php, 11).as_deref(), Some("Store::pay"));
    }

    #[test]
    fn whatever_the_text_is_it_has_an_end() {
        for (source, kind) in [(SCRIPT, Kind::JavaScript), (PAGE, Kind::Php)] {
            for end in (0..source.len()).filter(|&end| source.is_char_boundary(end)) {
                literals(&source[..end], kind);
                literals(&source[end..], kind);
            }
        }
        for odd in ["}}}", "<?php <<<", "<?php <<<'A\nA", "`${", "/", "/[", "é=>é", "?>"] {
            literals(odd, Kind::JavaScript);
            literals(odd, Kind::Php);
        }
    }
}
