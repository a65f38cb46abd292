//! Runs `kubectl` as a user with given permissions.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::programs;
use crate::namespace::Namespace;
use crate::suite::finish;

/// A client of an API server, which runs in the server's network namespace.
pub struct Kubectl<'a> {
    network: &'a Namespace,
    /// A writable home directory.
    home: PathBuf,
    config: PathBuf,
}

impl<'a> Kubectl<'a> {
    pub(super) fn new(network: &'a Namespace, home: &Path, config: &Path) -> Self {
        Self { network, home: home.to_owned(), config: config.to_owned() }
    }

    /// Runs `kubectl` with these arguments and returns its stdout.
    pub fn says(&self, arguments: &[&str]) -> Result<String> {
        let output = finish(&mut self.command(arguments)?)?;
        ensure!(output.status.success(), "kubectl {arguments:?}: {output:?}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Gets an object of the API.
    pub fn object(&self, arguments: &[&str]) -> Result<Value> {
        let said = self.says(&[&["get", "--output=json"], arguments].concat())?;
        serde_json::from_str(&said).with_context(|| said)
    }

    /// Creates an object, and returns it as the server stores it.
    pub fn create(&self, object: &Value) -> Result<Value> {
        let path = self.home.join("object.json");
        fs::write(&path, object.to_string())?;
        let path = path.to_string_lossy();
        let created = self.says(&["create", "--validate=false", "--output=json", "-f", &path])?;
        serde_json::from_str(&created).context(created)
    }

    /// Applies the kustomization in a directory.
    pub fn apply(&self, directory: &Path) -> Result<()> {
        // No validation: the server's OpenAPI schema is in an older format than `kubectl` reads.
        self.says(&["apply", "--validate=false", "-k", &directory.to_string_lossy()]).map(drop)
    }

    /// Whether an account may do `what`, such as `list pods`, in every namespace.
    pub fn allows(&self, account: &str, what: &[&str]) -> Result<bool> {
        let account = format!("--as=system:serviceaccount:{account}");
        let mut command =
            self.command(&[&["auth", "can-i", "--all-namespaces", &account], what].concat())?;
        let output = finish(&mut command)?;
        match String::from_utf8_lossy(&output.stdout).trim() {
            "yes" => Ok(true),
            "no" => Ok(false),
            _ => anyhow::bail!("kubectl auth can-i {what:?}: {output:?}"),
        }
    }

    /// `kubectl` with these arguments, not started.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(programs()?.join("kubectl"));
        // `kubectl` caches the server's API below the home directory.
        command.env("HOME", &self.home).env("KUBECONFIG", &self.config).args(arguments);
        self.network.adopt(&mut command)?;
        Ok(command)
    }
}

/// Writes a kubeconfig for this server and token.
pub(super) fn write_config(path: &Path, server: &str, ca: &Path, token: &str) -> Result<()> {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "it", "cluster": {"server": server, "certificate-authority": ca}}],
        "users": [{"name": "it", "user": {"token": token}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        "current-context": "it",
    });
    Ok(fs::write(path, config.to_string())?)
}
