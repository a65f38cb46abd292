//! Colours for terminals, and strangers' text made harmless.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

/// Whether to use colours: on a terminal, and not in a pipe or a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Paint {
    colours: bool,
}

/// What a piece of text is to look like.
#[derive(Clone, Copy, Debug)]
pub(super) enum Tone {
    Plain,
    Strong,
    Dim,
    Good,
    Suspect,
    Leak,
}

impl Paint {
    /// With colours or without.
    #[must_use]
    pub fn new(colours: bool) -> Self {
        Self { colours }
    }

    pub(super) fn tone(self, tone: Tone, text: &str) -> String {
        if !self.colours {
            return text.to_owned();
        }
        let style = match tone {
            Tone::Plain => Style::new(),
            Tone::Strong => Style::new().bold(),
            Tone::Dim => Style::new().dimmed(),
            Tone::Good => AnsiColor::Green.on_default(),
            Tone::Suspect => AnsiColor::Magenta.on_default().bold(),
            Tone::Leak => AnsiColor::Red.on_default().bold(),
        };
        format!("{style}{text}{style:#}")
    }
}

/// `text` with everything escaped that could move the cursor, colour the screen, or reorder or hide
/// what stands around it: names of programs and functions are chosen by whoever runs them.
pub(super) fn printable(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() || is_invisible(character) {
            // Writing to a String cannot fail.
            let _ = write!(clean, "{}", character.escape_unicode());
        } else {
            clean.push(character);
        }
    }
    clean
}

/// Characters that direct the flow of text or take no room.
fn is_invisible(character: char) -> bool {
    matches!(character,
        '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_text_cannot_take_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\n"), "a\\u{1b}[2Jb\\u{a}");
        assert_eq!(printable("\u{202e}x"), "\\u{202e}x");
        assert_eq!(printable("Größe::<T>"), "Größe::<T>");
    }

    #[test]
    fn pipes_stay_plain() {
        assert_eq!(Paint::new(false).tone(Tone::Leak, "x"), "x");
        assert_ne!(Paint::new(true).tone(Tone::Leak, "x"), "x");
    }
}
