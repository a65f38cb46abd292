//! What the DaemonSet and its settings say.

use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;

use super::repository;

/// The manifest of the tracer's pods.
pub struct Manifest {
    pod: Value,
    settings: Vec<String>,
    without: Option<&'static str>,
}

impl Manifest {
    /// Reads the base that users build upon.
    ///
    /// # Errors
    ///
    /// When it is not where it belongs, or says nothing of what is looked for.
    pub fn read() -> Result<Self> {
        let base = repository().join("deploy/kubernetes/base");
        let read = |name: &str| -> Result<Value> {
            let text = fs::read_to_string(base.join(name)).context("manifest")?;
            serde_saphyr::from_str(&text).with_context(|| name.to_owned())
        };
        let pod = read("daemonset.yaml")?["spec"]["template"]["spec"].take();
        let kustomization = read("kustomization.yaml")?;
        let settings = kustomization["configMapGenerator"][0]["literals"].as_array();
        let settings = settings.context("settings")?.iter();
        let settings = settings.filter_map(|one| one.as_str().map(str::to_owned)).collect();
        let manifest = Self { pod, settings, without: None };
        manifest.container()["capabilities"]["add"].as_array().context("capabilities")?;
        Ok(manifest)
    }

    /// The same without this capability.
    #[must_use]
    pub fn without(self, capability: &'static str) -> Self {
        Self { without: Some(capability), ..self }
    }

    /// The names of the capabilities that are left once all were dropped, as the kernel writes them.
    #[must_use]
    pub fn capabilities(&self) -> Vec<String> {
        let added = self.container()["capabilities"]["add"].as_array();
        let names = added.into_iter().flatten().filter_map(Value::as_str);
        names.filter(|name| Some(*name) != self.without).map(|name| format!("CAP_{name}")).collect()
    }

    pub(super) fn environment(&self) -> impl Iterator<Item = String> {
        // Tests ask for metrics where they want to have them.
        self.settings.iter().filter(|one| !one.starts_with("PGSOCKTRACE_METRICS_ADDR")).cloned()
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

    /// In bytes.
    pub(super) fn memory_limit(&self) -> Option<u64> {
        let limit = self.pod["containers"][0]["resources"]["limits"]["memory"].as_str()?;
        Some(limit.strip_suffix("Mi")?.parse::<u64>().ok()? << 20)
    }

    fn container(&self) -> &Value {
        &self.pod["containers"][0]["securityContext"]
    }
}
