//! The languages of the corpus of leaking and healthy programs, `tests/apps/corpus`.

use serde::Deserialize;

/// What programs of the corpus are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// C, by libpq.
    C,
    /// Go, by lib/pq and pgx.
    Go,
    /// Java, by JDBC.
    Java,
    /// JavaScript on Node.js.
    Node,
    /// PHP.
    Php,
    /// Python.
    Python,
    /// Ruby.
    Ruby,
    /// Rust.
    Rust,
    /// PostgreSQL's own client programs.
    Tools,
}

impl Language {
    /// What `cargo xtask setup` calls its compilers, interpreters and drivers; `None` where nothing
    /// is needed: cargo fetches Rust's drivers, and PostgreSQL's own clients come with its server.
    #[must_use]
    pub fn need(self) -> Option<&'static str> {
        match self {
            Self::C => Some("corpus-c"),
            Self::Go => Some("corpus-go"),
            Self::Java => Some("corpus-java"),
            Self::Node => Some("corpus-node"),
            Self::Php => Some("corpus-php"),
            Self::Python => Some("corpus-python"),
            Self::Ruby => Some("corpus-ruby"),
            Self::Rust | Self::Tools => None,
        }
    }
}
