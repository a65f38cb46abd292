//! A real kube-apiserver with its etcd, in a network namespace.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::certificates::{self, Authority};
use super::{Access, NODE, PodOnNode, repository};
use crate::namespace::Namespace;
use crate::process::{Silent, eventually};
use crate::suite::{Suite, finish};

/// What may do everything there.
const ADMINISTRATOR: &str = "the-administrators-token";

/// The server. Nobody schedules or runs what it is told of.
pub struct ApiServer<'a> {
    _processes: [Silent; 2],
    network: &'a Namespace,
    directory: PathBuf,
    access: Access,
}

impl<'a> ApiServer<'a> {
    /// The program, which the environment names: `cargo xtask test cluster` builds it.
    #[must_use]
    pub fn path() -> Option<PathBuf> {
        env::var_os("PGSOCKTRACE_KUBE_APISERVER").map(PathBuf::from)
    }

    /// Starts it in this namespace and waits until it is ready.
    ///
    /// # Errors
    ///
    /// When it cannot be started, with what it said.
    pub fn start(suite: &Suite, network: &'a Namespace, port: u16) -> Result<Self> {
        let directory = suite.directory()?;
        let service_account = directory.join("account");
        fs::create_dir(&service_account)?;
        let authority = Authority::create(&directory, &service_account.join("ca.crt"))?;
        authority.sign("server")?;
        certificates::rsa_key(&directory.join("accounts.key"))?;
        fs::write(service_account.join("namespace"), "pgsocktrace")?;
        let tokens = format!("{ADMINISTRATOR},admin,1,system:masters\n");
        fs::write(directory.join("tokens.csv"), tokens)?;

        let run = |command: &mut Command, log: &str| -> Result<Silent> {
            network.adopt(command)?;
            Silent::start(command, Stdio::null(), &directory.join(log))
        };
        let mut etcd = Command::new("etcd");
        etcd.arg("--data-dir").arg(directory.join("etcd")).args(["--unsafe-no-fsync"]);
        let etcd = run(&mut etcd, "etcd.log")?;
        let file =
            |option: &str, name: &str| format!("{option}={}", directory.join(name).display());
        let mut server =
            Command::new(Self::path().context("PGSOCKTRACE_KUBE_APISERVER is not set")?);
        server.current_dir(&directory).args([
            "--etcd-servers=http://127.0.0.1:2379",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            "--authorization-mode=RBAC",
            // Controllers make the default service accounts, and none runs here.
            "--disable-admission-plugins=ServiceAccount",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.96.0.0/16",
            &format!("--secure-port={port}"),
            &file("--cert-dir", "generated"),
            &file("--tls-cert-file", "server.crt"),
            &file("--tls-private-key-file", "server.key"),
            &file("--service-account-key-file", "accounts.key"),
            &file("--service-account-signing-key-file", "accounts.key"),
            &file("--token-auth-file", "tokens.csv"),
        ]);
        let server = run(&mut server, "server.log")?;
        let access = Access { node: NODE.to_owned(), port, service_account };
        let api = Self { _processes: [etcd, server], network, directory, access };
        eventually("the API server is ready", || {
            Ok(api.kubectl(&["get", "--raw=/readyz"]).is_ok())
        })
        .with_context(|| api.complaints())?;
        Ok(api)
    }

    /// What pods need to ask it.
    #[must_use]
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// `kubectl apply -k` of the manifests that users apply, and a token of the service account in them.
    ///
    /// # Errors
    ///
    /// When the server refuses something.
    pub fn deploy(&self) -> Result<()> {
        let base = repository().join("deploy/kubernetes/base");
        self.kubectl(&["apply", "--validate=false", "-k", &base.to_string_lossy()])?;
        let token = self.kubectl(&["-n", "pgsocktrace", "create", "token", "pgsocktrace"])?;
        Ok(fs::write(self.access.service_account.join("token"), token.trim())?)
    }

    /// Makes a pod that is bound to the node, and returns its UID.
    ///
    /// # Errors
    ///
    /// When the server refuses it.
    pub fn create(&self, pod: &PodOnNode<'_>) -> Result<String> {
        let path = self.directory.join("pod.json");
        let namespace = format!("--namespace={}", pod.namespace);
        self.kubectl(&["create", "namespace", pod.namespace])?;
        fs::write(&path, pod.as_new_object().to_string())?;
        let created = self.kubectl(&[
            &namespace,
            "create",
            "--validate=false",
            "-o",
            "json",
            "-f",
            &path.to_string_lossy(),
        ])?;
        let created: Value = serde_json::from_str(&created)?;
        Ok(created["metadata"]["uid"].as_str().context("uid")?.to_owned())
    }

    /// Says what runs in a pod, as its kubelet would.
    ///
    /// # Errors
    ///
    /// When the server refuses it.
    pub fn report_status(&self, pod: &PodOnNode<'_>) -> Result<()> {
        let namespace = format!("--namespace={}", pod.namespace);
        let status = pod.as_status().to_string();
        self.kubectl(&[
            &namespace,
            "patch",
            "pod",
            pod.name,
            "--subresource=status",
            "--type=merge",
            "-p",
            &status,
        ])?;
        Ok(())
    }

    /// Whether the tracer's service account may do this, such as `list pods`.
    ///
    /// # Errors
    ///
    /// When the server cannot be asked.
    pub fn allows(&self, verb: &str, resource: &str) -> Result<bool> {
        let account = "--as=system:serviceaccount:pgsocktrace:pgsocktrace";
        let mut command = self.command(&["auth", "can-i", verb, resource, "-A", account])?;
        let said = String::from_utf8(finish(&mut command)?.stdout)?;
        match said.trim() {
            "yes" => Ok(true),
            "no" => Ok(false),
            _ => anyhow::bail!("kubectl auth can-i {verb} {resource}: {said}"),
        }
    }

    fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let output = finish(&mut self.command(arguments)?)?;
        ensure!(output.status.success(), "kubectl {arguments:?}: {output:?}");
        Ok(String::from_utf8(output.stdout)?)
    }

    fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new("kubectl");
        // It remembers what servers offer below the home directory.
        command.env("HOME", &self.directory).env("KUBECONFIG", "/dev/null");
        command.arg(format!("--server=https://127.0.0.1:{}", self.access.port));
        command.arg(format!("--token={ADMINISTRATOR}"));
        command.arg("--certificate-authority").arg(self.access.service_account.join("ca.crt"));
        command.args(arguments);
        self.network.adopt(&mut command)?;
        Ok(command)
    }

    fn complaints(&self) -> String {
        let last = |name: &str| -> String {
            let text = fs::read_to_string(self.directory.join(name)).unwrap_or_default();
            let lines: Vec<_> = text.lines().rev().take(12).collect();
            lines.into_iter().rev().collect::<Vec<_>>().join("\n")
        };
        format!("etcd: {}\nserver: {}", last("etcd.log"), last("server.log"))
    }
}
