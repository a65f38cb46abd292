//! Texts in the sources of programs that an interpreter runs.
//!
//! Sources are searched for string literals, each whole and by itself: what a program puts
//! together is not found. Which function a literal is in is told by a rule that fits how people
//! write, and by none where that is in doubt. A literal that is given a name outside of functions
//! is looked for by that name.

mod braces;
mod constants;
mod files;
mod header;
mod indented;
mod language;
mod literal;
mod loaded;
mod python;
mod ruby;
mod scanner;
mod search;

pub(crate) use self::language::SourceLanguage;
pub(crate) use self::search::uses_in_sources;

/// Reads any bytes as source text.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for language in SourceLanguage::ALL {
        let literals = language.literals(&text);
        for line in literals.iter().map(|literal| literal.line).take(2) {
            language.function_of_line(&text, line);
        }
    }
}
