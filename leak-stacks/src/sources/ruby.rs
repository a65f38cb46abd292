//! Ruby's sources.

use crate::sources::indented::{Line, Scope, first_line, name_at, scopes};
use crate::sources::literal::{Literal, assigned_name};
use crate::sources::scanner::Scanner;

/// The string literals of a source file.
pub(crate) fn literals(source: &str) -> Vec<Literal> {
    let (mut found, continued) = read(source);
    let lines = lines(source, &continued);
    for literal in &mut found {
        let first = first_line(&lines, literal.line);
        let own = begins(first.trim());
        let scopes = scopes(&lines, literal.line, begins);
        // A method may stand on one line.
        literal.function = function(own.as_ref().or(scopes.first()));
        if literal.function.is_none() {
            literal.name = assigned_name(first);
        }
    }
    found
}

/// The function that a line of the text is in.
pub(crate) fn function_of_line(source: &str, number: u32) -> Option<String> {
    let (_, continued) = read(source);
    function(scopes(&lines(source, &continued), number, begins).first())
}

fn lines<'a>(source: &'a str, continued: &[bool]) -> Vec<Line<'a>> {
    let of = |(at, text)| Line { text, is_continued: continued.get(at) == Some(&true) };
    source.split('\n').enumerate().map(of).collect()
}

fn function(scope: Option<&Scope>) -> Option<String> {
    match scope {
        Some(Scope::Function(name)) => Some(name.clone()),
        Some(Scope::Class(_)) | None => None,
    }
}

fn begins(line: &str) -> Option<Scope> {
    if let Some(rest) = line.strip_prefix("def ") {
        let rest = rest.trim_start();
        return name_at(rest.strip_prefix("self.").unwrap_or(rest)).map(Scope::Function);
    }
    let rest = line.strip_prefix("class ").or_else(|| line.strip_prefix("module "))?;
    name_at(rest.trim_start()).map(Scope::Class)
}

/// The literals, and which lines begin within one.
fn read(source: &str) -> (Vec<Literal>, Vec<bool>) {
    let mut scanner = Scanner::new(source);
    let (mut found, mut continued) = (Vec::new(), vec![false]);
    // Those whose bodies begin on the next line.
    let mut here: Vec<(u32, Heredoc<'_>)> = Vec::new();
    let mut before = ' ';
    while let Some(next) = scanner.next() {
        let line = scanner.line();
        match next {
            '#' => scanner.skip_line(),
            '\'' | '"' if before != '$' && before != '?' => {
                if let Some(text) = quoted(&mut scanner, next, next == '"') {
                    found.push(Literal { text, line, ..Literal::default() });
                }
                continued.resize(scanner.line() as usize, true);
            }
            '<' if scanner.rest().starts_with('<') => {
                if let Some(heredoc) = Heredoc::at(scanner.rest().get(1..).unwrap_or_default()) {
                    scanner.skip(1 + heredoc.length);
                    here.push((line, heredoc));
                }
            }
            '\n' => {
                continued.resize(line as usize, false);
                for (line, heredoc) in here.drain(..) {
                    let text = heredoc.body(&mut scanner);
                    found.extend(text.map(|text| Literal { text, line, ..Literal::default() }));
                    continued.resize(scanner.line() as usize - 1, true);
                    continued.push(false);
                }
            }
            _ => {}
        }
        before = next;
    }
    (found, continued)
}

/// Reads to the closing quote; `None` when the text is put together.
fn quoted(scanner: &mut Scanner<'_>, quote: char, is_double: bool) -> Option<String> {
    let (mut text, mut is_whole) = (String::new(), true);
    loop {
        match scanner.next()? {
            next if next == quote => break,
            '\\' => scanner.escape(&mut text),
            '#' if is_double && scanner.rest().starts_with('{') => is_whole = false,
            other => text.push(other),
        }
    }
    is_whole.then_some(text)
}

/// `<<~SQL`: a text on the lines that follow.
struct Heredoc<'a> {
    word: &'a str,
    is_raw: bool,
    /// How long its beginning is, from behind the `<<`.
    length: usize,
}

impl<'a> Heredoc<'a> {
    fn at(rest: &'a str) -> Option<Self> {
        let after = rest.strip_prefix(['~', '-']).unwrap_or(rest);
        let quote = after.chars().next().filter(|c| matches!(c, '\'' | '"'));
        let word = after.strip_prefix(['\'', '"']).unwrap_or(after);
        let end = word.find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'));
        let word = word.get(..end.unwrap_or(word.len())).filter(|word| word.len() >= 2)?;
        let quotes = if quote.is_some() { 2 } else { 0 };
        let length = rest.len() - after.len() + word.len() + quotes;
        Some(Self { word, is_raw: quote == Some('\''), length })
    }

    fn body(&self, scanner: &mut Scanner<'_>) -> Option<String> {
        let mut text = String::new();
        while !scanner.rest().is_empty() {
            let end = scanner.rest().find('\n').map_or(scanner.rest().len(), |at| at + 1);
            let line = scanner.rest().get(..end).unwrap_or_default();
            scanner.skip(end);
            if line.trim() == self.word {
                return (self.is_raw || !text.contains("#{")).then_some(text);
            }
            text.push_str(line);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = r##"
RESERVE = "update stock set reserved"
class Shop
  def pay(id) # it's
    @c.exec(<<~SQL, [id])
      insert into payments
    SQL
    list << "a plain one"
    @c.exec("select #{id} from t")
  end

  def self.refund = C.exec('on one line')
end
"##;

    #[test]
    fn methods_are_told_by_indentation() {
        let found = literals(SOURCE);
        let of = |text: &str| {
            let one = found.iter().find(|literal| literal.text.trim() == text);
            let one = one.unwrap_or_else(|| panic!("{text:?} in {found:#?}"));
            (one.function.as_deref(), one.name.as_deref(), one.line)
        };
        assert_eq!(of("update stock set reserved"), (None, Some("RESERVE"), 2));
        assert_eq!(of("insert into payments"), (Some("pay"), None, 5));
        assert_eq!(of("a plain one"), (Some("pay"), None, 8));
        assert_eq!(of("on one line"), (Some("refund"), None, 12));
        assert_eq!(found.len(), 4, "{found:#?}");
    }

    #[test]
    fn whatever_the_text_is_it_has_an_end() {
        for end in (0..SOURCE.len()).filter(|&end| SOURCE.is_char_boundary(end)) {
            literals(&SOURCE[..end]);
            literals(&SOURCE[end..]);
        }
        for odd in ["<<", "<<~", "<<~SQL", "<<~SQL\n", "<<'SQL", "'", "\"#{", "$'"] {
            literals(odd);
        }
    }
}
