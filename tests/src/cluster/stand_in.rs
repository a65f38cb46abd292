//! What answers in place of the API server and the kubelet: `tests/apps/cluster/stand_in.py`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use serde_json::{Value, json};

use super::check;
use crate::namespace::Namespace;
use crate::program::{Program, Reply};
use crate::suite::{APPS, Suite};

/// A server with the certificate of an authority of its own, in a network namespace.
pub struct StandIn {
    program: Program,
    port: u16,
    service_account: PathBuf,
}

impl StandIn {
    /// Starts it in this namespace. It does not answer yet.
    ///
    /// # Errors
    ///
    /// When it cannot be started, or `openssl` makes no certificate.
    pub fn start(suite: &Suite, network: &Namespace, port: u16) -> Result<Self> {
        let directory = suite.directory()?;
        let service_account = directory.join("account");
        fs::create_dir(&service_account)?;
        make_certificates(&directory, &service_account.join("ca.crt"))?;
        fs::write(service_account.join("namespace"), "pgsocktrace")?;
        let mut command = Command::new("/usr/bin/python3");
        command.arg(format!("{APPS}/cluster/stand_in.py"));
        command.arg(directory.join("server.crt")).arg(directory.join("server.key"));
        command.arg(Self::NODE);
        network.adopt(&mut command)?;
        let mut server = Self { program: Program::start(&mut command)?, port, service_account };
        server.give_token("the-first-token")?;
        Ok(server)
    }

    const NODE: &str = "node-1.example.org";

    /// Begins to answer.
    ///
    /// # Errors
    ///
    /// When it cannot listen.
    pub fn listen(&mut self) -> Result<()> {
        let command = format!("listen {}", self.port);
        self.program.ok(&command).map(drop)
    }

    /// The node's name.
    #[must_use]
    pub fn node(&self) -> &str {
        Self::NODE
    }

    /// Where it answers.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The directory that pods see as their service account.
    #[must_use]
    pub fn service_account(&self) -> &Path {
        &self.service_account
    }

    /// Writes a token into the service account; it is the only one that is taken from now on.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn give_token(&mut self, token: &str) -> Result<()> {
        fs::write(self.service_account.join("token"), token)?;
        self.program.ok(&format!("token {token}")).map(drop)
    }

    /// Tells of a pod with one container, or of what has become of it.
    ///
    /// # Errors
    ///
    /// When it does not take it.
    pub fn put(&mut self, pod: &PodOnNode<'_>) -> Result<()> {
        self.program.ok(&format!("put {}", pod.as_api_object())).map(drop)
    }

    /// Ends all watches, as servers do from time to time.
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub fn hang_up(&mut self) -> Result<()> {
        self.program.ok("hang_up").map(drop)
    }

    /// How often it was asked for what.
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub fn asked(&mut self) -> Result<Reply> {
        self.program.ok("asked")
    }
}

/// A pod, as far as it matters.
#[expect(missing_docs, reason = "the fields are those of the API's objects")]
pub struct PodOnNode<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    pub uid: &'a str,
    pub containers: &'a [&'a str],
    /// Id of the container that runs: the first one.
    pub running: Option<&'a str>,
    pub labels: Value,
}

impl PodOnNode<'_> {
    fn as_api_object(&self) -> Value {
        let containers: Vec<_> = self.containers.iter().map(|name| json!({"name": name})).collect();
        let statuses: Vec<_> = self
            .running
            .iter()
            .map(|id| {
                json!({"name": self.containers[0], "containerID": format!("containerd://{id}"),
                    "image": "shop:1", "imageID": "", "ready": true, "restartCount": 0,
                    "state": {"running": {"startedAt": "2026-01-02T03:04:05Z"}}})
            })
            .collect();
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"namespace": self.namespace, "name": self.name, "uid": self.uid,
                "labels": self.labels},
            "spec": {"nodeName": StandIn::NODE, "containers": containers},
            "status": {"phase": "Running", "containerStatuses": statuses},
        })
    }
}

/// An authority, and a certificate that it has signed for 127.0.0.1.
fn make_certificates(directory: &Path, authority: &Path) -> Result<()> {
    let key = |name: &str| directory.join(name).with_extension("key");
    let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let request = directory.join("server.csr");
    let extensions = directory.join("extensions");
    fs::write(&extensions, "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")?;
    check(
        Command::new("openssl")
            .args(["req", "-x509", "-days", "2", "-subj", "/CN=cluster"])
            .args(curve)
            .arg("-keyout")
            .arg(key("ca"))
            .arg("-out")
            .arg(authority),
    )?;
    check(
        Command::new("openssl")
            .args(["req", "-new", "-subj", "/CN=api"])
            .args(curve)
            .arg("-keyout")
            .arg(key("server"))
            .arg("-out")
            .arg(&request),
    )?;
    check(
        Command::new("openssl")
            .args(["x509", "-req", "-days", "2", "-CAcreateserial", "-in"])
            .arg(&request)
            .arg("-CA")
            .arg(authority)
            .arg("-CAkey")
            .arg(key("ca"))
            .arg("-extfile")
            .arg(&extensions)
            .arg("-out")
            .arg(directory.join("server.crt")),
    )
}
