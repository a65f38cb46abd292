//! Patterns for process names, for `--comm`.

use std::str::FromStr;

use leak_stacks::{Glob, GlobError};

/// Longest name that the kernel keeps: `TASK_COMM_LEN` without its NUL.
const COMM_LENGTH: usize = 15;

/// A pattern for process names: `*`, `?`, `[…]` and `[!…]`.
///
/// The kernel cuts names off, so a name without wildcards is cut off likewise:
/// `--comm a-rather-long-program` matches the process that the kernel calls `a-rather-long-p`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommPattern {
    glob: Glob,
    /// What was given.
    given: String,
}

impl FromStr for CommPattern {
    type Err = GlobError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let kept = if is_literal(text) { kernel_name(text) } else { text };
        let refused = |reason| GlobError { pattern: text.to_owned(), reason };
        let glob = kept.parse().map_err(|error: GlobError| refused(error.reason))?;
        if shortest(kept) > COMM_LENGTH {
            return Err(refused(format!(
                "names have at most {COMM_LENGTH} bytes, so none matches"
            )));
        }
        Ok(Self { glob, given: text.to_owned() })
    }
}

impl CommPattern {
    /// Whether it matches a process of this name.
    #[must_use]
    pub fn matches(&self, comm: &str) -> bool {
        self.glob.matches(comm)
    }

    /// What was given.
    #[must_use]
    pub fn given(&self) -> &str {
        &self.given
    }

    /// The part of a name without wildcards that the kernel keeps, where that is not all of it.
    #[must_use]
    pub fn cut(&self) -> Option<&str> {
        let kept = kernel_name(&self.given);
        (is_literal(&self.given) && kept != self.given).then_some(kept)
    }
}

fn is_literal(text: &str) -> bool {
    !text.contains(['*', '?', '['])
}

/// Fewest characters of a name that matches.
fn shortest(pattern: &str) -> usize {
    let (mut count, mut in_class) = (0, false);
    for character in pattern.chars() {
        match character {
            ']' if in_class => in_class = false,
            _ if in_class => {}
            '*' => {}
            _ => {
                in_class = character == '[';
                count += 1;
            }
        }
    }
    count
}

/// The part of a name that the kernel keeps, without a last character that is cut in two.
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
    fn what_no_name_can_match_is_refused() {
        let error = "prometheus-postgres-*".parse::<CommPattern>().unwrap_err().to_string();
        assert!(error.contains("at most 15 bytes"), "{error}");
        assert!("prometheus-pos[tx]*".parse::<CommPattern>().is_ok());
        let cut = |text: &str| text.parse::<CommPattern>().unwrap().cut().map(str::to_owned);
        assert_eq!(cut("prometheus-postgres-exporter").as_deref(), Some("prometheus-post"));
        assert_eq!((cut("orders"), cut("orders*")), (None, None));
    }

    #[test]
    fn broken_patterns_are_refused_with_the_pattern() {
        let error = "app-[a".parse::<CommPattern>().unwrap_err();
        assert!(error.to_string().contains("app-[a"), "{error}");
    }
}
