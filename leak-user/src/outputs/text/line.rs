//! One statement of the report: it is wrapped at words, and what is below its first line is
//! indented.

use std::io;

use crate::outputs::text::look::Look;
use crate::outputs::text::style::{Tone, printable};

/// What a path begins with that was cut.
const CUT: char = '…';

/// Words, and where the lines below the first begin.
#[derive(Clone, Debug, Default)]
pub(super) struct Line {
    words: Vec<Word>,
    indent: usize,
    hanging: usize,
}

#[derive(Clone, Debug)]
struct Word {
    text: String,
    tone: Option<Tone>,
    /// Spaces before it, on the same line.
    gap: usize,
    /// It may be cut from the left.
    is_path: bool,
}

impl Line {
    /// Begins after `indent` columns, and goes on after `hanging`.
    pub(super) fn new(indent: usize, hanging: usize) -> Self {
        Self { words: Vec::new(), indent, hanging }
    }

    /// A label, which fills the columns as far as the text beside it, and the text below that.
    pub(super) fn labelled(indent: usize, tone: Option<Tone>, label: &str, width: usize) -> Self {
        let label = format!("{label:<width$}  ");
        let hanging = indent + label.chars().count();
        Self::new(indent, hanging).word(tone, label, 0, false)
    }

    /// Adds plain text, whatever is in it.
    pub(super) fn text(self, text: &str) -> Self {
        self.words(None, text)
    }

    /// Adds text of a tone.
    pub(super) fn toned(self, tone: Tone, text: &str) -> Self {
        self.words(Some(tone), text)
    }

    /// Adds what may be cut from the left if it is longer than a line.
    pub(super) fn path(self, tone: Option<Tone>, path: &str) -> Self {
        self.word(tone, printable(path), 1, true)
    }

    /// Adds text after more than one space.
    pub(super) fn apart(mut self, text: &str) -> Self {
        let first = self.words.len();
        self = self.words(None, text);
        if let Some(word) = self.words.get_mut(first) {
            word.gap = 3;
        }
        self
    }

    fn words(mut self, tone: Option<Tone>, text: &str) -> Self {
        for word in text.split(' ').filter(|word| !word.is_empty()) {
            self = self.word(tone, printable(word), 1, false);
        }
        self
    }

    fn word(mut self, tone: Option<Tone>, text: String, gap: usize, is_path: bool) -> Self {
        let gap = match self.words.last() {
            Some(last) if !last.text.ends_with(' ') => gap,
            _ => 0,
        };
        self.words.push(Word { text, tone, gap, is_path });
        self
    }

    /// Writes it, in as many lines as it takes.
    pub(super) fn write(&self, out: &mut impl io::Write, look: &Look) -> io::Result<()> {
        let width = look.width();
        let room = width.saturating_sub(self.hanging).max(1);
        let mut column = self.indent;
        write!(out, "{:column$}", "")?;
        for word in &self.words {
            let text = if word.is_path { cut(&word.text, room) } else { word.text.clone() };
            let length = text.chars().count();
            let mut gap = word.gap;
            if column + gap + length > width && column > self.hanging {
                write!(out, "\n{:1$}", "", self.hanging)?;
                (column, gap) = (self.hanging, 0);
            }
            let shown = match word.tone {
                Some(tone) => look.paint.tone(tone, &text),
                None => text,
            };
            write!(out, "{:gap$}{shown}", "")?;
            column += gap + length;
        }
        writeln!(out)
    }
}

/// The end of a path or name, as much of it as there is room for.
pub(super) fn cut(path: &str, room: usize) -> String {
    let length = path.chars().count();
    if length <= room {
        return path.to_owned();
    }
    let end = path.chars().skip(length - room.saturating_sub(1));
    std::iter::once(CUT).chain(end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outputs::text::look::Screen;

    fn at(columns: usize, line: &Line) -> String {
        let screen = Screen { columns: Some(columns), ..Screen::default() };
        let mut out = Vec::new();
        line.write(&mut out, &Look { screen, ..Look::default() }).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn it_is_wrapped_at_words_and_what_follows_is_indented() {
        let line =
            Line::labelled(2, None, "fix", 8).text("commit or roll back in every branch of it");
        let told = "  fix       commit or roll back in every\n            branch of it\n";
        assert_eq!(at(40, &line), told);
        assert_eq!(at(80, &line), "  fix       commit or roll back in every branch of it\n");
    }

    #[test]
    fn paths_are_cut_from_the_left_and_functions_are_whole() {
        let function = "a::function::whose::name::has::more::columns::than::the::line";
        let path = "/srv/a/long/way/down/to/the/place/where/the/code/is.rs:41";
        let told = at(40, &Line::new(2, 4).toned(Tone::Strong, function).path(None, path));
        let lines: Vec<_> = told.lines().collect();
        assert_eq!(lines.len(), 2, "{told}");
        assert_eq!(lines[0].trim(), function);
        assert!(lines[1].starts_with("    …") && lines[1].ends_with("/is.rs:41"), "{told}");
        assert_eq!(lines[1].chars().count(), 40);
    }

    #[test]
    fn strangers_text_is_made_harmless() {
        assert_eq!(at(80, &Line::new(0, 0).text("a\x1b[2J b\n")), "a\\u{1b}[2J b\\u{a}\n");
    }
}
