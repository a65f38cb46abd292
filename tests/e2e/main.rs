//! The end-to-end tests, one module per suite. `cargo xtask test SUITE` runs one suite.

mod adversity;
mod bytes;
mod cluster;
mod command_line;
mod configurations;
mod connections;
mod containers;
mod corpus;
mod drivers;
mod healthy;
mod history;
mod hooks;
mod instructions;
mod inventory;
mod leaks;
mod metrics;
mod peers;
mod recording;
mod server_join;
mod stacks;
mod stacks_go;
mod stacks_native;
mod stacks_runtimes;
mod statements;
mod uses;
mod waiting;

use std::process::ExitCode;

use harness::suites::{
    self,
    Place::{Anywhere, VirtualMachine},
    Tests,
};

/// All suites, in the order in which they run.
const SUITES: &[Tests] = &[
    Tests { suite: "bytes", place: Anywhere, list: bytes::tests },
    Tests { suite: "connections", place: Anywhere, list: connections::tests },
    Tests { suite: "inventory", place: Anywhere, list: inventory::tests },
    Tests { suite: "leaks", place: Anywhere, list: leaks::tests },
    Tests { suite: "healthy", place: Anywhere, list: healthy::tests },
    Tests { suite: "command_line", place: Anywhere, list: command_line::tests },
    Tests { suite: "adversity", place: Anywhere, list: adversity::tests },
    Tests { suite: "corpus", place: Anywhere, list: corpus::tests },
    Tests { suite: "stacks_native", place: Anywhere, list: stacks_native::tests },
    Tests { suite: "stacks_go", place: Anywhere, list: stacks_go::tests },
    Tests { suite: "recording", place: Anywhere, list: recording::tests },
    Tests { suite: "uses", place: Anywhere, list: uses::tests },
    Tests { suite: "server_join", place: Anywhere, list: server_join::tests },
    Tests { suite: "drivers", place: Anywhere, list: drivers::tests },
    Tests { suite: "statements", place: Anywhere, list: statements::tests },
    Tests { suite: "stacks_runtimes", place: Anywhere, list: stacks_runtimes::tests },
    Tests { suite: "waiting", place: Anywhere, list: waiting::tests },
    Tests { suite: "containers", place: Anywhere, list: containers::tests },
    Tests { suite: "cluster", place: Anywhere, list: cluster::tests },
    Tests { suite: "stacks", place: Anywhere, list: stacks::tests },
    Tests { suite: "metrics", place: Anywhere, list: metrics::tests },
    Tests { suite: "hooks", place: VirtualMachine, list: hooks::tests },
    Tests { suite: "configurations", place: VirtualMachine, list: configurations::tests },
    Tests { suite: "instructions", place: VirtualMachine, list: instructions::tests },
    Tests { suite: "peers", place: VirtualMachine, list: peers::tests },
];

fn main() -> ExitCode {
    suites::run(SUITES)
}
