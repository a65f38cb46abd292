//! Reads passwords from a file, so that they need not be on the command line.
//!
//! Source: PostgreSQL's documentation, "The Password File".

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Permissions of others, which make the file unsafe for passwords.
const OTHERS: u32 = 0o077;
/// Largest password file.
const MAX_BYTES: u64 = 1 << 20;

/// The keys by which a line is found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) host: &'a str,
    pub(super) port: &'a str,
    pub(super) database: &'a str,
    pub(super) user: &'a str,
}

/// Reads a password file. As in libpq, a file that others may read is refused.
///
/// # Errors
///
/// When it cannot be used, with the reason.
pub(super) fn read(path: &Path) -> Result<String, String> {
    let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("it is not a file".to_owned());
    }
    if metadata.mode() & OTHERS != 0 {
        return Err("others may read it; its permissions must be 0600 or less".to_owned());
    }
    if metadata.len() > MAX_BYTES {
        return Err("it is too big".to_owned());
    }
    fs::read_to_string(path).map_err(|error| error.to_string())
}

/// The password in the first line that matches: `host:port:database:user:password`.
pub(super) fn find(text: &str, wanted: Wanted<'_>) -> Option<String> {
    let wanted = [wanted.host, wanted.port, wanted.database, wanted.user];
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let fields = fields(line);
        let (password, keys) = fields.split_last()?;
        let fits = keys.len() == wanted.len()
            && keys.iter().zip(wanted).all(|(key, wanted)| key == "*" || key == wanted);
        fits.then(|| password.clone())
    })
}

/// Splits a line into fields. `\:` and `\\` stand for `:` and `\`; the fifth field is the rest.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        let last = fields.len() - 1;
        match character {
            ':' if fields.len() < 5 => fields.push(String::new()),
            '\\' => fields[last].extend(characters.next()),
            other => fields[last].push(other),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const FILE: &str = "# a comment\n\
                        broken line\n\
                        db:5432:orders:shop:first\n\
                        db:5432:*:shop:se\\:cr\\\\et:x\n\
                        *:*:*:*:last\n";

    fn password(host: &str, database: &str, user: &str) -> Option<String> {
        find(FILE, Wanted { host, port: "5432", database, user })
    }

    #[test]
    fn the_first_line_that_fits_counts() {
        assert_eq!(password("db", "orders", "shop").as_deref(), Some("first"));
        assert_eq!(password("db", "other", "shop").as_deref(), Some("se:cr\\et:x"));
        assert_eq!(password("other", "orders", "x").as_deref(), Some("last"));
        assert_eq!(
            find("a:1:b:c:d", Wanted { host: "x", port: "1", database: "b", user: "c" }),
            None
        );
    }

    #[test]
    fn a_file_that_others_may_read_is_not_used() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), FILE).unwrap();
        assert_eq!(read(file.path()).as_deref(), Ok(FILE));
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o640)).unwrap();
        assert!(read(file.path()).unwrap_err().contains("0600"));
        assert!(read(Path::new("/nowhere/at/all")).is_err());
    }
}
