//! What comments in statements tell of the requests that they belong to.
//!
//! Two forms are known: sqlcommenter's, `/*route='%2Forders',traceparent='00-…'*/`, and
//! Marginalia's, `/*application:Shop,controller:orders*/`. Comments may say anything, secrets among
//! it: only those are kept that have one of these forms from end to end, and of them only the keys
//! that frameworks are known to write.

use std::collections::BTreeMap;

/// Most characters of a value.
const MAX_VALUE: usize = 256;
/// Most pairs of a comment.
const MAX_PAIRS: usize = 24;

/// The keys of the sqlcommenter specification and of Marginalia's components.
const KEYS: [&str; 22] = [
    "action",
    "application",
    "controller",
    "controller_with_namespace",
    "db_driver",
    "endpoint",
    "framework",
    "graphql_operation",
    "handler",
    "hostname",
    "job",
    "line",
    "method",
    "namespaced_controller",
    "pid",
    "request_id",
    "route",
    "sidekiq_job",
    "source_location",
    "traceparent",
    "tracestate",
    "worker",
];

/// The pairs of the comment that a statement begins or ends with.
pub(super) fn pairs(statement: &str) -> BTreeMap<String, String> {
    let statement = statement.trim().trim_end_matches(';').trim_end();
    let first = || statement.strip_prefix("/*")?.split_once("*/").map(|(comment, _)| comment);
    let last = || statement.strip_suffix("*/")?.rsplit_once("/*").map(|(_, comment)| comment);
    let mut pairs = BTreeMap::new();
    for comment in [first(), last()].into_iter().flatten() {
        let comment = comment.trim();
        let read = quoted_pairs(comment).or_else(|| plain_pairs(comment)).unwrap_or_default();
        let known = read.into_iter().filter(|(key, _)| KEYS.contains(&key.as_str()));
        pairs.extend(known);
    }
    pairs
}

/// `key='value',key='value'`, each percent-encoded, with `\'` for a quote.
fn quoted_pairs(comment: &str) -> Option<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    let mut rest = comment;
    loop {
        let (key, after) = rest.split_once("='")?;
        let end = after.char_indices().position(|(at, character)| {
            character == '\'' && !after.get(..at).is_some_and(|text| text.ends_with('\\'))
        });
        let end = after.char_indices().nth(end?)?.0;
        let (value, after) = after.split_at_checked(end)?;
        pairs.push((decoded(key.trim())?, decoded(&value.replace("\\'", "'"))?));
        let after = after.strip_prefix('\'')?.trim_start();
        if after.is_empty() {
            return Some(pairs);
        }
        rest = after.strip_prefix(',')?;
        if pairs.len() >= MAX_PAIRS {
            return None;
        }
    }
}

/// `key:value,key:value`
fn plain_pairs(comment: &str) -> Option<Vec<(String, String)>> {
    let pairs: Option<Vec<_>> = comment
        .split(',')
        .take(MAX_PAIRS + 1)
        .map(|pair| {
            let (key, value) = pair.trim().split_once(':')?;
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./#:<>@ ".contains(c);
            let is_short = value.chars().count() <= MAX_VALUE && !value.is_empty();
            let is_key = !key.is_empty() && key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            (is_key && is_short && value.chars().all(is_plain))
                .then(|| (key.to_owned(), value.to_owned()))
        })
        .collect();
    pairs.filter(|pairs| pairs.len() <= MAX_PAIRS)
}

/// Text without its percent-encoding; `None` when it is malformed, too long, or would not be text.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = after.get(2..)?;
        } else {
            bytes.push(byte);
            rest = after;
        }
    }
    let text = String::from_utf8(bytes).ok()?;
    let is_fine = text.chars().count() <= MAX_VALUE && !text.chars().any(char::is_control);
    is_fine.then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_pairs(statement: &str, expected: &[(&str, &str)]) {
        let found = pairs(statement);
        let found: Vec<_> =
            found.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(found, expected, "{statement}");
    }

    #[test]
    fn both_forms_are_read() {
        assert_pairs(
            "SELECT 1 /*route='%2Forders%20new',traceparent='00-5bd6-01'*/;",
            &[("route", "/orders new"), ("traceparent", "00-5bd6-01")],
        );
        assert_pairs("SELECT 1 /*action='it\\'s'*/", &[("action", "it's")]);
        assert_pairs(
            "/*application:Shop,controller:orders,action:index*/ SELECT 1",
            &[("action", "index"), ("application", "Shop"), ("controller", "orders")],
        );
    }

    #[test]
    fn what_is_not_of_a_form_is_not_read() {
        for statement in [
            "SELECT 1 /* password: hunter2 */",
            "SELECT 1 /*password='hunter2'*/",
            "SELECT 1 /*route='%2'*/",
            "SELECT 1 /*route='%0a'*/",
            "SELECT 1 /*route='a' secret*/",
            "SELECT 1 /*route='a',*/",
            "SELECT 1 /*route:a,secret*/",
            "SELECT '/*route:a*/'",
            "SELECT 1 /*route='a",
            "/*",
            "/*/",
            "*/",
        ] {
            assert_pairs(statement, &[]);
        }
        assert_pairs(&format!("SELECT 1 /*route:{}*/", "a".repeat(300)), &[]);
    }

    #[test]
    fn nothing_is_too_odd() {
        const PIECES: [&str; 10] = ["/*", "*/", "'", "\\'", "é", "%", "='", ",", "route", ":"];
        for first in PIECES {
            for second in PIECES {
                for third in PIECES {
                    pairs(&format!("/*{first}{second}{third}*/"));
                    pairs(&format!("{first}{second}{third}"));
                }
            }
        }
    }
}
