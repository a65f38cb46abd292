//! Runs Prometheus with the rules of this repository.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use support::workspace::root;

use crate::http;
use crate::process::{Running, eventually};
use crate::server::free_port;

/// The path of a file below `deploy/`.
#[must_use]
pub fn deployed(name: &str) -> PathBuf {
    root().join("deploy").join(name)
}

/// A running Prometheus server.
pub struct Prometheus {
    address: SocketAddr,
    _running: Running,
}

impl Prometheus {
    /// Starts Prometheus in `directory`; it scrapes `target` every second.
    ///
    /// It uses the repository's rules, except that alerts wait for one second instead of minutes.
    pub fn start(directory: &Path, target: SocketAddr) -> Result<Self> {
        fs::write(directory.join("rules.yaml"), impatient_rules()?)?;
        fs::write(
            directory.join("prometheus.yaml"),
            format!(
                "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
                 rule_files: [rules.yaml]\n\
                 scrape_configs:\n\
                 - job_name: pgsocktrace\n  \
                   honor_labels: true\n  \
                   static_configs: [{{targets: ['{target}']}}]\n"
            ),
        )?;
        // Another process may take the free port first: the readiness check below notices that.
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", directory.join("prometheus.yaml").display()))
            .arg(format!("--storage.tsdb.path={}", directory.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=warn");
        let running = Running::start(&mut command)?;
        let ready = || Ok(http::get(address, "/-/ready", &[]).is_ok_and(|said| said.status == 200));
        eventually("Prometheus is ready", ready)
            .with_context(|| running.stderr.all().join("\n"))?;
        Ok(Self { address, _running: running })
    }

    /// The result of an instant query: a vector or a scalar.
    pub fn query(&self, expression: &str) -> Result<Vec<Value>> {
        let encoded = utf8_percent_encode(expression, NON_ALPHANUMERIC);
        let answer = self.api(&format!("query?query={encoded}")).context(expression.to_owned())?;
        Ok(answer["result"].as_array().cloned().unwrap_or_default())
    }

    /// The labels of all alerts that are firing.
    pub fn firing(&self) -> Result<Vec<Value>> {
        let alerts = self.api("alerts")?["alerts"].as_array().cloned().unwrap_or_default();
        let firing = alerts.into_iter().filter(|alert| alert["state"] == "firing");
        Ok(firing.map(|alert| alert["labels"].clone()).collect())
    }

    fn api(&self, path: &str) -> Result<Value> {
        let answer = http::get(self.address, &format!("/api/v1/{path}"), &[])?;
        ensure!(answer.status == 200, "{}", answer.body);
        let mut answer: Value = serde_json::from_str(&answer.body)?;
        Ok(answer["data"].take())
    }
}

/// The repository's rules, with alerts that wait for one second.
fn impatient_rules() -> Result<String> {
    let rules = fs::read_to_string(deployed("prometheus/rules.yaml"))?;
    let hasten = |line: &str| match line.trim_start().strip_prefix("for: ") {
        Some(_) => line.split("for: ").next().unwrap_or_default().to_owned() + "for: 1s\n",
        None => format!("{line}\n"),
    };
    Ok(rules.lines().map(hasten).collect())
}
