//! What people would use instead.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use ::tests::bpf::programs_of;
use anyhow::{Result, ensure};

use crate::process::{Guarded, pause};

/// How long a tool may take to attach.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often it is asked whether it has.
const POLL: Duration = Duration::from_millis(100);

/// Another tool that watches connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// bpftrace, with the script that people write: bytes and the latest stack of each socket.
    Bpftrace,
    /// libbpf-tools' tcpstates: each change of state of each connection.
    Tcpstates,
    /// libbpf-tools' tcplife: each connection when it ends.
    Tcplife,
}

impl Peer {
    pub(super) const ALL: [Self; 3] = [Self::Bpftrace, Self::Tcpstates, Self::Tcplife];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bpftrace => "bpftrace",
            Self::Tcpstates => "tcpstates",
            Self::Tcplife => "tcplife",
        }
    }

    /// How many programs it attaches.
    fn programs(self) -> usize {
        match self {
            Self::Bpftrace => 3,
            Self::Tcpstates | Self::Tcplife => 1,
        }
    }

    /// Starts it on connections to `port`, and waits until it is attached.
    pub(super) fn start(self, port: u16) -> Result<Guarded> {
        let arguments = match self {
            Self::Bpftrace => ["-e".to_owned(), script(port)],
            Self::Tcpstates | Self::Tcplife => ["-D".to_owned(), port.to_string()],
        };
        // They look for tracefs, which a machine need not have mounted: one for them alone does.
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c"])
            .arg("mount -t tracefs none /sys/kernel/tracing && exec \"$@\"")
            .args(["sh", self.name()])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut process = Guarded::spawn(&mut command, libc::SIGINT)?;
        let end = Instant::now() + PATIENCE;
        while programs_of(process.pid())?.len() < self.programs() {
            process.ensure_running()?;
            ensure!(Instant::now() < end, "{} does not attach.", self.name());
            pause(POLL)?;
        }
        // Loaded is not attached yet.
        pause(5 * POLL)?;
        Ok(process)
    }
}

/// The same tracepoints, per-socket counters and user stacks.
fn script(port: u16) -> String {
    let port = port.to_be();
    format!(
        "tracepoint:sock:inet_sock_set_state /args->newstate == 2/ {{ @opened[args->skaddr] = ustack; }}\n\
         tracepoint:sock:sock_send_length {{\n\
             $sk = (struct sock *)args->sk;\n\
             if ($sk->__sk_common.skc_dport == {port} && args->ret > 0) {{\n\
                 @sent[args->sk] = sum(args->ret); @used[args->sk] = ustack; @at[args->sk] = nsecs;\n\
             }}\n\
         }}\n\
         tracepoint:sock:sock_recv_length {{\n\
             $sk = (struct sock *)args->sk;\n\
             if ($sk->__sk_common.skc_dport == {port} && args->ret > 0) {{\n\
                 @received[args->sk] = sum(args->ret); @answered[args->sk] = nsecs;\n\
             }}\n\
         }}\n"
    )
}
