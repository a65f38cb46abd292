//! Why a run without a leak is no proof that there is none.

use std::fmt;
use std::time::Duration;

use crate::engine::detect::plural;
use crate::engine::snapshot::Snapshot;

/// Why a run without a leak is no proof that there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It was shorter than the silence that counts.
    TooShort {
        /// How long it lasted.
        lasted: Duration,
        /// How long without payload counts as silent.
        silent_after: Duration,
    },
    /// Leaked connections were closed only as their process ended.
    TornDown {
        /// How many findings that concerns.
        findings: usize,
    },
    /// Nothing is known of silent connections.
    Unknown {
        /// How many there are.
        connections: usize,
    },
}

impl Doubt {
    /// The doubt that there is about a run; `None` when it has a leak, and when there is no doubt.
    #[must_use]
    pub fn about(snapshot: &Snapshot<'_>) -> Option<Self> {
        let (verdict, lasted) = (snapshot.verdict(), snapshot.lasted());
        let silent_after = snapshot.thresholds.silent_after;
        let findings = snapshot.ledger.torn_down();
        if verdict.leaks > 0 {
            None
        } else if findings > 0 {
            Some(Self::TornDown { findings })
        } else if lasted < silent_after {
            Some(Self::TooShort { lasted, silent_after })
        } else if verdict.unknown_older > 0 {
            Some(Self::Unknown { connections: verdict.unknown_older })
        } else {
            None
        }
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort { lasted, silent_after } => write!(
                f,
                "no leak could be found: the trace lasted {:.1} s, and connections count as silent \
                 after {:.1} s; trace for longer, or set --silent-after",
                lasted.as_secs_f64(),
                silent_after.as_secs_f64()
            ),
            Self::TornDown { findings } => write!(
                f,
                "cannot tell whether there is a leak: the connections of {} were closed only as \
                 their process ended",
                plural(*findings, "retracted finding")
            ),
            Self::Unknown { connections } => write!(
                f,
                "cannot tell whether there is a leak: {connections} silent connections are older \
                 than the trace; start the trace before the program, or name the server with \
                 --pg-dsn"
            ),
        }
    }
}
