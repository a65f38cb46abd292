//! Starts the tools that the tracer is compared with.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use harness::cost::Peer;

use support::process::{Guarded, Signal, pause};

/// How long a tool may take to attach.
const ATTACH_LIMIT: Duration = Duration::from_secs(30);

/// How often it is asked whether it has.
const POLL: Duration = Duration::from_millis(100);

/// Starts it on connections to `port`, and waits until it is attached.
pub(super) fn start(peer: Peer, port: u16) -> Result<Guarded> {
    let watch = peer.command(port);
    // They look for tracefs, which a machine need not have mounted: one for them alone does.
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c"])
        .arg("mount -t tracefs none /sys/kernel/tracing && exec \"$@\"")
        .arg("sh")
        .arg(watch.get_program())
        .args(watch.get_args())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut process = Guarded::spawn(&mut command, Signal::INT)?;
    let end = Instant::now() + ATTACH_LIMIT;
    while !peer.has_loaded(process.pid())? {
        process.ensure_running()?;
        ensure!(Instant::now() < end, "{} does not attach.", peer.name());
        pause(POLL)?;
    }
    pause(Peer::SETTLING)?;
    Ok(process)
}
