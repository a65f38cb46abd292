//! The tools that the tracer is compared with.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::bpf::programs_of;

/// A tool that watches connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// bpftrace with a script that people would write: bytes and the latest stack of each socket.
    Bpftrace,
    /// bpftrace with the method of memory leak detectors, on kprobes: the open connections with
    /// their stacks.
    BpftraceOnKprobes,
    /// libbpf-tools' tcpstates: every state change of every connection.
    Tcpstates,
    /// libbpf-tools' tcplife: every connection when it ends.
    Tcplife,
    /// libbpf-tools' tcptop: bytes of every connection, on kprobes.
    Tcptop,
    /// libbpf-tools' tcptracer: every connection when it opens and closes, on kprobes.
    Tcptracer,
}

impl Peer {
    /// All tools.
    pub const ALL: [Self; 6] = [
        Self::Bpftrace,
        Self::BpftraceOnKprobes,
        Self::Tcptop,
        Self::Tcptracer,
        Self::Tcpstates,
        Self::Tcplife,
    ];

    /// The tools that need no kprobes, which some kernels lack.
    pub const ON_TRACEPOINTS: [Self; 3] = [Self::Bpftrace, Self::Tcpstates, Self::Tcplife];

    /// The time between a tool's loading of its programs and its attaching them.
    pub const SETTLING: Duration = Duration::from_millis(500);

    /// The tool's name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BpftraceOnKprobes => "bpftrace on kprobes",
            Self::Bpftrace | Self::Tcpstates | Self::Tcplife | Self::Tcptop | Self::Tcptracer => {
                self.program()
            }
        }
    }

    /// The tool's executable.
    #[must_use]
    pub fn program(self) -> &'static str {
        match self {
            Self::Bpftrace | Self::BpftraceOnKprobes => "bpftrace",
            Self::Tcpstates => "tcpstates",
            Self::Tcplife => "tcplife",
            Self::Tcptop => "tcptop",
            Self::Tcptracer => "tcptracer",
        }
    }

    /// The command that watches connections to `port`, or all connections if the tool has no
    /// filter.
    #[must_use]
    pub fn command(self, port: u16) -> Command {
        let mut command = Command::new(self.program());
        match self {
            Self::Bpftrace => command.args(["-e", &on_tracepoints(port)]),
            Self::BpftraceOnKprobes => command.args(["-e", &on_kprobes(port)]),
            Self::Tcpstates | Self::Tcplife => command.args(["-D", &port.to_string()]),
            // tcptop must not clear the screen: there is no terminal.
            Self::Tcptop => command.arg("--noclear"),
            Self::Tcptracer => &mut command,
        };
        command
    }

    /// Whether this process of the tool has loaded all its programs.
    pub fn has_loaded(self, pid: u32) -> Result<bool> {
        Ok(programs_of(pid)?.len() >= self.programs())
    }

    /// The number of programs that the tool attaches.
    fn programs(self) -> usize {
        match self {
            Self::Tcpstates | Self::Tcplife => 1,
            Self::Tcptop => 2,
            Self::Bpftrace => 3,
            Self::BpftraceOnKprobes => 4,
            Self::Tcptracer => 7,
        }
    }
}

/// A script with the tracer's tracepoints, per-socket counters and user stacks.
fn on_tracepoints(port: u16) -> String {
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

/// A script that keeps, for each open connection, the stack that opened it and the latest that used
/// it.
fn on_kprobes(port: u16) -> String {
    let port = port.to_be();
    format!(
        "kprobe:tcp_v4_connect {{ @opened[arg0] = ustack; }}\n\
         kprobe:tcp_sendmsg {{\n\
             $sk = (struct sock *)arg0;\n\
             if ($sk->__sk_common.skc_dport == {port}) {{\n\
                 @sent[arg0] = count(); @used[arg0] = ustack;\n\
             }}\n\
         }}\n\
         kprobe:tcp_cleanup_rbuf {{\n\
             $sk = (struct sock *)arg0;\n\
             if ($sk->__sk_common.skc_dport == {port} && (int32)arg1 > 0) {{\n\
                 @received[arg0] = count();\n\
             }}\n\
         }}\n\
         kprobe:tcp_close {{\n\
             delete(@opened[arg0]); delete(@sent[arg0]); delete(@used[arg0]); delete(@received[arg0]);\n\
         }}\n"
    )
}
