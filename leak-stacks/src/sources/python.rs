//! Python's sources.

use crate::sources::indented::{Line, Scope, first_line, name_at, scopes};
use crate::sources::literal::{Literal, assigned_name};
use crate::sources::scanner::Scanner;

/// The string literals of a source file. Those side by side are one.
pub(crate) fn literals(source: &str) -> Vec<Literal> {
    let mut reader = Reader { scanner: Scanner::new(source), depth: 0, found: Vec::new() };
    let mut continued = vec![false];
    reader.read(&mut continued);
    let lines: Vec<_> = source
        .split('\n')
        .enumerate()
        .map(|(at, text)| Line { text, is_continued: continued.get(at) == Some(&true) })
        .collect();
    let mut found = reader.found;
    for literal in &mut found {
        let scopes = scopes(&lines, literal.line, begins);
        literal.function = qualified(&scopes);
        let first = first_line(&lines, literal.line);
        // The values of parameters stand outside of their function.
        let is_head = begins(first.trim()).is_some();
        if is_head {
            literal.function = None;
        } else if !matches!(scopes.first(), Some(Scope::Function(_))) {
            literal.name = assigned_name(first);
        }
    }
    found
}

/// The function that a line of the text is in; only for lines outside of literals.
pub(crate) fn function_of_line(source: &str, number: u32) -> Option<String> {
    let mut continued = vec![false];
    Reader { scanner: Scanner::new(source), depth: 0, found: Vec::new() }.read(&mut continued);
    let lines: Vec<_> = source
        .split('\n')
        .enumerate()
        .map(|(at, text)| Line { text, is_continued: continued.get(at) == Some(&true) })
        .collect();
    qualified(&scopes(&lines, number, begins))
}

fn begins(line: &str) -> Option<Scope> {
    let function = line.strip_prefix("async ").unwrap_or(line).trim_start().strip_prefix("def ");
    match function {
        Some(rest) => name_at(rest.trim_start()).map(Scope::Function),
        None => name_at(line.strip_prefix("class ")?.trim_start()).map(Scope::Class),
    }
}

/// The name as Python qualifies it.
fn qualified(scopes: &[Scope]) -> Option<String> {
    let Some(Scope::Function(own)) = scopes.first() else { return None };
    let mut name = own.clone();
    for outer in scopes.get(1..).unwrap_or_default() {
        name = match outer {
            Scope::Class(class) => format!("{class}.{name}"),
            Scope::Function(function) => format!("{function}.<locals>.{name}"),
        };
    }
    Some(name)
}

struct Reader<'a> {
    scanner: Scanner<'a>,
    /// Open brackets.
    depth: usize,
    found: Vec<Literal>,
}

