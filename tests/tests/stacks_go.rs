//! Stacks of Go programs, compared with what Go's own runtime says of the same calls.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use tests::golang::{GoBuild, GoProgram, SHAPES, Toolchain};
use tests::{Suite, Test, test};

fn main() -> ExitCode {
    let mut all: Vec<Test> = Vec::new();
    for toolchain in Toolchain::all(&target()) {
        for how in GoBuild::all() {
            let name = format!("go{} {how}", toolchain.version);
            let toolchain = toolchain.clone();
            all.push(test(name, move |suite| exact(suite, &toolchain, how)));
        }
    }
    tests::run(all)
}

fn target() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target")
}

/// Every shape of call, as opener and as last user, is traced as the runtime tells it.
fn exact(suite: &Suite, toolchain: &Toolchain, how: GoBuild) -> Result<()> {
    let path = suite.directory()?.join("go");
    toolchain.build(how, &GoProgram::source(), &target().join("go"), &path)?;
    let mut program = GoProgram::start(&path, suite.port())?;
    let trace = suite.trace().pid(program.pid()).start()?;
    program.open("recursion")?;
    trace.let_intervals_pass(2);
    let mut shapes = SHAPES.to_vec();
    shapes.extend((toolchain.release >= (1, 23)).then_some("range"));
    shapes.extend(how.cgo.then_some("callback"));
    let mut calls = Vec::new();
    for shape in shapes {
        let opened = program.open(shape)?;
        let used = program.request(opened.cookie, shape)?;
        calls.push((shape, opened, used));
        let opened = program.open(shape)?;
        let used = program.send(opened.cookie, shape)?;
        calls.push((shape, opened, used));
    }
    trace.let_intervals_pass(5);
    let report = trace.stop()?;
    let (mut wrong, mut right, mut of) = (String::new(), 0, 0);
    for (shape, opened, used) in &calls {
        let connection = report.connection(opened.cookie)?;
        for (role, call, id, goroutine) in [
            ("open", opened, &connection.opened_by, connection.goroutine),
            ("use", used, &connection.last_used_by, connection.last_used_goroutine),
        ] {
            let stack = report.stack(id.as_ref()).with_context(|| format!("{shape} {role}"))?;
            let compared = call.witness.compare(stack);
            right += compared.right;
            of += compared.of;
            if !compared.is_exact() || stack.quality != "complete" {
                wrong.push_str(&format!("{shape} {role}: {}", compared.text));
            }
            if goroutine != Some(call.witness.goroutine) {
                wrong.push_str(&format!(
                    "{shape} {role}: goroutine {goroutine:?} is {}\n",
                    call.witness.goroutine
                ));
            }
        }
    }
    println!("{right} of {of}");
    ensure!(wrong.is_empty(), "{right} of {of}\n{wrong}");
    Ok(())
}
