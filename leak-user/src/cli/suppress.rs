//! The file of `--suppress`.

use std::path::{Path, PathBuf};
use std::time::SystemTime;
use std::{fs, io};

use leak_stacks::{Glob, GlobError};
use serde::Deserialize;

use crate::engine::detect::Reason;
use crate::engine::findings::Suppression;

/// The rules of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suppressions(pub Vec<Suppression>);

/// Why a file of rules cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SuppressError {
    /// It cannot be read.
    #[error("{path} cannot be read: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is no such file.
    #[error("{path}: {source}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
    /// A rule makes no sense.
    #[error("rule {number} of {path}: {what}")]
    Rule {
        /// The file.
        path: PathBuf,
        /// Which rule, from 1.
        number: usize,
        /// What is wrong with it.
        what: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    suppress: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    reason: Option<String>,
    comm: Option<String>,
    function: Option<String>,
    application_name: Option<String>,
    why: String,
    until: Option<toml::value::Datetime>,
}

impl Suppressions {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or a rule in it makes no sense.
    pub fn read(path: &Path) -> Result<Self, SuppressError> {
        let named = || path.to_owned();
        let text = fs::read_to_string(path)
            .map_err(|source| SuppressError::Unreadable { path: named(), source })?;
        let file: File = toml::from_str(&text)
            .map_err(|error| SuppressError::Syntax { path: named(), source: Box::new(error) })?;
        let rules = file.suppress.into_iter().zip(1..).map(|(rule, number)| {
            rule.read().map_err(|what| SuppressError::Rule { path: named(), number, what })
        });
        rules.collect::<Result<_, _>>().map(Self)
    }
}

impl Rule {
    fn read(self) -> Result<Suppression, String> {
        let glob = |text: Option<String>| {
            let glob = text.map(|text| text.parse::<Glob>());
            glob.transpose().map_err(|error: GlobError| error.to_string())
        };
        let rule = Suppression {
            reason: self.reason.as_deref().map(reason).transpose()?,
            comm: glob(self.comm)?,
            function: glob(self.function)?,
            application_name: glob(self.application_name)?,
            why: self.why.trim().to_owned(),
            until: self.until.as_ref().map(end_of).transpose()?,
        };
        let Suppression { reason, comm, function, application_name, why, until: _ } = &rule;
        let names = [comm, function, application_name];
        if reason.is_none() && names.iter().all(|name| name.is_none()) {
            return Err("it would hide everything; give a reason, comm, function or \
                        application_name"
                .into());
        }
        if why.is_empty() { Err("`why` is empty".into()) } else { Ok(rule) }
    }
}

fn reason(name: &str) -> Result<Reason, String> {
    let known = Reason::ALL.iter().copied().find(|reason| reason.name() == name);
    known.ok_or_else(|| {
        let names: Vec<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        format!("there is no reason {name:?}; there are {}", names.join(", "))
    })
}

/// The end of a day, in UTC.
fn end_of(day: &toml::value::Datetime) -> Result<SystemTime, String> {
    let wrong = || format!("`until` is a day, such as 2027-01-31, not {day}");
    let (Some(date), None) = (day.date, day.time) else { return Err(wrong()) };
    let date: jiff::civil::Date = date.to_string().parse().map_err(|_| wrong())?;
    let next = date.tomorrow().map_err(|_| wrong())?;
    let midnight = next.to_zoned(jiff::tz::TimeZone::UTC).map_err(|_| wrong())?;
    Ok(midnight.timestamp().into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn read(text: &str) -> Result<Suppressions, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("suppress.toml");
        fs::write(&path, text).unwrap();
        Suppressions::read(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn a_rule_has_what_it_hides_why_and_until_when() {
        let text = "[[suppress]]\nreason = \"abandoned\"\nfunction = \"*.warmUp\"\n\
                    why = \"ticket 4711\"\nuntil = 1970-01-02\n";
        let Suppressions(rules) = read(text).unwrap();
        let [rule] = rules.as_slice() else { panic!("{rules:?}") };
        assert_eq!(rule.reason, Some(Reason::Abandoned));
        assert_eq!(rule.why, "ticket 4711");
        let day = |days: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(days * 86_400);
        assert_eq!(rule.until, Some(day(2)), "the whole day");
        assert!(!rule.has_ended(day(1)) && rule.has_ended(day(2)));
        assert_eq!(read("").unwrap(), Suppressions(Vec::new()));
    }

    #[test]
    fn rules_that_make_no_sense_are_refused_with_their_number() {
        let first = "[[suppress]]\ncomm = \"a\"\nwhy = \"b\"\n";
        for (rule, said) in [
            ("why = \"x\"", "would hide everything"),
            ("comm = \"a\"\nwhy = \" \"", "is empty"),
            ("reason = \"leaky\"\nwhy = \"x\"", "there are growing, abandoned"),
            ("comm = \"[a\"\nwhy = \"x\"", "is not a pattern"),
            ("comm = \"a\"\nwhy = \"x\"\nuntil = 07:32:00", "is a day"),
        ] {
            let error = read(&format!("{first}[[suppress]]\n{rule}\n")).unwrap_err();
            assert!(error.contains(said) && error.contains("rule 2"), "{error}");
        }
        assert!(read("[[suppress]]\ncom = \"a\"\nwhy = \"x\"").is_err(), "a typo");
        assert!(read("[[suppress]]\ncomm = \"a\"").is_err(), "no why");
    }
}
