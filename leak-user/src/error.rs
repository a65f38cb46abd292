//! Errors as people read them.

use std::error::Error;

/// An error and its causes in one line. A cause that the text so far already contains is left out.
#[must_use]
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Link(&'static str, #[source] Option<Box<Link>>);

    #[test]
    fn a_cause_that_was_said_is_left_out() {
        let end = Link("refused", None);
        let repeated = Link("the port is closed: refused", Some(Box::new(end)));
        let error = Link("no metrics", Some(Box::new(repeated)));
        assert_eq!(with_causes(&error), "no metrics: the port is closed: refused");
    }
}
