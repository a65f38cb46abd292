//! `cargo xtask vm`: set-up and build, then the program that boots virtual machines.

use std::path::Path;

use anyhow::Result;
use support::{command::check, corpus::Language, workspace::cargo};

use crate::{
    build,
    setup::{self, Need},
};

/// What it takes to fill the machines and to boot them. The client programs are in C.
pub(crate) const NEEDS: &[Need] =
    &[Need::Build, Need::Database, Need::Tests, Need::Corpus(Language::C), Need::Machines];

/// Boots what the words choose: `quick`, `update`, or the runs whose names contain all of them.
pub(crate) fn run(root: &Path, words: &[String]) -> Result<()> {
    let mut vm = cargo(root);
    vm.args(["run", "--quiet", "--locked", "-p", "tests", "--bin", "vm", "--"]);
    match words {
        [update] if update == "update" => {
            setup::run(root, &[Need::Machines])?;
            return check(vm.arg("--update"));
        }
        [quick, filters @ ..] if quick == "quick" => vm.arg("--quick").args(filters),
        filters => vm.args(filters),
    };
    setup::run(root, NEEDS)?;
    build::run(root)?;
    check(&mut vm)
}
