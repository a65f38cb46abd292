//! Matching process names against `--comm`.

use std::str::FromStr;

use leak_stacks::{Glob, GlobError};

/// Longest name that the kernel keeps: `TASK_COMM_LEN` without its NUL.
const COMM_LENGTH: usize = 15;

/// A pattern for process names: `*`, `?`, `[…]` and `[!…]`.
///
/// A name without wildcards may be longer than the kernel keeps; its beginning then counts, so that
/// `--comm a-rather-long-program` finds the process that the kernel calls `a-rather-long-p`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommPattern(Glob);

impl FromStr for CommPattern {
    type Err = GlobError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let literal = !text.contains(['*', '?', '[']);
        let kept = if literal { kernel_name(text) } else { text };
        let named_as_given = |error| GlobError { pattern: text.to_owned(), ..error };
        kept.parse().map(Self).map_err(named_as_given)
    }
}

impl CommPattern {
    /// Whether a process of this name is meant.
    #[must_use]
    pub fn matches(&self, comm: &str) -> bool {
        self.0.matches(comm)
    }
}

/// What the kernel keeps of a name; a character that does not fit whole is left out.
fn kernel_name(name: &str) -> &str {
    let end = (0..=COMM_LENGTH.min(name.len())).rev().find(|&end| name.is_char_boundary(end));
    &name[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn matches(pattern: &str, comm: &str) -> bool {
        pattern.parse::<CommPattern>().unwrap().matches(comm)
    }

    #[test]
    fn wildcards() {
        assert!(matches("python*", "python3.11"));
        assert!(matches("*", "kworker/0:1"));
        assert!(matches("app-?", "app-1"));
        assert!(matches("app-[ab]", "app-b"));
        assert!(matches("app-[!ab]", "app-c"));
        assert!(!matches("app-[ab]", "app-c"));
        assert!(!matches("python", "python3"), "a name without wildcards is the whole name");
        assert!(!matches("Python*", "python3"));
        assert!(!matches("*hon", "python3"));
    }

    #[test]
    fn names_longer_than_the_kernel_keeps() {
        assert!(matches("a-rather-long-program", "a-rather-long-p"));
        assert!(!matches("a-rather-long-program", "a-rather-short"));
        assert!(matches("fourteen-bytesé", "fourteen-bytes"));
    }

    #[test]
    fn broken_patterns_are_refused_with_the_pattern() {
        let error = "app-[a".parse::<CommPattern>().unwrap_err();
        assert!(error.to_string().contains("app-[a"), "{error}");
    }
}
