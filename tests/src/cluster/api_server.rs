//! A real API server with its etcd, in a network namespace.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::kubectl::{Kubectl, write_config};
use super::{Access, NODE, programs};
use crate::certificates::{self, Authority};
use crate::namespace::Namespace;
use support::command::output;

use crate::process::{Guarded, eventually, start_silently};
use crate::suite::Suite;

/// The token of a user who may do everything.
const ADMINISTRATOR: &str = "the-administrators-token";
/// The token with the permissions of the node's kubelet.
const KUBELET: &str = "the-kubelets-token";
/// The first address of the service network, through which pods reach the API server. Here the
/// server itself has this address.
pub(super) const SERVICE: &str = "10.96.0.1";
/// The port of the API server's service, as in every cluster.
const PORT: u16 = 443;

/// A running API server.
pub struct ApiServer<'a> {
    network: &'a Namespace,
    directory: PathBuf,
    access: Access,
    /// In the order in which they are stopped.
    processes: Vec<(&'static str, Guarded)>,
}

impl<'a> ApiServer<'a> {
    /// Starts etcd and the API server in this namespace and waits until the server is ready.
    /// Controllers and scheduler do not run yet.
    pub fn start(suite: &Suite, network: &'a Namespace) -> Result<Self> {
        let directory = suite.directory()?;
        let service_account = directory.join("account");
        fs::create_dir(&service_account)?;
        let authority = Authority::create(&directory, &service_account.join("ca.crt"))?;
        authority.sign("server", &["127.0.0.1", SERVICE])?;
        certificates::rsa_key(&directory.join("accounts.key"))?;
        fs::write(service_account.join("namespace"), "pgsocktrace")?;
        let tokens = format!(
            "{ADMINISTRATOR},admin,1,system:masters\n{KUBELET},system:node:{NODE},2,system:nodes\n"
        );
        fs::write(directory.join("tokens.csv"), tokens)?;
        for (name, token) in [("admin", ADMINISTRATOR), ("kubelet", KUBELET)] {
            let server = format!("https://127.0.0.1:{PORT}");
            let ca = service_account.join("ca.crt");
            write_config(&directory.join(name).with_extension("config"), &server, &ca, token)?;
        }
        let mut address = Command::new("ip");
        network.adopt(address.args(["address", "add", SERVICE, "dev", "lo"]))?;
        output(&mut address)?;

        let access = Access { node: NODE.to_owned(), port: PORT, service_account };
        let mut api = Self { network, directory, access, processes: Vec::new() };
        api.run("etcd", Command::new("etcd").args(["--data-dir=etcd", "--unsafe-no-fsync"]))?;
        api.run(
            "kube-apiserver",
            Command::new(programs()?.join("kube-apiserver")).args([
                "--etcd-servers=http://127.0.0.1:2379",
                "--bind-address=0.0.0.0",
                &format!("--advertise-address={SERVICE}"),
                "--endpoint-reconciler-type=none",
                &format!("--secure-port={PORT}"),
                "--service-cluster-ip-range=10.96.0.0/16",
                "--authorization-mode=Node,RBAC",
                // The node's name does not resolve outside the cluster.
                "--kubelet-preferred-address-types=InternalIP",
                "--kubelet-certificate-authority=account/ca.crt",
                "--kubelet-client-certificate=server.crt",
                "--kubelet-client-key=server.key",
                "--cert-dir=generated",
                "--tls-cert-file=server.crt",
                "--tls-private-key-file=server.key",
                "--token-auth-file=tokens.csv",
                "--service-account-issuer=https://kubernetes.default.svc",
                "--service-account-key-file=accounts.key",
                "--service-account-signing-key-file=accounts.key",
                // The default in newer releases: tokens expire and are rotated.
                "--feature-gates=BoundServiceAccountTokenVolume=true",
            ]),
        )?;
        let kubectl = api.kubectl();
        let ready = || Ok(kubectl.says(&["get", "--raw=/readyz"]).is_ok());
        eventually("the API server is ready", ready).with_context(|| api.complaints())?;
        Ok(api)
    }

    /// Starts the controllers and the scheduler.
    pub fn start_controllers(&mut self) -> Result<()> {
        self.run(
            "kube-controller-manager",
            Command::new(programs()?.join("kube-controller-manager")).args([
                "--kubeconfig=admin.config",
                "--cert-dir=generated",
                "--leader-elect=false",
                "--flex-volume-plugin-dir=plugins",
                "--root-ca-file=account/ca.crt",
                "--service-account-private-key-file=accounts.key",
                "--feature-gates=BoundServiceAccountTokenVolume=true",
            ]),
        )?;
        self.run(
            "kube-scheduler",
            Command::new(programs()?.join("kube-scheduler")).args([
                "--kubeconfig=admin.config",
                "--cert-dir=generated",
                "--leader-elect=false",
            ]),
        )
    }

    /// Everything a pod needs to talk to this server.
    #[must_use]
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// The network namespace in which the server runs.
    #[must_use]
    pub fn network(&self) -> &'a Namespace {
        self.network
    }

    /// A `kubectl` that may do everything.
    #[must_use]
    pub fn kubectl(&self) -> Kubectl<'a> {
        Kubectl::new(self.network, &self.directory, &self.directory.join("admin.config"))
    }

    /// A file for the node's kubelet: `kubelet.config` holds the server's URL and the kubelet's
    /// token.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The last log lines of all programs, for error messages.
    #[must_use]
    pub fn complaints(&self) -> String {
        let said = |(name, _): &(&str, Guarded)| {
            format!("{name}: {}", last_lines(&self.directory.join(name).with_extension("log")))
        };
        self.processes.iter().map(said).collect::<Vec<_>>().join("\n")
    }

    fn run(&mut self, name: &'static str, command: &mut Command) -> Result<()> {
        command.current_dir(&self.directory);
        self.network.adopt(command)?;
        let log = self.directory.join(name).with_extension("log");
        let started = start_silently(command, Stdio::null(), &log).context(name)?;
        self.processes.insert(0, (name, started));
        Ok(())
    }
}

/// The last lines of a log.
pub(super) fn last_lines(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let cut = |line: &str| line.chars().take(200).collect::<String>();
    let lines: Vec<_> = text.lines().map(cut).collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}
