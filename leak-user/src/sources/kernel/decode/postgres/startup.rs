//! Parses the startup message (user, database, application name) and the error that refuses it.
//!
//! Source: PostgreSQL's documentation, "Message Formats". `StartupMessage`: length and version in
//! four bytes each, then pairs of NUL-terminated strings, then a NUL. `ErrorResponse`: type, length
//! in four bytes, then fields of a type and a NUL-terminated string each.

/// The contents of a startup message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Startup {
    /// `user`.
    pub(crate) user: Option<String>,
    /// `database`, or the user's name if it is not given, as in the server.
    pub(crate) database: Option<String>,
    /// `application_name`.
    pub(crate) application_name: Option<String>,
    /// Whether it asks for `replication`.
    pub(crate) replication: bool,
}

/// Length and version.
const HEADER: usize = 8;

/// Parses the first bytes of a startup message. Strings that are cut off or malformed are left out.
#[must_use]
pub(crate) fn parse(bytes: &[u8]) -> Startup {
    let mut startup = Startup::default();
    let declared = match bytes.first_chunk::<4>() {
        Some(length) => u32::from_be_bytes(*length) as usize,
        None => return startup,
    };
    let message = bytes.get(HEADER..declared.min(bytes.len())).unwrap_or_default();
    // The last piece has no terminator: it is empty or cut off.
    let Some(end) = message.iter().rposition(|&byte| byte == 0) else { return startup };
    let mut strings = message.get(..end).unwrap_or_default().split(|&byte| byte == 0);
    while let (Some(name), Some(value)) = (strings.next(), strings.next()) {
        if name.is_empty() {
            break;
        }
        let text = || Some(String::from_utf8_lossy(value).into_owned());
        match name {
            b"user" => startup.user = text(),
            b"database" => startup.database = text(),
            b"application_name" => startup.application_name = text(),
            b"replication" => {
                startup.replication = !matches!(value, b"false" | b"off" | b"no" | b"0");
            }
            _ => {}
        }
    }
    if startup.database.is_none() {
        startup.database.clone_from(&startup.user);
    }
    startup
}

/// The error that refuses a startup message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// SQLSTATE.
    pub(crate) sqlstate: String,
    /// Its text in the server's language; what was cut off is replaced by an ellipsis.
    pub(crate) why: Option<String>,
}

/// Reads the first bytes of an `ErrorResponse`.
#[must_use]
pub(crate) fn refusal(bytes: &[u8]) -> Option<Refusal> {
    const HEADER: usize = 5;
    const SQLSTATE_LEN: usize = 5;
    if bytes.first() != Some(&b'E') {
        return None;
    }
    let mut fields: Vec<&[u8]> = bytes.get(HEADER..)?.split(|&byte| byte == 0).collect();
    // The last piece has no terminator: it is empty or cut off.
    let cut = fields.pop();
    let code = fields.iter().find_map(|field| field.strip_prefix(b"C"))?;
    let is_state = code.len() == SQLSTATE_LEN
        && code.iter().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase());
    let text =
        |field: &&[u8]| Some(String::from_utf8_lossy(field.strip_prefix(b"M")?).into_owned());
    let whole = || fields.iter().find_map(text);
    let begun = || {
        let text = cut.as_ref().and_then(text)?;
        // A character that was cut in the middle.
        Some(format!("{}…", text.trim_end_matches(char::REPLACEMENT_CHARACTER)))
    };
    let why = whole().or_else(begun);
    is_state.then(|| Refusal { sqlstate: String::from_utf8_lossy(code).into_owned(), why })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOO_MANY: &[u8] =
        b"E\0\0\0\x5fSFATAL\0VFATAL\0C53300\0Msorry, too many clients already\0";

    #[test]
    fn a_refusal_has_a_code_and_words() {
        let refused = refusal(TOO_MANY).unwrap();
        assert_eq!(refused.sqlstate, "53300");
        assert_eq!(refused.why.as_deref(), Some("sorry, too many clients already"));
        // From a server before 9.6, in another language.
        let old = "E\0\0\0\x5fSВАЖНО\0C57P03\0Mno\0".as_bytes();
        let old = refusal(old).unwrap();
        assert_eq!((old.sqlstate.as_str(), old.why.as_deref()), ("57P03", Some("no")));
    }

    #[test]
    fn a_cut_or_broken_refusal_has_what_is_whole() {
        for end in 0..TOO_MANY.len() {
            let refused = refusal(&TOO_MANY[..end]);
            assert_eq!(refused.is_some(), end > 25, "{end}");
            let Some(refused) = refused else { continue };
            assert_eq!(refused.sqlstate, "53300");
            let why = refused.why.map(|why| why.strip_suffix('…').unwrap().to_owned());
            assert_eq!(why.is_some(), end > 26, "{end}");
            assert!("sorry, too many clients already".starts_with(&why.unwrap_or_default()));
        }
        let cut = "E\0\0\0\x5fC53300\0Mzu viele Größen".as_bytes();
        let within = refusal(&cut[..cut.len() - 5]).unwrap();
        assert_eq!(within.why.as_deref(), Some("zu viele Gr…"), "in the middle of a character");
        assert_eq!(refusal(b"E\0\0\0\x09C\xe9<>\0\0"), None);
        assert_eq!(refusal(b"R\0\0\0\x08C53300\0\0"), None);
    }

    fn message(pairs: &[(&str, &str)]) -> Vec<u8> {
        let mut body = vec![0, 3, 0, 0];
        for (name, value) in pairs {
            body.extend_from_slice(name.as_bytes());
            body.push(0);
            body.extend_from_slice(value.as_bytes());
            body.push(0);
        }
        body.push(0);
        let mut bytes = u32::try_from(body.len() + 4).unwrap().to_be_bytes().to_vec();
        bytes.extend(body);
        bytes
    }

    #[test]
    fn reads_the_names() {
        let bytes = message(&[("user", "shop"), ("database", "orders"), ("application_name", "é")]);
        let startup = parse(&bytes);
        assert_eq!(startup.user.as_deref(), Some("shop"));
        assert_eq!(startup.database.as_deref(), Some("orders"));
        assert_eq!(startup.application_name.as_deref(), Some("é"));
        assert!(!startup.replication);
    }

    #[test]
    fn the_database_defaults_to_the_user() {
        assert_eq!(parse(&message(&[("user", "shop")])).database.as_deref(), Some("shop"));
    }

    #[test]
    fn replication_is_noticed() {
        assert!(parse(&message(&[("user", "r"), ("replication", "true")])).replication);
        assert!(parse(&message(&[("user", "r"), ("replication", "database")])).replication);
        assert!(!parse(&message(&[("user", "r"), ("replication", "off")])).replication);
    }

    #[test]
    fn a_cut_message_gives_what_is_whole() {
        let bytes = message(&[("user", "shop"), ("database", "orders")]);
        for end in 0..bytes.len() {
            let startup = parse(&bytes[..end]);
            assert!(startup.user.is_none() || startup.user.as_deref() == Some("shop"));
            let database = startup.database.as_deref();
            assert!(matches!(database, None | Some("shop" | "orders")), "{database:?}");
        }
    }

    #[test]
    fn broken_bytes_give_nothing() {
        assert_eq!(parse(&[]), Startup::default());
        assert_eq!(parse(&[255; 256]), Startup::default());
        assert_eq!(parse(b"\0\0\0\x01\0\x03\0\0user\0x\0"), Startup::default());
        let mut odd = message(&[("user", "a")]);
        odd.truncate(odd.len() - 3);
        assert_eq!(parse(&odd).user, None);
    }
}
