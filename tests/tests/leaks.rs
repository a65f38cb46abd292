//! x
use std::process::ExitCode;
fn main() -> ExitCode { tests::run(vec![]) }
