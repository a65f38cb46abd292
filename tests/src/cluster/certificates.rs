//! An authority of a test's own, and what it signs: by `openssl`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::check;

/// Keys that are made quickly.
const CURVE: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

/// An authority whose key lies in a directory.
pub(super) struct Authority<'a> {
    directory: &'a Path,
    certificate: PathBuf,
}

impl<'a> Authority<'a> {
    /// Makes one, with its certificate in this file.
    pub(super) fn create(directory: &'a Path, certificate: &Path) -> Result<Self> {
        check(
            Command::new("openssl")
                .args(["req", "-x509", "-days", "2", "-subj", "/CN=cluster"])
                .args(CURVE)
                .arg("-keyout")
                .arg(directory.join("ca.key"))
                .arg("-out")
                .arg(certificate),
        )?;
        Ok(Self { directory, certificate: certificate.to_owned() })
    }

    /// Makes the key `NAME.key` and the certificate `NAME.crt` for these addresses.
    pub(super) fn sign(&self, name: &str, addresses: &[&str]) -> Result<()> {
        let file = |kind: &str| self.directory.join(name).with_extension(kind);
        let names: Vec<_> = addresses.iter().map(|address| format!("IP:{address}")).collect();
        let extensions = format!("subjectAltName={}\nbasicConstraints=CA:FALSE\n", names.join(","));
        fs::write(file("ext"), extensions)?;
        check(
            Command::new("openssl")
                .args(["req", "-new", "-subj", "/CN=server"])
                .args(CURVE)
                .arg("-keyout")
                .arg(file("key"))
                .arg("-out")
                .arg(file("csr")),
        )?;
        check(
            Command::new("openssl")
                .args(["x509", "-req", "-days", "2", "-CAcreateserial", "-in"])
                .arg(file("csr"))
                .arg("-CA")
                .arg(&self.certificate)
                .arg("-CAkey")
                .arg(self.directory.join("ca.key"))
                .arg("-extfile")
                .arg(file("ext"))
                .arg("-out")
                .arg(file("crt")),
        )
    }
}

/// Makes a key of the kind that signs tokens.
pub(super) fn rsa_key(path: &Path) -> Result<()> {
    check(Command::new("openssl").args(["genrsa", "-out"]).arg(path).arg("2048"))
}
