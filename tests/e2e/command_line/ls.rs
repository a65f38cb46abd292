//! `pgsocktrace ls`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use harness::suite::finish;
use harness::{FakeServer, Manner, Suite};
use serde_json::Value;

use super::says;

/// Whatever else the machine is busy with.
const SLACK: Duration = Duration::from_secs(5);

pub(super) fn connections(suite: &Suite) -> Result<()> {
    let mut client = suite.client()?;
    let id = client.ok(&format!("connect 4 {}", suite.port()))?.number("cookie")?;
    let port = suite.port().to_string();
    let pid = client.pid().to_string();
    let begun = Instant::now();
    let output = suite.tool_says(&["ls", "-p", &pid, "-P", &port, "-o", "json"])?;
    assert!(begun.elapsed() < Duration::from_secs(1) + SLACK);
    assert_eq!(output.status.code(), Some(0), "{}", says(&output));
    let listing: Value = serde_json::from_slice(&output.stdout)?;
    let listed = listing["connections"].as_array().context("no list")?;
    let [one] = listed.as_slice() else { anyhow::bail!("{listing:#}") };
    assert_eq!(one["id"], id);
    assert_eq!(one["pid"], client.pid());
    assert_eq!(one["tcp_state"], "ESTABLISHED");
    assert_eq!(listing["processes"][0]["pid"], client.pid());

    let text = suite.tool_says(&["ls", "-P", &port, "--pid", &pid])?;
    assert!(says(&text).contains("1 connection of 1 process to 1 server"), "{}", says(&text));
    assert!(says(&text).contains(&pid), "{}", says(&text));
    Ok(())
}

pub(super) fn nothing(suite: &Suite) -> Result<()> {
    let server = FakeServer::start(Manner::Postgres)?;
    let output = suite.tool_says(&["ls", "-P", &server.port().to_string()])?;
    assert_eq!(output.status.code(), Some(0), "{}", says(&output));
    assert!(says(&output).contains("no connections to port"), "{}", says(&output));
    let gone = suite.tool_says(&["ls", "-p", "2147483647"])?;
    assert_eq!(gone.status.code(), Some(1), "{}", says(&gone));
    assert!(says(&gone).contains("no process with PID 2147483647"), "{}", says(&gone));
    Ok(())
}

/// Who may not look into others' processes is told so, and not that there is nothing.
pub(super) fn unprivileged(suite: &Suite) -> Result<()> {
    let mut client = suite.client()?;
    client.ok(&format!("connect 4 {}", suite.port()))?;
    let mut command = suite.tool_as_nobody()?;
    let output = finish(command.args(["ls", "-P", &suite.port().to_string()]))?;
    assert_eq!(output.status.code(), Some(0), "{}", says(&output));
    assert!(says(&output).contains("run it with sudo"), "{}", says(&output));
    Ok(())
}
