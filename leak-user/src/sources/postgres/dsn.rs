//! Parses the connection strings of `--pg-dsn`.
//!
//! The client library parses most settings; those that only libpq knows are taken out before. A
//! connection string may hold a password, so only its hosts, ports and database are ever shown.

use std::fmt::{self, Write as _};
use std::path::PathBuf;
use std::str::FromStr as _;

use percent_encoding::percent_decode_str;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use crate::sources::postgres::passfile;
use crate::sources::postgres::passfile::Wanted;

const SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];
const DEFAULT_PORT: u16 = 5432;
/// Settings that are passed on to the client library.
const PASSED_ON: [&str; 18] = [
    "user",
    "password",
    "dbname",
    "options",
    "application_name",
    "sslnegotiation",
    "host",
    "hostaddr",
    "port",
    "connect_timeout",
    "tcp_user_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "target_session_attrs",
    "channel_binding",
    "load_balance_hosts",
];

/// How to connect to a server.
#[derive(Clone)]
pub struct Dsn {
    pub(super) config: Config,
    pub(super) verify: Verify,
    pub(super) root_certificate: Option<PathBuf>,
    passfile: Option<PathBuf>,
    has_password: bool,
    name: String,
}

/// Which checks the server's certificate must pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verify {
    Nothing,
    /// A trusted CA issued it.
    Issuer,
    /// And it is issued for the server's name.
    Name,
}

/// Why a connection string is refused. Errors never quote the string: it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DsnError {
    /// It is neither a URL nor a list of settings.
    #[error(
        "it is neither a URL (postgres://user@host:5432/database) nor settings (host=… user=… \
         dbname=…)"
    )]
    Form,
    /// An `@` among the hosts.
    #[error("write an @ in the user's name or the password as %40")]
    At,
    /// An unknown setting.
    #[error("setting number {0} is unknown")]
    Unknown(usize),
    /// A setting with an invalid value.
    #[error("the value of {0} is invalid")]
    Value(&'static str),
    /// No server is named.
    #[error("it names no host")]
    NoHost,
    /// Certificates are to be checked, but no root certificates are given.
    #[error(
        "sslmode=verify-ca and verify-full need sslrootcert=FILE, the certificates to trust; \
         Debian's are in /etc/ssl/certs/ca-certificates.crt"
    )]
    NoRoot,
    /// The client library does not accept it.
    #[error("the settings contradict each other, or a value is malformed")]
    Rejected,
}

impl Dsn {
    /// Reads a URL or a list of settings, as libpq takes them.
    ///
    /// # Errors
    ///
    /// When it is not one, or names no host.
    pub fn parse(text: &str) -> Result<Self, DsnError> {
        let is_url = SCHEMES.iter().any(|scheme| text.starts_with(scheme));
        let (rest, settings) = if is_url { split_url(text)? } else { split_settings(text)? };
        let mut own = LibpqOnly::default();
        let mut left = rest;
        for (index, (name, value)) in settings.into_iter().enumerate() {
            if own.take(&name, &value)? {
                continue;
            }
            if !PASSED_ON.contains(&name.as_str()) {
                return Err(DsnError::Unknown(index + 1));
            }
            append(&mut left, is_url, &name, &value);
        }
        let mut config = Config::from_str(&left).map_err(|_| DsnError::Rejected)?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(DsnError::NoHost);
        }
        let (mode, verify) = own.modes()?;
        config.ssl_mode(mode);
        let name = name(&config);
        let has_password = config.get_password().is_some();
        Ok(Self {
            config,
            verify,
            root_certificate: own.root_certificate,
            passfile: own.passfile,
            has_password,
            name,
        })
    }

    /// The server's name in reports: hosts, ports and database.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it holds a password. On the command line, everyone can see that in `ps`.
    #[must_use]
    pub fn has_password(&self) -> bool {
        self.has_password
    }

    /// The ports to connect to.
    pub(super) fn ports(&self) -> Vec<u16> {
        match self.config.get_ports() {
            [] => vec![DEFAULT_PORT],
            ports => ports.to_vec(),
        }
    }

    /// Adds the password from the password file if the connection string has none.
    ///
    /// # Errors
    ///
    /// When the password file that the string names cannot be used.
    pub(super) fn add_password(&mut self) -> Result<(), String> {
        if self.config.get_password().is_some() {
            return Ok(());
        }
        let (path, asked_for) = match (&self.passfile, default_passfile()) {
            (Some(path), _) => (path.clone(), true),
            (None, Some(path)) if path.exists() => (path, false),
            _ => return Ok(()),
        };
        let text = match passfile::read(&path) {
            Ok(text) => text,
            Err(why) if asked_for => return Err(format!("the password file: {why}")),
            Err(why) => {
                log::warn!("the password file {} is not used: {why}", path.display());
                return Ok(());
            }
        };
        let Some((host, port)) = endpoints(&self.config).into_iter().next() else { return Ok(()) };
        // Without a user, libpq takes the name of the current user, which is root here.
        let user = self.config.get_user().unwrap_or("root").to_owned();
        let database = self.config.get_dbname().unwrap_or(&user).to_owned();
        let wanted =
            Wanted { host: &host, port: &port.to_string(), database: &database, user: &user };
        if let Some(password) = passfile::find(&text, wanted) {
            self.config.password(password);
        }
        Ok(())
    }
}

impl fmt::Debug for Dsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Dsn").field(&self.name).finish()
    }
}