impl Reader<'_> {
    /// Reads everything, and says for each line whether it continues the one before.
    fn read(&mut self, continued: &mut Vec<bool>) {
        // A literal that may go on with the next one.
        let mut open: Option<Literal> = None;
        let mut is_name = false;
        while let Some(next) = self.scanner.rest().chars().next() {
            let (line, before) = (self.scanner.line(), self.scanner.at());
            if let Some((prefix, quote)) = opening(self.scanner.rest()).filter(|_| !is_name) {
                self.scanner.skip(prefix.len() + quote.len());
                let text = self.literal(prefix, quote);
                continued.resize(self.scanner.line() as usize, true);
                open = match (open.take(), text) {
                    (Some(mut one), Some(text)) if line == one.line || self.depth > 0 => {
                        one.text.push_str(&text);
                        Some(one)
                    }
                    (one, text) => {
                        self.found.extend(one);
                        text.map(|text| Literal { text, line, ..Literal::default() })
                    }
                };
                is_name = false;
                continue;
            }
            self.scanner.next();
            match next {
                '#' => self.scanner.skip_line(),
                '(' | '[' | '{' => self.depth += 1,
                ')' | ']' | '}' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
            let goes_on = next == '\\' && self.scanner.rest().starts_with('\n');
            if goes_on {
                self.scanner.next();
            }
            if self.scanner.line() as usize > continued.len() {
                continued.resize(self.scanner.line() as usize, goes_on || self.depth > 0);
            }
            is_name = next.is_alphanumeric() || next == '_';
            let ends = !(next.is_whitespace() || next == '#' || next == '\\')
                || next == '\n' && self.depth == 0 && !goes_on;
            if ends {
                self.found.extend(open.take());
            }
            debug_assert!(self.scanner.at() > before);
        }
        self.found.extend(open);
    }

    /// Reads a literal to its end; `None` when it is put together from others.
    fn literal(&mut self, prefix: &str, quote: &str) -> Option<String> {
        let is_raw = prefix.contains(['r', 'R']);
        let is_formatted = prefix.contains(['f', 'F']);
        let mut text = String::new();
        let mut is_whole = true;
        loop {
            if self.scanner.take(quote) {
                break;
            }
            match self.scanner.next() {
                None => return None,
                // Without its end it was none.
                Some('\n') if quote.len() == 1 => return None,
                Some('\\') if is_raw => {
                    text.push('\\');
                    text.extend(self.scanner.next());
                }
                Some('\\') => self.scanner.escape(&mut text),
                Some('{') if is_formatted => is_whole &= self.scanner.take("{"),
                Some(other) => text.push(other),
            }
        }
        is_whole.then_some(text)
    }
}

/// Prefix and quotes of the literal that begins here.
fn opening(rest: &str) -> Option<(&str, &str)> {
    let end = rest.find(|c: char| !"rRbBuUfF".contains(c))?;
    let (prefix, after) = rest.split_at(end.min(rest.len()));
    if prefix.len() > 2 {
        return None;
    }
    let quote = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quote| after.starts_with(quote))?;
    Some((prefix, quote))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = r#"
"""Says def nothing(): of functions."""
RESERVE = "update stock set reserved"
class Shop:
    LIST = ("select id "  # first
            "from orders")

    def pay(self, sql="not in pay"):
        """A comment
def wrong():
        """
        with self.pool as c:
            c.execute(
                "insert into payments "
                'values (%s)'
            )
            c.execute(f"select {x}" "tail")
            c.execute(r"a\d", "it's \
one")

        async def later():
            await c.execute('''select
    later''')
    def refund(self): c.execute("on the line of def")

def take(): return RESERVE
"#;

    #[test]
    fn functions_are_told_by_indentation() {
        let found = literals(SOURCE);
        let of = |text: &str| {
            let one = found.iter().find(|literal| literal.text == text);
            let one = one.unwrap_or_else(|| panic!("{text:?} in {found:#?}"));
            (one.function.as_deref(), one.name.as_deref(), one.line)
        };
        assert_eq!(of("update stock set reserved"), (None, Some("RESERVE"), 3));
        assert_eq!(of("select id from orders"), (None, Some("LIST"), 5));
        assert_eq!(of("not in pay"), (None, None, 8));
        assert_eq!(of("insert into payments values (%s)"), (Some("Shop.pay"), None, 14));
        assert_eq!(of("a\\d"), (Some("Shop.pay"), None, 18));
        assert_eq!(of("it's one"), (Some("Shop.pay"), None, 18));
        assert_eq!(of("select\n    later"), (Some("Shop.pay.<locals>.later"), None, 22));
        assert_eq!(of("on the line of def").0, None);
        assert!(!found.iter().any(|literal| literal.text.contains("{x}")));
    }

    #[test]
    fn whatever_the_text_is_it_has_an_end() {
        for end in (0..SOURCE.len()).filter(|&end| SOURCE.is_char_boundary(end)) {
            literals(&SOURCE[..end]);
            literals(&SOURCE[end..]);
        }
        for odd in ["f'", "rb'''", "é'ü'", "\\", "\\\n'", "#", ")))", "''''"] {
            literals(odd);
        }
    }
}
