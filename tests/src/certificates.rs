//! Keys and certificates, made by `openssl`.
//!
//! rcgen cannot make the RSA keys with which Kubernetes signs tokens.

use std::path::{Path, PathBuf};
use std::{fs, process::Command};

use anyhow::Result;
use support::command::output;

/// Elliptic-curve keys: fast to generate.
const CURVE: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

/// Makes a key and a self-signed certificate. `extensions` are as `-addext` takes them.
pub(crate) fn self_signed(
    key: &Path,
    certificate: &Path,
    name: &str,
    extensions: &[&str],
) -> Result<()> {
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-days", "30", "-subj", &format!("/CN={name}")]).args(CURVE);
    for extension in extensions {
        openssl.args(["-addext", extension]);
    }
    output(openssl.arg("-keyout").arg(key).arg("-out").arg(certificate)).map(drop)
}

/// A certificate authority with its key in a directory.
pub(crate) struct Authority<'a> {
    directory: &'a Path,
    certificate: PathBuf,
}

impl<'a> Authority<'a> {
    /// Makes an authority and writes its certificate to this file.
    pub(crate) fn create(directory: &'a Path, certificate: &Path) -> Result<Self> {
        self_signed(&directory.join("ca.key"), certificate, "cluster", &[])?;
        Ok(Self { directory, certificate: certificate.to_owned() })
    }

    /// Makes the key `NAME.key` and the certificate `NAME.crt` for these addresses.
    pub(crate) fn sign(&self, name: &str, addresses: &[&str]) -> Result<()> {
        let file = |kind: &str| self.directory.join(name).with_extension(kind);
        let names: Vec<_> = addresses.iter().map(|address| format!("IP:{address}")).collect();
        let extensions = format!("subjectAltName={}\nbasicConstraints=CA:FALSE\n", names.join(","));
        fs::write(file("ext"), extensions)?;
        let mut request = Command::new("openssl");
        request.args(["req", "-new", "-subj", "/CN=server"]).args(CURVE);
        output(request.arg("-keyout").arg(file("key")).arg("-out").arg(file("csr")))?;
        let mut sign = Command::new("openssl");
        sign.args(["x509", "-req", "-days", "30", "-CAcreateserial", "-in"]).arg(file("csr"));
        sign.arg("-CA").arg(&self.certificate);
        sign.arg("-CAkey").arg(self.directory.join("ca.key"));
        sign.arg("-extfile").arg(file("ext")).arg("-out").arg(file("crt"));
        output(&mut sign).map(drop)
    }
}

/// Makes an RSA key, with which Kubernetes signs tokens.
pub(crate) fn rsa_key(path: &Path) -> Result<()> {
    output(Command::new("openssl").args(["genrsa", "-out"]).arg(path).arg("2048")).map(drop)
}
