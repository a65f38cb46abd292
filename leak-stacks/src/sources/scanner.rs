//! Goes through source text, one character after the other.

/// A place in source text.
pub(crate) struct Scanner<'a> {
    text: &'a str,
    at: usize,
    line: u32,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0, line: 1 }
    }

    /// The line, from 1.
    pub(crate) fn line(&self) -> u32 {
        self.line
    }

    /// How far it has come, in bytes.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// What is left.
    pub(crate) fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    pub(crate) fn next(&mut self) -> Option<char> {
        let character = self.rest().chars().next()?;
        self.at += character.len_utf8();
        self.line += u32::from(character == '\n');
        Some(character)
    }

    /// Takes `text`, if it is next.
    pub(crate) fn take(&mut self, text: &str) -> bool {
        let is_next = self.rest().starts_with(text);
        if is_next {
            self.skip(text.len());
        }
        is_next
    }

    /// Goes on by so many bytes.
    pub(crate) fn skip(&mut self, bytes: usize) {
        let end = self.at.saturating_add(bytes);
        while self.at < end && self.next().is_some() {}
    }

    /// Takes everything to the end of the line.
    pub(crate) fn skip_line(&mut self) {
        let end = self.rest().find('\n').unwrap_or(self.rest().len());
        self.skip(end);
    }

    /// Takes everything to behind `end`.
    pub(crate) fn skip_past(&mut self, end: &str) {
        let length = self.rest().find(end).map_or(self.rest().len(), |at| at + end.len());
        self.skip(length);
    }

    /// What an escape, whose backslash was taken, stands for.
    pub(crate) fn escape(&mut self, into: &mut String) {
        match self.next() {
            Some('n') => into.push('\n'),
            Some('t') => into.push('\t'),
            Some('r') => into.push('\r'),
            // The line goes on.
            Some('\n') | None => {}
            Some(other @ ('\\' | '\'' | '"' | '`' | '$' | '#')) => into.push(other),
            Some(other) => into.extend(['\\', other]),
        }
    }
}
