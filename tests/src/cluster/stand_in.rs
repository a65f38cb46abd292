//! A stand-in for the API server and the kubelet: `tests/apps/cluster/stand_in.py`.

use std::fs;
use std::process::Command;

use anyhow::Result;
use serde_json::Value;

use super::{Access, NODE, PodOnNode};
use crate::certificates::Authority;
use crate::namespace::Namespace;
use crate::program::{Program, Reply};
use crate::suite::{APPS, Suite};

/// A server in a network namespace, whose certificate is signed by the stand-in's own CA.
pub struct StandIn {
    program: Program,
    access: Access,
}

impl StandIn {
    /// Starts the server in this namespace. It does not answer before [`Self::listen`].
    pub fn start(suite: &Suite, network: &Namespace, port: u16) -> Result<Self> {
        let directory = suite.directory()?;
        let service_account = directory.join("account");
        fs::create_dir(&service_account)?;
        Authority::create(&directory, &service_account.join("ca.crt"))?
            .sign("server", &["127.0.0.1"])?;
        fs::write(service_account.join("namespace"), "pgsocktrace")?;
        let mut command = Command::new("/usr/bin/python3");
        command.arg(format!("{APPS}/cluster/stand_in.py"));
        command.arg(directory.join("server.crt")).arg(directory.join("server.key"));
        command.arg(NODE);
        network.adopt(&mut command)?;
        let access = Access { node: NODE.to_owned(), port, service_account };
        let mut server = Self { program: Program::start(&mut command)?, access };
        server.give_token("the-first-token")?;
        Ok(server)
    }

    /// Makes the server answer requests.
    pub fn listen(&mut self) -> Result<()> {
        let command = format!("listen {}", self.access.port);
        self.program.ok(&command).map(drop)
    }

    /// Everything a pod needs to talk to this server.
    #[must_use]
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Writes a token into the service account. The server accepts only this token from now on.
    pub fn give_token(&mut self, token: &str) -> Result<()> {
        fs::write(self.access.service_account.join("token"), token)?;
        self.program.ok(&format!("token {token}")).map(drop)
    }

    /// Replaces the CA certificate in the service account, so that clients can no longer verify the
    /// server.
    pub fn distrust(&self, suite: &Suite) -> Result<()> {
        let directory = suite.directory()?;
        let certificate = directory.join("ca.crt");
        Authority::create(&directory, &certificate)?;
        Ok(fs::copy(certificate, self.access.service_account.join("ca.crt")).map(drop)?)
    }

    /// Adds or updates a pod with one container.
    pub fn put(&mut self, pod: &PodOnNode<'_>) -> Result<()> {
        self.put_object(&pod.as_running_object())
    }

    /// Adds or updates any pod or service.
    pub fn put_object(&mut self, object: &Value) -> Result<()> {
        self.program.ok(&format!("put {object}")).map(drop)
    }

    /// Ends all watches, as API servers do from time to time.
    pub fn hang_up(&mut self) -> Result<()> {
        self.program.ok("hang_up").map(drop)
    }

    /// The number of requests so far, by kind.
    pub fn asked(&mut self) -> Result<Reply> {
        self.program.ok("asked")
    }
}
