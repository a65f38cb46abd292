//! The table of hooks: which kernel functions and tracepoints can serve which purpose.

use std::fmt;

/// What a hook is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// Connections opened and established, and why they failed.
    Connect,
    /// Connections destroyed.
    Close,
    /// Payload sent, requests and their stacks.
    Send,
    /// Payload received, and with it PostgreSQL's state.
    Receive,
    /// Children of traced processes.
    Children,
}

impl Purpose {
    /// All purposes in the order of attachment: the end of connections before their beginning, so
    /// that no connection is seen to begin whose end is missed.
    pub const ALL: [Self; 5] =
        [Self::Children, Self::Close, Self::Receive, Self::Send, Self::Connect];

    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Close => "close",
            Self::Send => "send",
            Self::Receive => "receive",
            Self::Children => "children",
        }
    }

    /// What it shows, as `doctor` prints it.
    #[must_use]
    pub fn tells(self) -> &'static str {
        match self {
            Self::Connect => "connections opened, established and failed, and who opened them",
            Self::Close => "connections destroyed",
            Self::Send => "bytes sent, requests and their stacks",
            Self::Receive => "bytes received, PostgreSQL's state",
            Self::Children => "children of traced processes (--children)",
        }
    }

    /// What is lost without it, as errors say it.
    #[must_use]
    pub fn without(self) -> &'static str {
        match self {
            Self::Connect => "new connections would not be seen",
            Self::Close => "closed connections would count as open until the next inventory",
            Self::Send => "requests, their stacks and bytes sent would not be seen",
            Self::Receive => "bytes received and PostgreSQL's state would not be seen",
            Self::Children => "--children has no effect: only the given processes are traced",
        }
    }

    /// Whether tracing is impossible without it.
    #[must_use]
    pub fn is_needed(self) -> bool {
        self != Self::Children
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A way of hooking, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flavour {
    /// BTF tracepoints.
    BtfTracepoint,
    /// fexit programs, at the return of a function.
    Fexit,
    /// kprobes and kretprobes.
    Kprobe,
}

/// How one kernel program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// To a tracepoint, by BTF.
    Tracepoint,
    /// To a function's return, by BTF.
    FunctionExit,
    /// To a function, by breakpoint or ftrace. The program says whether at its entry or its return.
    Kprobe,
}

/// One kernel program and what it is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// Name in the object file.
    pub name: &'static str,
    /// How it is attached.
    pub attachment: Attachment,
    /// The tracepoint or function.
    pub target: &'static str,
}

/// A set of programs that together serve a purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Its purpose.
    pub purpose: Purpose,
    /// Its way of hooking.
    pub flavour: Flavour,
    /// Its name in reports.
    pub label: &'static str,
    /// Its programs: all of them are attached, or none.
    pub programs: &'static [Program],
    /// The numbers of parameters of the hooked function that the programs can handle; empty if it
    /// does not matter.
    pub parameters: &'static [usize],
    /// What it requires, as `doctor` prints it.
    pub requirement: &'static str,
}

const fn tracepoint(name: &'static str, target: &'static str) -> Program {
    Program { name, attachment: Attachment::Tracepoint, target }
}

const fn function_exit(name: &'static str, target: &'static str) -> Program {
    Program { name, attachment: Attachment::FunctionExit, target }
}

const fn kprobe(name: &'static str, target: &'static str) -> Program {
    Program { name, attachment: Attachment::Kprobe, target }
}

const fn receive_fexit(program: &'static [Program; 1], parameters: &'static [usize]) -> Hook {
    Hook {
        purpose: Purpose::Receive,
        flavour: Flavour::Fexit,
        label: "fexit/tcp_recvmsg",
        programs: program,
        parameters,
        requirement: "Linux 5.15 or later with BTF and function tracing",
    }
}

/// Every hook, best first within its purpose.
pub const HOOKS: &[Hook] = &[
    Hook {
        purpose: Purpose::Connect,
        flavour: Flavour::BtfTracepoint,
        label: "tp_btf/inet_sock_set_state",
        programs: &[tracepoint("state_change", "inet_sock_set_state")],
        parameters: &[],
        requirement: "Linux 5.15 or later with BTF",
    },
    Hook {
        purpose: Purpose::Close,
        flavour: Flavour::BtfTracepoint,
        label: "tp_btf/tcp_destroy_sock",
        programs: &[tracepoint("destroy", "tcp_destroy_sock")],
        parameters: &[],
        requirement: "Linux 5.15 or later with BTF",
    },
    Hook {
        purpose: Purpose::Send,
        flavour: Flavour::BtfTracepoint,
        label: "tp_btf/sock_send_length",
        programs: &[tracepoint("send_tracepoint", "sock_send_length")],
        parameters: &[],
        requirement: "Linux 6.4 or later with BTF",
    },
    Hook {
        purpose: Purpose::Send,
        flavour: Flavour::Fexit,
        label: "fexit/tcp_sendmsg",
        programs: &[function_exit("send_fexit", "tcp_sendmsg")],
        parameters: &[],
        requirement: "Linux 5.15 or later with BTF and function tracing",
    },
    Hook {
        purpose: Purpose::Send,
        flavour: Flavour::Kprobe,
        label: "kprobe/tcp_sendmsg",
        programs: &[kprobe("send_kretprobe", "tcp_sendmsg"), kprobe("send_kprobe", "tcp_sendmsg")],
        parameters: &[],
        requirement: "kprobes, and CAP_SYS_ADMIN where perf_event_paranoid demands it",
    },
    Hook {
        purpose: Purpose::Receive,
        flavour: Flavour::BtfTracepoint,
        label: "tp_btf/sock_recv_length",
        programs: &[tracepoint("receive_tracepoint", "sock_recv_length")],
        parameters: &[],
        requirement: "Linux 6.4 or later with BTF",
    },
    receive_fexit(&[function_exit("receive_fexit_4", "tcp_recvmsg")], &[4]),
    receive_fexit(&[function_exit("receive_fexit_5", "tcp_recvmsg")], &[5]),
    receive_fexit(&[function_exit("receive_fexit_6", "tcp_recvmsg")], &[6]),
    Hook {
        purpose: Purpose::Receive,
        flavour: Flavour::Kprobe,
        label: "kprobe/tcp_recvmsg",
        programs: &[
            tracepoint("receive_copied", "tcp_rcv_space_adjust"),
            kprobe("receive_kprobe", "tcp_recvmsg"),
        ],
        parameters: &[],
        requirement: "kprobes, and CAP_SYS_ADMIN where perf_event_paranoid demands it",
    },
    Hook {
        purpose: Purpose::Children,
        flavour: Flavour::BtfTracepoint,
        label: "tp_btf/sched_process_fork",
        programs: &[
            tracepoint("fork", "sched_process_fork"),
            tracepoint("exit", "sched_process_exit"),
        ],
        parameters: &[],
        requirement: "Linux 5.15 or later with BTF",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_purpose_has_hooks_best_first() {
        for purpose in Purpose::ALL {
            let flavours: Vec<_> =
                HOOKS.iter().filter(|h| h.purpose == purpose).map(|h| h.flavour).collect();
            assert!(!flavours.is_empty(), "{purpose} has no hook");
            assert!(flavours.is_sorted(), "{purpose}: {flavours:?}");
        }
    }
}
