//! Reads the corpus's manifest: `tests/apps/corpus/manifest.json`.
//!
//! A program gets its pattern as its only argument, and what it needs to know from its environment:
//! libpq's `PG…` variables, `CORPUS_POOL` (the pool's cap), `CORPUS_EVERY` (milliseconds between
//! two leaks), `CORPUS_LOAD` (between two ordinary requests), `CORPUS_HOLE` (the port of a server
//! that never answers), `CORPUS_CERTIFICATE` (the server's). It serves, says `ready`, waits for a
//! line on stdin and begins with the pattern; at a second line it leaks no more, but goes on
//! serving. Whenever it has lost a connection it says `leak
//! MILLISECONDS PORT`: the time since 1970 and the connection's local port, 0 where it cannot know.
//! The function that loses connections has the name that the pattern states, and makes the last
//! request itself.

use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    fs,
    hash::{Hash as _, Hasher as _},
    ops::Range,
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use support::corpus::Language;

/// Where the corpus lies in the repository.
pub(super) const CORPUS: &str = "tests/apps/corpus";

/// The whole corpus.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    patterns: BTreeMap<String, Pattern>,
    programs: Vec<Program>,
}

/// A way to behave.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pattern {
    /// What it does, for people.
    pub(super) about: String,
    /// The function that leaks, in snake case; absent where nothing leaks.
    pub(super) culprit: Option<String>,
    /// The least severity that a finding about it must have.
    #[serde(default = "leak")]
    pub(super) severity: String,
    /// The pattern that the program is told to follow, where another one is shared.
    pub(super) runs: Option<String>,
    /// The pool's cap, where it matters.
    pub(super) pool: Option<u64>,
    /// What the server does meanwhile.
    #[serde(default)]
    pub(super) server: Deed,
    /// Whether the server that never answers accepts connections.
    #[serde(default = "yes")]
    pub(super) accepts: bool,
    /// Whether a supervisor replaces the program by a new one, again and again.
    #[serde(default)]
    pub(super) replaced: bool,
}

fn yes() -> bool {
    true
}

fn leak() -> String {
    "leak".to_owned()
}

/// What the server does while a program runs.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum Deed {
    /// Nothing but its work.
    #[default]
    Serve,
    /// Closes each leaked connection a little later.
    CloseLeaked,
    /// Closes all connections of the program, as a restart does.
    Restart,
}

/// A program of the corpus.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Program {
    /// A short name.
    pub(super) name: String,
    /// What it is written in.
    pub(super) language: Language,
    /// Driver and pool, for people.
    pub(super) driver: String,
    /// File or folder in the corpus, or the command where it is a program of PostgreSQL's.
    pub(super) source: String,
    /// What it finds in its environment.
    #[serde(default)]
    pub(super) env: BTreeMap<String, String>,
    /// The patterns that it can follow.
    pub(super) patterns: Vec<String>,
    /// Whether it needs no word to begin, and says none when it leaks.
    #[serde(default)]
    pub(super) plain: bool,
}

/// One program following one pattern.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) program: Program,
    pub(super) name: String,
    pub(super) pattern: Pattern,
    pub(super) tls: bool,
    pub(super) arrival: Arrival,
    seed: u64,
}

/// When the tracer comes, and what it is told.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub(super) enum Arrival {
    /// Before the pattern begins.
    Early,
    /// In the middle of the pattern: at least three connections have leaked, more will.
    Late,
    /// After the last leak.
    Over,
    /// After the last leak, and the server is asked, too.
    Asked,
}

impl Arrival {
    /// All of them.
    const ALL: [Self; 4] = [Self::Early, Self::Late, Self::Over, Self::Asked];

    /// What it adds to a scenario's title.
    fn suffix(self) -> &'static str {
        match self {
            Self::Early => "",
            Self::Late => "/late",
            Self::Over => "/over",
            Self::Asked => "/asked",
        }
    }

    /// What it is, for people.
    pub(super) fn about(self) -> &'static str {
        match self {
            Self::Early => "before the leak",
            Self::Late => "while it leaks",
            Self::Over => "after the last leak",
            Self::Asked => "after the last leak, with `--pg-dsn`",
        }
    }

    /// Whether the leak has ended by then.
    pub(super) fn is_over(self) -> bool {
        matches!(self, Self::Over | Self::Asked)
    }
}

impl Manifest {
    /// Reads the manifest of a repository.
    pub(super) fn read(workspace: &Path) -> Result<Self> {
        let file = workspace.join(CORPUS).join("manifest.json");
        let text = fs::read(&file)?;
        serde_json::from_slice(&text).with_context(|| format!("{} is broken", file.display()))
    }

    /// Every program with each of its patterns, without TLS and with it, for each arrival.
    pub(super) fn scenarios(&self, seed: u64) -> Result<Vec<Scenario>> {
        let mut all = Vec::new();
        for program in &self.programs {
            for name in &program.patterns {
                let pattern = self.patterns.get(name);
                let pattern = pattern
                    .with_context(|| format!("{}: there is no pattern {name}", program.name))?;
                for (tls, arrival) in
                    [false, true].into_iter().flat_map(|tls| Arrival::ALL.map(|way| (tls, way)))
                {
                    let mut hasher = DefaultHasher::new();
                    (&program.name, name, tls, arrival, seed).hash(&mut hasher);
                    all.push(Scenario {
                        program: program.clone(),
                        name: name.clone(),
                        pattern: pattern.clone(),
                        tls,
                        arrival,
                        seed: hasher.finish(),
                    });
                }
            }
        }
        ensure!(!all.is_empty(), "The corpus is empty.");
        Ok(all)
    }
}

impl Scenario {
    /// "go-pq/rows" or "go-pq/rows/tls/late".
    pub(super) fn title(&self) -> String {
        let tls = if self.tls { "/tls" } else { "" };
        format!("{}/{}{tls}{}", self.program.name, self.name, self.arrival.suffix())
    }

    /// Whether it leaks.
    pub(super) fn leaks(&self) -> bool {
        self.pattern.culprit.is_some()
    }

    /// The pattern that the program is told.
    pub(super) fn told(&self) -> &str {
        self.pattern.runs.as_deref().unwrap_or(&self.name)
    }

    /// A number for `what` that is the same in every run with the same seed.
    pub(super) fn pick(&self, what: &str, range: Range<u64>) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.seed, what).hash(&mut hasher);
        range.start + hasher.finish() % (range.end - range.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_is_sound() {
        let root = support::workspace::root();
        let all = Manifest::read(root).unwrap().scenarios(1).unwrap();
        assert!(all.iter().any(Scenario::leaks) && all.iter().any(|one| !one.leaks()));
        let mut titles: Vec<String> = all.iter().map(Scenario::title).collect();
        titles.sort();
        assert!(titles.windows(2).all(|pair| pair[0] != pair[1]), "two of the same title");
    }

    #[test]
    fn a_seed_picks_the_same_again() {
        let root = support::workspace::root();
        let manifest = Manifest::read(root).unwrap();
        let picks = |seed| -> Vec<u64> {
            let all = manifest.scenarios(seed).unwrap();
            all.iter().map(|scenario| scenario.pick("pause", 600..2500)).collect()
        };
        assert_eq!(picks(1), picks(1));
        assert_ne!(picks(1), picks(2));
        assert!(picks(1).iter().all(|pick| (600..2500).contains(pick)));
    }
}
