//! A Go program of 100 MB: time and memory that its stacks take.

use std::{fmt::Write as _, fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use harness::{
    Program, TraceBuilder, eventually,
    golang::{GoBuild, Toolchain},
    report::Event,
};
use support::workspace::target_directory;

use super::Bench;
use crate::cost::resident_peak;

/// The program's packages and the functions of each; their names are as long as those of large
/// programs.
const PACKAGES: usize = 40;
const FUNCTIONS: usize = 4600;
/// What the program is to be at least, in bytes.
const SIZE: u64 = 100 << 20;
/// Connections that it opens, each from another function.
const STACKS: usize = 1000;
/// The program's `main`, but for the list of packages.
const MAIN: &str = r#"
func main() {
	next := 0
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		count, err := strconv.Atoi(lines.Text())
		if err != nil {
			panic(err)
		}
		for ; count > 0; count-- {
			functions := packages[next%len(packages)]
			functions[next](next, func() {
				connection, err := net.Dial("tcp", os.Getenv("SERVER"))
				if err != nil {
					panic(err)
				}
				connection.Close()
			})
			next++
			time.Sleep(2 * time.Millisecond)
		}
		fmt.Println("ok")
	}
}
"#;

/// Measures, and says in a few lines of Markdown what came out.
pub(super) fn measure(bench: &Bench<'_>) -> Result<String> {
    let target = target_directory(bench.workspace);
    let toolchain = Toolchain::all(&target).pop().context("There is no Go.")?;
    let (source, program) = (target.join("go/large"), target.join("go/large/large"));
    generate(&source)?;
    toolchain.build(GoBuild::PLAIN, &source, &target.join("go"), &program)?;
    let size = fs::metadata(&program)?.len();
    ensure!(size >= SIZE, "The large program has but {size} bytes.");

    let port = bench.postgres.port();
    let mut program =
        Program::start(Command::new(&program).env("SERVER", format!("127.0.0.1:{port}")))?;
    let trace = TraceBuilder::new(Command::new(bench.binary), port).pid(program.pid()).start()?;
    let before = resident_peak(trace.pid())?;
    let times = || -> Vec<u64> { trace.events().iter().flat_map(Event::stack_times).collect() };
    let mut connect = |count: usize, all: usize| -> Result<()> {
        program.ok(&count.to_string())?;
        eventually("the stacks are resolved", || Ok(times().len() >= all))
    };
    connect(1, 1)?;
    connect(STACKS - 1, STACKS)?;
    let memory = resident_peak(trace.pid())?;
    let all = times();
    trace.stop()?;
    let (first, later) = all.split_first().context("There was no stack.")?;
    let mut later = later.to_vec();
    later.sort_unstable();
    let milliseconds = |microseconds: u64| microseconds as f64 / 1000.0;
    Ok(format!(
        "A Go {} program of {} MB, {} functions, with debug information; {STACKS} different stacks:\n\n\
         | what | measured | target |\n|---|---:|---:|\n\
         | first stack | {:.0} ms | 1000 ms |\n\
         | later stacks, median | {:.2} ms | 1 ms |\n\
         | later stacks, 99 of 100 | {:.2} ms | 1 ms |\n\
         | tracer's memory at most, before the first | {} MB | |\n\
         | tracer's memory at most, after the last | {} MB | 200 MB |\n",
        toolchain.version,
        size >> 20,
        PACKAGES * FUNCTIONS,
        milliseconds(*first),
        milliseconds(later[later.len() / 2]),
        milliseconds(later[later.len() * 99 / 100]),
        before >> 10,
        memory >> 10,
    ))
}

/// Writes the program.
fn generate(to: &Path) -> Result<()> {
    let mut main = String::from(
        "package main\n\nimport (\n\t\"bufio\"\n\t\"fmt\"\n\t\"net\"\n\t\"os\"\n\t\"strconv\"\n\t\"time\"\n\n",
    );
    let mut list = String::from(")\n\nvar packages = [][]func(int, func()) int{\n");
    for package in 0..PACKAGES {
        let name = format!("generated{package}");
        let path = format!("internal/example.com/platform/controllers/reconciliation/{name}");
        let directory = to.join(&path);
        fs::create_dir_all(&directory)?;
        let file = directory.join("handlers.go");
        if !file.exists() {
            fs::write(file, handlers(&name)?)?;
        }
        writeln!(main, "\t\"large/{path}\"")?;
        writeln!(list, "\t{name}.All,")?;
    }
    fs::write(to.join("main.go"), format!("{main}{list}}}\n{MAIN}"))?;
    fs::write(to.join("go.mod"), "module large\n\ngo 1.19\n")?;
    Ok(())
}

/// A package of many functions.
fn handlers(package: &str) -> Result<String> {
    let name = |index: usize| {
        format!("ReconcileCustomResourceDefinitionStatusOfGeneration{}", index % FUNCTIONS)
    };
    let mut text = format!("package {package}\n\n// All has every function.\n");
    writeln!(text, "var All = []func(int, func()) int{{")?;
    for index in 0..FUNCTIONS {
        writeln!(text, "\t{},", name(index))?;
    }
    writeln!(text, "}}\n")?;
    for index in 0..FUNCTIONS {
        let (this, other) = (name(index), name(index * 7 + 1));
        writeln!(
            text,
            "func {this}(n int, call func()) int {{\n\tif n == {index} {{\n\t\tcall()\n\t}}\n\
             \tif n > {} {{\n\t\treturn {other}(n-1, call) + {index}\n\t}}\n\treturn n\n}}\n",
            FUNCTIONS + index,
        )?;
    }
    Ok(text)
}
