//! Texts that somebody looks for in programs, and the code that has them.

use std::ops::RangeInclusive;

use crate::stack::Frame;

/// Texts to look for. What makes a text of a program the same as a wanted one is up to whoever
/// wants it.
pub trait WantedTexts: Send + Sync {
    /// Whether a text that starts so may begin with a wanted one: a first, quick look.
    fn may_begin(&self, start: &str) -> bool;

    /// Which wanted texts `text` begins with, and how long it must be to be one: where a text ends
    /// is seldom known before.
    fn beginning(&self, text: &str) -> Vec<TextMatch>;
}

/// A text begins with a wanted one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextMatch {
    /// Which one it is.
    pub wanted: usize,
    /// If the text ends after so many bytes, it is the wanted one.
    pub lengths: RangeInclusive<usize>,
}

/// A place in a program that has a wanted text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextUse {
    /// Which one.
    pub wanted: usize,
    /// Whether the text is known to end where the wanted one does.
    pub is_whole: bool,
    /// Who has it.
    pub user: TextUser,
    /// The code. Its function is unknown when it is in none, or nobody can tell in which.
    pub frame: Frame,
}

/// Who has a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextUser {
    /// The application.
    Application,
    /// A library, or code without a name.
    Library,
    /// Code that runs once at the start and puts texts where any other code may take them from.
    Initialiser,
}
