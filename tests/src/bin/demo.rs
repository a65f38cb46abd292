//! The program that `cargo xtask demo` runs.

use anyhow::Result;
use support::{process::stop_on_signals, workspace};

fn main() -> Result<()> {
    stop_on_signals()?;
    harness::demo::run(workspace::root())
}
