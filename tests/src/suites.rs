//! The suites of the end-to-end tests, and how to run them.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, anyhow};
use libtest_mimic::{Arguments, Failed, Trial};

use crate::need::Need;
use crate::suite::Suite;

/// Environment variable: the suites to run, separated by commas. The default is all suites with
/// [`Place::Anywhere`].
pub const CHOICE: &str = "LEAK_TESTS_SUITES";

/// How many tests run at the same time. Tests mostly wait.
const PARALLEL: usize = 6;

type Body = Box<dyn Fn(&Suite) -> Result<()> + Send>;

/// One test.
pub struct Test {
    name: String,
    needs: Vec<Need>,
    body: Body,
}

/// A test of this name.
pub fn test(name: impl Into<String>, body: impl Fn(&Suite) -> Result<()> + Send + 'static) -> Test {
    Test { name: name.into(), needs: Vec::new(), body: Box::new(body) }
}

impl Test {
    /// Ignores the test on machines without this prerequisite.
    #[must_use]
    pub fn needs(mut self, need: Need) -> Self {
        self.needs.push(need);
        self
    }

    fn missing(&self) -> Option<&Need> {
        Need::ALWAYS.iter().chain(&self.needs).find(|need| !need.is_met())
    }

    fn into_trial(self, suite: Option<Arc<Suite>>) -> Trial {
        let missing = self.missing().copied();
        let body = self.body;
        let trial = Trial::test(self.name, move || {
            let suite = suite.ok_or("needs what the brackets name")?;
            body(&suite).map_err(|error| Failed::from(format!("{error:#}")))
        });
        match missing {
            Some(need) => trial.with_kind(format!("needs {need}")).with_ignored_flag(true),
            None => trial,
        }
    }
}

/// The machines on which a suite can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On any machine.
    Anywhere,
    /// Only in virtual machines, whose kernels are known and whose whole system may be changed.
    VirtualMachine,
}

/// Tests that share one PostgreSQL server.
pub struct Tests {
    pub suite: &'static str,
    pub place: Place,
    pub list: fn() -> Vec<Test>,
}

impl Tests {
    fn named(&self) -> Vec<Test> {
        let named = |test: Test| Test { name: format!("{}::{}", self.suite, test.name), ..test };
        (self.list)().into_iter().map(named).collect()
    }
}

/// Runs the suites that [`CHOICE`] names, one after the other, and in them the tests that the
/// command line selects.
pub fn run(all: &[Tests]) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(PARALLEL);
    let chosen = match choose(all, std::env::var(CHOICE).ok().as_deref()) {
        Ok(chosen) => chosen,
        Err(error) => return complain(&error),
    };
    let mut has_failed = false;
    for tests in chosen {
        match run_suite(tests, &arguments) {
            Ok(passed) => has_failed |= !passed,
            Err(error) => {
                complain(&error.context(format!("suite {}", tests.suite)));
                has_failed = true;
            }
        }
    }
    if has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn complain(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

fn choose<'a>(all: &'a [Tests], names: Option<&str>) -> Result<Vec<&'a Tests>> {
    let Some(names) = names else {
        return Ok(all.iter().filter(|tests| tests.place == Place::Anywhere).collect());
    };
    let find = |name: &str| {
        all.iter().find(|tests| tests.suite == name).ok_or_else(|| {
            let known: Vec<_> = all.iter().map(|tests| tests.suite).collect();
            anyhow!("there is no suite {name}, but these: {}", known.join(", "))
        })
    };
    names.split(',').map(find).collect()
}

/// Whether the command line selects a test with this name.
fn is_selected(arguments: &Arguments, name: &str) -> bool {
    let matches = |filter: &String| {
        if arguments.exact { name == filter } else { name.contains(filter.as_str()) }
    };
    arguments.filter.as_ref().is_none_or(matches) && !arguments.skip.iter().any(matches)
}

/// Starts a server for the suite, runs its tests in parallel, and makes sure that nothing is left
/// behind. Returns whether all tests passed.
fn run_suite(tests: &Tests, arguments: &Arguments) -> Result<bool> {
    let tests: Vec<Test> = tests.named();
    let selected = || tests.iter().filter(|test| is_selected(arguments, &test.name));
    if selected().next().is_none() {
        return Ok(true);
    }
    let is_listed = arguments.list;
    let suite = if is_listed || Need::ALWAYS.iter().any(|need| !need.is_met()) {
        None
    } else {
        Some(Arc::new(Suite::start()?))
    };
    if !is_listed {
        for test in selected() {
            if let Some(need) = test.missing() {
                println!("{} is left out: it needs {need}", test.name);
            }
        }
    }
    let trials = tests.into_iter().map(|test| test.into_trial(suite.clone())).collect();
    let conclusion = libtest_mimic::run(arguments, trials);
    if let Some(suite) = suite {
        let suite = Arc::try_unwrap(suite).map_err(|_| anyhow!("a test is still running"))?;
        suite.stop()?;
    }
    Ok(!conclusion.has_failed())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Tests; 2] = [
        Tests { suite: "leaks", place: Place::Anywhere, list: Vec::new },
        Tests { suite: "hooks", place: Place::VirtualMachine, list: Vec::new },
    ];

    #[test]
    fn suites_for_virtual_machines_run_only_when_named() {
        let names =
            |chosen: Vec<&Tests>| chosen.iter().map(|tests| tests.suite).collect::<Vec<_>>();
        assert_eq!(names(choose(&ALL, None).unwrap()), ["leaks"]);
        assert_eq!(names(choose(&ALL, Some("hooks,leaks")).unwrap()), ["hooks", "leaks"]);
        assert!(choose(&ALL, Some("leak")).is_err());
    }

    #[test]
    fn the_command_line_selects_by_name() {
        let arguments = |words: &[&str]| Arguments::from_iter(words.iter().copied());
        assert!(is_selected(&arguments(&["e2e"]), "leaks::a"));
        assert!(is_selected(&arguments(&["e2e", "leaks::"]), "leaks::a"));
        assert!(!is_selected(&arguments(&["e2e", "leaks::", "--exact"]), "leaks::a"));
        assert!(!is_selected(&arguments(&["e2e", "--skip", "a"]), "leaks::a"));
    }
}
