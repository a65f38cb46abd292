//! The ways to deploy the tracer, as kustomize overlays that users would write.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use harness::Suite;
use harness::cluster::Manifest;
use serde_json::json;

const DAC_READ_SEARCH: u32 = 2;
const SYS_PTRACE: u32 = 19;
const SYS_ADMIN: u32 = 21;
const PERFMON: u32 = 38;
const BPF: u32 = 39;

/// A way to deploy the tracer.
pub(crate) struct Way {
    pub(crate) component: Option<&'static str>,
    /// The source of pod names: the API server or the kubelet.
    pub(crate) names: &'static str,
    /// The tracer's capabilities, with the numbers of capabilities(7).
    pub(crate) capabilities: &'static [u32],
}

/// The base, and the components that change the tracer's sources or permissions.
pub(crate) const WAYS: [Way; 3] = [
    Way {
        component: None,
        names: "API server",
        capabilities: &[DAC_READ_SEARCH, SYS_PTRACE, SYS_ADMIN],
    },
    Way {
        component: Some("kubelet"),
        names: "kubelet",
        capabilities: &[DAC_READ_SEARCH, SYS_PTRACE, SYS_ADMIN],
    },
    Way {
        component: Some("without-sys-admin"),
        names: "API server",
        capabilities: &[DAC_READ_SEARCH, SYS_PTRACE, PERFMON, BPF],
    },
];

impl Way {
    /// Writes an overlay that sets the server's port and short intervals.
    pub(crate) fn overlay(&self, suite: &Suite, port: u16) -> Result<PathBuf> {
        let (directory, base) = (suite.directory()?, Manifest::base());
        // Kustomize accepts only relative paths.
        let relative = |path: &Path| -> Result<String> {
            let up = "../".repeat(directory.components().count() - 1);
            Ok(format!("{up}{}", path.strip_prefix("/")?.display()))
        };
        let mut kustomization = json!({
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": "pgsocktrace",
            "resources": [relative(&base)?],
            "images": [{"name": "pgsocktrace", "newName": "localhost/pgsocktrace"}],
            "configMapGenerator": [{"name": "pgsocktrace", "behavior": "merge", "literals": [
                format!("PGSOCKTRACE_PORT={port}"),
                "PGSOCKTRACE_INTERVAL=500ms",
                "PGSOCKTRACE_SILENT_AFTER=2s",
                "PGSOCKTRACE_POD_LABEL=app",
                "PGSOCKTRACE_OUTPUT=ndjson",
            ]}],
        });
        if let Some(name) = self.component {
            let component = base.with_file_name("components").join(name);
            kustomization["components"] = json!([relative(&component)?]);
        }
        if self.component == Some("kubelet") {
            // This old kubelet does not support `nodes/pods`.
            let rule = json!({"apiGroups": [""], "resources": ["nodes/proxy"], "verbs": ["get"]});
            let patch = json!([{"op": "add", "path": "/rules/-", "value": rule}]).to_string();
            let role = json!({"kind": "ClusterRole", "name": "pgsocktrace"});
            kustomization["patches"] = json!([{"target": role, "patch": patch}]);
        }
        fs::write(directory.join("kustomization.yaml"), kustomization.to_string())?;
        Ok(directory)
    }
}
