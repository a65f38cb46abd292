//! Which function a line is in, by its indentation.

/// A line of source text, as far as its place in the text counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line<'a> {
    pub(crate) text: &'a str,
    /// It begins within a literal or brackets, so its indentation says nothing.
    pub(crate) is_continued: bool,
}

/// What begins on a line and lasts for as long as what follows is indented more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    Function(String),
    Class(String),
}

/// The scopes that a line is in, the innermost first. `number` is from 1; what begins on the line
/// itself does not count.
pub(crate) fn scopes(
    lines: &[Line<'_>],
    number: u32,
    begins: impl Fn(&str) -> Option<Scope>,
) -> Vec<Scope> {
    let index = (number as usize).saturating_sub(1).min(lines.len().saturating_sub(1));
    let own = (0..=index).rev().find(|&at| lines.get(at).is_some_and(|line| !line.is_continued));
    let Some(own) = own else { return Vec::new() };
    let mut limit = lines.get(own).map_or(0, |line| indent(line.text));
    let mut found = Vec::new();
    for line in lines.get(..own).unwrap_or_default().iter().rev() {
        let text = line.text.trim();
        let says_nothing = line.is_continued || text.is_empty() || text.starts_with('#');
        if limit == 0 {
            break;
        }
        if says_nothing || indent(line.text) >= limit {
            continue;
        }
        limit = indent(line.text);
        found.extend(begins(text));
    }
    found
}

/// The first line of what the line `number` continues.
pub(crate) fn first_line<'a>(lines: &[Line<'a>], number: u32) -> &'a str {
    let lines = lines.get(..number as usize).unwrap_or(lines);
    lines.iter().rev().find(|line| !line.is_continued).map_or("", |line| line.text)
}

/// A tab counts as the usual eight.
fn indent(line: &str) -> usize {
    let spaces = line.chars().take_while(|c| c.is_whitespace());
    spaces.map(|c| if c == '\t' { 8 } else { 1 }).sum()
}

/// The name at the beginning of `text`.
pub(crate) fn name_at(text: &str) -> Option<String> {
    let end = text.find(|c: char| !(c.is_alphanumeric() || "_?!".contains(c)));
    let name = text.get(..end.unwrap_or(text.len()))?;
    (!name.is_empty()).then(|| name.to_owned())
}