fn default_passfile() -> Option<PathBuf> {
    let named = std::env::var_os("PGPASSFILE").filter(|name| !name.is_empty()).map(PathBuf::from);
    named.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".pgpass")))
}

/// Settings that the client library does not support, or not fully.
#[derive(Default)]
struct LibpqOnly {
    mode: Option<String>,
    root_certificate: Option<PathBuf>,
    passfile: Option<PathBuf>,
}

impl LibpqOnly {
    /// Takes a setting if it is one of these.
    fn take(&mut self, name: &str, value: &str) -> Result<bool, DsnError> {
        match name {
            "sslmode" => self.mode = Some(value.to_owned()),
            "sslrootcert" => self.root_certificate = Some(value.into()),
            "passfile" => self.passfile = Some(value.into()),
            "gssencmode" if value != "require" => {}
            "gssencmode" => return Err(DsnError::Value("gssencmode")),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// As in libpq, `require` with a root certificate checks the issuer.
    fn modes(&self) -> Result<(SslMode, Verify), DsnError> {
        let rooted = self.root_certificate.is_some();
        let modes = match self.mode.as_deref() {
            Some("disable") => (SslMode::Disable, Verify::Nothing),
            None | Some("prefer" | "allow") => (SslMode::Prefer, Verify::Nothing),
            Some("require") if !rooted => (SslMode::Require, Verify::Nothing),
            Some("require" | "verify-ca") => (SslMode::Require, Verify::Issuer),
            Some("verify-full") => (SslMode::Require, Verify::Name),
            Some(_) => return Err(DsnError::Value("sslmode")),
        };
        if modes.1 != Verify::Nothing && !rooted {
            return Err(DsnError::NoRoot);
        }
        Ok(modes)
    }
}

type Parameters = Vec<(String, String)>;

/// Splits a URL into the part before its parameters and the parameters.
fn split_url(text: &str) -> Result<(String, Parameters), DsnError> {
    let (_, after_scheme) = text.split_once("://").ok_or(DsnError::Form)?;
    if let Some((_, after_user)) = after_scheme.split_once('@') {
        let hosts = after_user.split(['/', '?']).next().unwrap_or_default();
        if hosts.contains('@') {
            return Err(DsnError::At);
        }
    }
    let (rest, parameters) = text.split_once('?').unwrap_or((text, ""));
    let decode = |text: &str| {
        percent_decode_str(text)
            .decode_utf8()
            .map(|text| text.into_owned())
            .map_err(|_| DsnError::Form)
    };
    let mut settings = Vec::new();
    for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').ok_or(DsnError::Form)?;
        settings.push((decode(name)?, decode(value)?));
    }
    Ok((rest.to_owned(), settings))
}

/// Splits `name = value` pairs. A value may be in single quotes; a backslash quotes one character.
fn split_settings(text: &str) -> Result<(String, Parameters), DsnError> {
    let mut settings = Vec::new();
    let mut characters = text.trim().chars().peekable();
    while characters.peek().is_some() {
        let mut name = String::new();
        while let Some(character) = characters.next_if(|&c| c != '=') {
            name.push(character);
        }
        if characters.next().is_none() {
            return Err(DsnError::Form);
        }
        while characters.next_if(|c| c.is_whitespace()).is_some() {}
        let quoted = characters.next_if_eq(&'\'').is_some();
        let mut value = String::new();
        let mut closed = !quoted;
        while let Some(character) = characters.next() {
            match character {
                '\'' if quoted => {
                    closed = true;
                    break;
                }
                '\\' => value.extend(characters.next()),
                other if !quoted && other.is_whitespace() => break,
                other => value.push(other),
            }
        }
        if !closed {
            return Err(DsnError::Form);
        }
        while characters.next_if(|c| c.is_whitespace()).is_some() {}
        settings.push((name.trim().to_owned(), value));
    }
    Ok((String::new(), settings))
}

/// Appends a setting in the syntax of the connection string.
fn append(text: &mut String, is_url: bool, name: &str, value: &str) {
    // Writing to a String cannot fail.
    let _ = if is_url {
        let separator = if text.contains('?') { '&' } else { '?' };
        let encode =
            |text| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC);
        write!(text, "{separator}{}={}", encode(name), encode(value))
    } else {
        let value = value.replace('\\', "\\\\").replace('\'', "\\'");
        write!(text, "{name}='{value}' ")
    };
}

/// Each host with its port.
fn endpoints(config: &Config) -> Vec<(String, u16)> {
    let hosts: Vec<String> = if config.get_hosts().is_empty() {
        config.get_hostaddrs().iter().map(ToString::to_string).collect()
    } else {
        let host = |host: &Host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        };
        config.get_hosts().iter().map(host).collect()
    };
    let ports = config.get_ports();
    let port = |index| ports.get(index).or(ports.first()).copied().unwrap_or(DEFAULT_PORT);
    hosts.into_iter().enumerate().map(|(index, host)| (host, port(index))).collect()
}

fn name(config: &Config) -> String {
    let hosts: Vec<String> =
        endpoints(config)
            .into_iter()
            .map(|(host, port)| {
                if host.contains(':') {
                    format!("[{host}]:{port}")
                } else {
                    format!("{host}:{port}")
                }
            })
            .collect();
    let database = config.get_dbname().or(config.get_user()).unwrap_or_default();
    if database.is_empty() { hosts.join(",") } else { format!("{}/{database}", hosts.join(",")) }
}

#[cfg(test)]
mod tests;
