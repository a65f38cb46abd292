use crate::sources::postgres::dsn::*;

fn parse(text: &str) -> Dsn {
    Dsn::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn both_forms_mean_the_same() {
    for text in [
        "postgres://watch:s%40crt@db.example:6432/orders?sslmode=disable",
        "postgresql://watch:s%40crt@db.example:6432/orders?sslmode=disable&gssencmode=disable",
        "host=db.example port=6432 user=watch password=s@crt dbname=orders sslmode=disable",
        " host = 'db.example' port=6432 user=watch password='s\\@crt' dbname=orders sslmode = disable ",
    ] {
        let dsn = parse(text);
        assert_eq!(dsn.name(), "db.example:6432/orders");
        assert_eq!(dsn.config.get_password(), Some(&b"s@crt"[..]));
        assert_eq!(dsn.config.get_user(), Some("watch"));
        assert_eq!(dsn.config.get_ssl_mode(), SslMode::Disable);
        assert!(dsn.has_password());
        assert_eq!(dsn.ports(), [6432]);
    }
    assert_eq!(parse("host=/run/postgresql").name(), "/run/postgresql:5432");
    assert_eq!(parse("postgres://w@[::1]/x").name(), "[::1]:5432/x");
    assert_eq!(parse("postgres://w@a,b:1/x").name(), "a:5432,b:1/x");
}

#[test]
fn how_much_is_verified() {
    let modes = |text: &str| {
        let dsn = parse(text);
        (dsn.config.get_ssl_mode(), dsn.verify)
    };
    assert_eq!(modes("host=a"), (SslMode::Prefer, Verify::Nothing));
    assert_eq!(modes("host=a sslmode=require"), (SslMode::Require, Verify::Nothing));
    let rooted = "host=a sslrootcert='/a b/root.crt' sslmode=";
    assert_eq!(modes(&format!("{rooted}require")), (SslMode::Require, Verify::Issuer));
    assert_eq!(modes(&format!("{rooted}verify-ca")), (SslMode::Require, Verify::Issuer));
    assert_eq!(modes(&format!("{rooted}verify-full")), (SslMode::Require, Verify::Name));
    let dsn = parse("postgres://a@b/c?sslmode=verify-full&sslrootcert=%2Fa%20b%2Froot.crt");
    assert_eq!(dsn.root_certificate, Some("/a b/root.crt".into()));
}

#[test]
fn what_is_wrong_is_said_without_the_password() {
    let wrong = [
        ("", DsnError::NoHost),
        ("user=a password=SECRET", DsnError::NoHost),
        ("SECRET", DsnError::Form),
        ("host=a password='SECRET", DsnError::Form),
        ("host=a password=half SECRET=x", DsnError::Unknown(3)),
        ("host=a port=SECRET", DsnError::Rejected),
        ("host=a sslmode=SECRET", DsnError::Value("sslmode")),
        ("host=a sslmode=verify-full", DsnError::NoRoot),
        ("host=a gssencmode=require", DsnError::Value("gssencmode")),
        ("postgres://u:p@SECRET@host/db", DsnError::At),
        ("postgres://u:SECRET@host:port/db", DsnError::Rejected),
        ("postgres://u:SECRET@host/db?verbose", DsnError::Form),
        ("mysql://u:SECRET@host/db", DsnError::Form),
    ];
    for (text, error) in wrong {
        let said = Dsn::parse(text).unwrap_err();
        assert_eq!(said, error, "{text}");
        assert!(!said.to_string().contains("SECRET"), "{said}");
    }
    let dsn = parse("postgres://u:SECRET@host/db");
    assert!(!format!("{dsn:?} {}", dsn.name()).contains("SECRET"));
}

#[test]
fn the_password_comes_from_the_file_that_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "db:5432:orders:watch:fromfile\n").unwrap();
    let path = file.path().display();
    let mut dsn = parse(&format!("host=db user=watch dbname=orders passfile={path}"));
    assert!(!dsn.has_password());
    dsn.add_password().unwrap();
    assert_eq!(dsn.config.get_password(), Some(&b"fromfile"[..]));
    let mut dsn = parse("host=db passfile=/nowhere/at/all");
    assert!(dsn.add_password().is_err());
}
