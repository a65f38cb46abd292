//! What the corpus's programs need, language by language.

use std::path::Path;

use support::{
    command::{succeeds, which},
    corpus::Language,
};

use super::{LIBPQ_HEADER, Need, Requirement};

/// What has to be there for each language. Rust's drivers come by cargo, and PostgreSQL's own
/// clients with its server.
pub(super) const REQUIREMENTS: &[Requirement] = &[
    Requirement {
        need: Need::Corpus(Language::C),
        present: || which("gcc").is_some() && Path::new(LIBPQ_HEADER).exists(),
        packages: &["gcc", "libc6-dev", "libpq-dev"],
        elsewhere: "Install gcc and the headers of libpq.",
    },
    Requirement {
        need: Need::Corpus(Language::Go),
        present: || {
            which("go").is_some()
                && ["lib/pq", "jackc/pgx/v4"].iter().all(|package| {
                    Path::new("/usr/share/gocode/src/github.com").join(package).is_dir()
                })
        },
        packages: &["golang-go", "golang-github-lib-pq-dev", "golang-github-jackc-pgx-v4-dev"],
        elsewhere: "Install Go, and put the sources of the Go packages github.com/lib/pq and \
                    github.com/jackc/pgx/v4 under /usr/share/gocode/src.",
    },
    Requirement {
        need: Need::Corpus(Language::Java),
        present: || {
            which("javac").is_some()
                && ["postgresql", "HikariCP", "slf4j-api", "slf4j-nop"].iter().all(|jar| {
                    Path::new("/usr/share/java").join(jar).with_extension("jar").exists()
                })
        },
        packages: &[
            "default-jdk-headless",
            "libpostgresql-jdbc-java",
            "libhikaricp-java",
            "libslf4j-java",
        ],
        elsewhere: "Install a JDK, and put postgresql.jar, HikariCP.jar, slf4j-api.jar and \
                    slf4j-nop.jar into /usr/share/java.",
    },
    Requirement {
        need: Need::Corpus(Language::Node),
        present: || which("node").is_some(),
        packages: &["nodejs"],
        elsewhere: "Install Node.",
    },
    Requirement {
        need: Need::Corpus(Language::Php),
        present: || {
            succeeds(
                "/usr/bin/php",
                &[
                    "-r",
                    "exit(function_exists('pg_connect') && class_exists('PDO') && function_exists('pcntl_fork') ? 0 : 1);",
                ],
            )
        },
        packages: &["php-cli", "php-pgsql"],
        elsewhere: "Install PHP with its modules pgsql, pdo_pgsql and pcntl.",
    },
    Requirement {
        need: Need::Corpus(Language::Python),
        present: || {
            succeeds(
                "/usr/bin/python3",
                &["-c", "import psycopg2, psycopg, psycopg_pool, sqlalchemy, asyncpg"],
            )
        },
        packages: &[
            "python3",
            "python3-psycopg2",
            "python3-psycopg",
            "python3-psycopg-pool",
            "python3-sqlalchemy",
            "python3-asyncpg",
        ],
        elsewhere: "Install psycopg2, psycopg, psycopg_pool, SQLAlchemy and asyncpg for \
                    /usr/bin/python3.",
    },
    Requirement {
        need: Need::Corpus(Language::Ruby),
        present: || succeeds("/usr/bin/ruby", &["-e", "require 'pg'; require 'connection_pool'"]),
        packages: &["ruby", "ruby-pg", "ruby-connection-pool"],
        elsewhere: "Install the gems pg and connection_pool for /usr/bin/ruby.",
    },
];
