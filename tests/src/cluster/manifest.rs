//! Reads the DaemonSet and its settings.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use support::workspace::root;

/// The manifest of the tracer's pods.
pub struct Manifest {
    pod: Value,
    settings: Vec<String>,
    capabilities: Vec<String>,
}

impl Manifest {
    /// The directory of the kustomize base.
    #[must_use]
    pub fn base() -> PathBuf {
        root().join("deploy/kubernetes/base")
    }

    /// Reads the base.
    pub fn read() -> Result<Self> {
        let pod = read("base/daemonset.yaml")?["spec"]["template"]["spec"].take();
        let kustomization = read("base/kustomization.yaml")?;
        let settings = texts(&kustomization["configMapGenerator"][0]["literals"])?;
        let mut manifest = Self { pod, settings, capabilities: Vec::new() };
        manifest.capabilities = texts(&manifest.container()["capabilities"]["add"])?;
        Ok(manifest)
    }

    /// Reads the base with the component that removes CAP_SYS_ADMIN.
    pub fn without_sys_admin() -> Result<Self> {
        let component = read("components/without-sys-admin/kustomization.yaml")?;
        let patch = component["patches"][0]["patch"].as_str().context("patch")?;
        let patch: Value = serde_saphyr::from_str(patch)?;
        let path = "/spec/template/spec/containers/0/securityContext/capabilities/add";
        ensure!(patch[0]["path"] == path, "{patch}");
        Ok(Self { capabilities: texts(&patch[0]["value"])?, ..Self::read()? })
    }

    /// Removes this capability from the manifest.
    pub fn without(mut self, capability: &str) -> Result<Self> {
        let before = self.capabilities.len();
        self.capabilities.retain(|name| name != capability);
        ensure!(self.capabilities.len() < before, "the manifest does not add {capability}");
        Ok(self)
    }

    /// The capabilities that the manifest adds, with the kernel's names.
    pub(super) fn capabilities(&self) -> Vec<String> {
        self.capabilities.iter().map(|name| format!("CAP_{name}")).collect()
    }

    pub(super) fn environment(&self) -> &[String] {
        &self.settings
    }

    /// The port for Prometheus and the kubelet's probes.
    pub fn metrics_port(&self) -> Result<u64> {
        self.pod["containers"][0]["ports"][0]["containerPort"].as_u64().context("metrics port")
    }

    /// The paths of the startup, liveness and readiness probes.
    pub fn probes(&self) -> Result<Vec<String>> {
        let container = &self.pod["containers"][0];
        let path = |name: &str| {
            let path = container[name]["httpGet"]["path"].as_str();
            Ok(path.with_context(|| name.to_owned())?.to_owned())
        };
        ["startupProbe", "livenessProbe", "readinessProbe"].into_iter().map(path).collect()
    }

    pub(super) fn shares_pids(&self) -> bool {
        self.pod["hostPID"] == true
    }

    pub(super) fn has_read_only_root(&self) -> bool {
        self.container()["readOnlyRootFilesystem"] == true
    }

    pub(super) fn may_gain_privileges(&self) -> bool {
        self.container()["allowPrivilegeEscalation"] != false
    }

    pub(super) fn user(&self) -> u64 {
        self.container()["runAsUser"].as_u64().unwrap_or(0)
    }

    /// The memory limit in bytes.
    pub(super) fn memory_limit(&self) -> Option<u64> {
        let limit = self.pod["containers"][0]["resources"]["limits"]["memory"].as_str()?;
        Some(limit.strip_suffix("Mi")?.parse::<u64>().ok()? << 20)
    }

    fn container(&self) -> &Value {
        &self.pod["containers"][0]["securityContext"]
    }
}

fn read(name: &str) -> Result<Value> {
    let text = fs::read_to_string(root().join("deploy/kubernetes").join(name));
    serde_saphyr::from_str(&text.with_context(|| name.to_owned())?).with_context(|| name.to_owned())
}

fn texts(list: &Value) -> Result<Vec<String>> {
    let list = list.as_array().with_context(|| format!("no list: {list}"))?;
    Ok(list.iter().filter_map(|one| one.as_str().map(str::to_owned)).collect())
}
