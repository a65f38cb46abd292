//! A string literal of a program's source.

/// A string literal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Literal {
    /// What it says, without escapes.
    pub(crate) text: String,
    /// The line that it begins on, from 1.
    pub(crate) line: u32,
    /// The function that it is in, when that is certain.
    pub(crate) function: Option<String>,
    /// The name that it is given, outside of functions.
    pub(crate) name: Option<String>,
}

/// The name that a line gives to what follows: `NAME = `, `const NAME = `.
pub(crate) fn assigned_name(line: &str) -> Option<String> {
    let (left, _) = line.split_once('=')?;
    let left = left.split_once(':').map_or(left, |(name, _)| name);
    let name = left.split_whitespace().next_back()?.trim_start_matches('$');
    let is_name = name.len() >= 3
        && name.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    is_name.then(|| name.to_owned())
}
