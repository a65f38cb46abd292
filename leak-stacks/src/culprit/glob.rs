//! Patterns for names and paths, as a shell has them.

use std::str::FromStr;

use globset::{GlobBuilder, GlobMatcher};

/// A pattern for a whole name or path: `*` stands for any characters, also `/`; `?` for one; `[…]`
/// for one of those listed, `[!…]` for one of the others. All else stands for itself, so that names
/// such as `Acme\Db::{{closure}}` can be written as they are.
#[derive(Clone, Debug)]
pub struct Glob {
    text: String,
    matcher: GlobMatcher,
}

/// A pattern that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{pattern}` is not a pattern: {reason}; use *, ? and [...], as a shell does")]
pub struct GlobError {
    /// What was given.
    pub pattern: String,
    /// What is wrong with it.
    pub reason: String,
}

impl PartialEq for Glob {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Glob {}

impl FromStr for Glob {
    type Err = GlobError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let matcher = parse(text)?.compile_matcher();
        Ok(Self { text: text.to_owned(), matcher })
    }
}

impl From<Glob> for String {
    fn from(glob: Glob) -> Self {
        glob.text
    }
}

impl Glob {
    /// Whether all of `text` matches.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        self.matcher.is_match(text)
    }
}

/// Reads a pattern. Braces and backslashes, which mean something to the library, stand for
/// themselves.
pub(crate) fn parse(text: &str) -> Result<globset::Glob, GlobError> {
    let mut pattern = String::with_capacity(text.len());
    let mut in_class = false;
    for character in text.chars() {
        match character {
            '[' if !in_class => in_class = true,
            ']' if in_class && !pattern.ends_with(['[', '!']) => in_class = false,
            _ => {}
        }
        match character {
            '{' | '}' if !in_class => pattern.extend(['[', character, ']']),
            other => pattern.push(other),
        }
    }
    let glob = GlobBuilder::new(&pattern).backslash_escape(false).build();
    glob.map_err(|error| GlobError { pattern: text.to_owned(), reason: error.kind().to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn matches(pattern: &str, text: &str) -> bool {
        pattern.parse::<Glob>().unwrap().matches(text)
    }

    #[test]
    fn whole_names_with_any_characters() {
        assert!(matches("a*c", "abbc") && matches("a*", "a") && matches("*", ""));
        assert!(matches("*node:*", "x node:net") && matches("ruby[0-9].*", "ruby3.1"));
        assert!(matches("*/gems/pg-*", "/usr/lib/gems/pg-1.5/lib/pg.rb"));
        assert!(!matches("a*c", "abcd") && !matches("a", "ab") && !matches("ab", "a"));
        assert!(!matches("ruby[0-9].*", "rubyx.1"));
        assert!(matches("app-[!ab]", "app-c") && !matches("app-[!ab]", "app-a"));
    }

    #[test]
    fn what_stands_for_itself() {
        assert!(matches("shop::{{closure}}", "shop::{{closure}}"));
        assert!(matches("{closure#[0-9]}", "{closure#1}") && !matches("{a,b}", "a"));
        assert!(matches(r"Doctrine\*", r"Doctrine\DBAL\Connection::query"));
        assert!(matches("[{}]", "{") && matches("[]{]", "]") && matches("[[]vdso]", "[vdso]"));
    }

    #[test]
    fn broken_patterns_are_refused_with_the_pattern() {
        let error = "app-[a".parse::<Glob>().unwrap_err().to_string();
        assert!(error.contains("app-[a") && error.contains("as a shell does"), "{error}");
    }
}
