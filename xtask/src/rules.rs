//! `cargo xtask rules`: the rules for Prometheus, once more for the Prometheus operator.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

/// The rules, as plain Prometheus reads them.
const PLAIN: &str = "deploy/prometheus/rules.yaml";
/// The same as a resource of Kubernetes.
const RESOURCE: &str = "deploy/prometheus/prometheusrule.yaml";

/// What the resource has besides the rules.
const HEAD: &str = "\
# Made from rules.yaml by `cargo xtask rules`: change that file, and run it.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: pgsocktrace
  labels:
    app.kubernetes.io/name: pgsocktrace
spec:
";

/// Writes the resource.
pub(crate) fn run(workspace: &Path) -> Result<()> {
    let plain = fs::read_to_string(workspace.join(PLAIN)).context(PLAIN)?;
    fs::write(workspace.join(RESOURCE), resource(&plain)).context(RESOURCE)
}

/// The rules below the resource's `spec`; a step to the right is all that YAML asks for.
fn resource(plain: &str) -> String {
    let rules = plain.lines().filter(|line| !line.starts_with('#'));
    let indented = rules.map(|line| match line {
        "" => "\n".to_owned(),
        line => format!("  {line}\n"),
    });
    std::iter::once(HEAD.to_owned()).chain(indented).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resource_has_the_rules_of_the_day() {
        let root = support::workspace::root();
        let read = |path| fs::read_to_string(root.join(path)).unwrap();
        let hint = "run `cargo xtask rules`";
        assert!(read(RESOURCE) == resource(&read(PLAIN)), "{RESOURCE} is out of date: {hint}");
    }
}
