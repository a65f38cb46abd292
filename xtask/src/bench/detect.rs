//! How right verdicts are: every program of the corpus, leaking and healthy, under a tracer of its own.

mod hole;
mod judge;
mod manifest;
mod programs;
mod report;
mod scenario;
mod watch;

use std::{
    env,
    path::{Path, PathBuf},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use self::{
    hole::{FullQueue, Hole},
    judge::Outcome,
    manifest::{Manifest, Scenario},
    programs::Workshop,
    scenario::{INTERVAL, SILENT_AFTER, Stage},
};
use crate::{
    build,
    postgres::Postgres,
    process,
    setup::{self, Need},
};

/// How many programs run at the same time: they mostly wait.
const PARALLEL: usize = 10;

/// How long a healthy program is watched unless told otherwise.
const WATCH: Duration = Duration::from_secs(30);

/// The seed of pool sizes, pauses and loads unless told otherwise.
const SEED: u64 = 1;

/// Which part of the corpus is run, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Parts of scenarios' titles; a title has to contain all of them, and none after a `!`.
    filters: Vec<String>,
    seed: u64,
    watch: Duration,
    parallel: usize,
    /// When no further program is started.
    within: Option<Duration>,
}

impl Choice {
    /// Reads the words after `bench detect`: filters, `--seed N`, `--watch SECONDS`, `--parallel N`,
    /// `--minutes N`.
    pub(crate) fn read(words: &[String]) -> Option<Self> {
        let mut choice = Self {
            filters: Vec::new(),
            seed: SEED,
            watch: WATCH,
            parallel: PARALLEL,
            within: None,
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--seed" => choice.seed = words.next()?.parse().ok()?,
                "--watch" => choice.watch = Duration::from_secs(words.next()?.parse().ok()?),
                "--parallel" => {
                    choice.parallel = words.next()?.parse().ok().filter(|&number| number > 0)?;
                }
                "--minutes" => {
                    choice.within =
                        Some(Duration::from_secs(60 * words.next()?.parse::<u64>().ok()?));
                }
                option if option.starts_with('-') => return None,
                filter => choice.filters.push(filter.to_owned()),
            }
        }
        Some(choice)
    }

    fn takes(&self, scenario: &Scenario) -> bool {
        let title = format!("{}/", scenario.title());
        self.filters.iter().all(|filter| match filter.strip_prefix('!') {
            Some(unwanted) => !title.contains(unwanted),
            None => title.contains(filter.as_str()),
        })
    }

    fn is_whole(&self) -> bool {
        self.filters.is_empty()
    }
}

/// What became of a scenario.
enum Verdict {
    Judged(Outcome),
    /// The language, or what else is missing.
    Skipped(String),
    /// The program or the tracer did not work.
    Failed(String),
}

/// Runs the chosen part of the corpus; the whole of it writes `docs/detection.md`.
pub(crate) fn run(workspace: &Path, choice: &Choice) -> Result<()> {
    setup::run(workspace, &[Need::Tests])?;
    let manifest = Manifest::read(workspace)?;
    let mut scenarios: Vec<Scenario> =
        manifest.scenarios(choice.seed)?.into_iter().filter(|one| choice.takes(one)).collect();
    // Mixed, so that heavy languages do not come all at once.
    scenarios.sort_by_key(|scenario| scenario.pick("turn", 0..u64::MAX));
    ensure!(!scenarios.is_empty(), "No scenario has such a title.");
    // As for the tests: a binary that is there already.
    let tracer = match env::var_os("PGSOCKTRACE_BIN") {
        Some(binary) => PathBuf::from(binary),
        None => build::run(workspace)?,
    };
    let workshop = Workshop::new(workspace);
    let postgres = Postgres::start_for_crowds()?;
    postgres.load(&workspace.join(manifest::CORPUS).join("schema.sql"))?;
    let (hole, full) = (Hole::open()?, FullQueue::open()?);
    let scratch = tempfile::Builder::new().prefix("pgsocktrace-").tempdir()?;
    let stage = Stage {
        workspace,
        workshop: &workshop,
        postgres: &postgres,
        tracer: &tracer,
        scratch: scratch.path(),
        hole: hole.port(),
        full: full.port(),
        watch: choice.watch,
    };
    for scenario in &scenarios {
        // Said again, and why, where the program would run.
        drop(workshop.command(&scenario.program));
    }
    println!("bench: {} runs, {} at a time", scenarios.len(), choice.parallel);
    let end = choice.within.map(|within| Instant::now() + within);
    let left = Mutex::new(scenarios.iter());
    let results = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..choice.parallel {
            scope.spawn(|| {
                while process::ensure_not_stopped().is_ok() {
                    let Some(scenario) = left.lock().ok().and_then(|mut left| left.next()) else {
                        return;
                    };
                    let result = if end.is_some_and(|end| end < Instant::now()) {
                        Verdict::Skipped("there was no time left".to_owned())
                    } else {
                        play(&stage, scenario)
                    };
                    println!("{}", report::line(scenario, &result));
                    if let Ok(mut results) = results.lock() {
                        results.push((scenario.clone(), result));
                    }
                }
            });
        }
    });
    process::ensure_not_stopped()?;
    let mut results = results.into_inner().ok().context("A run panicked.")?;
    results.sort_by_key(|(scenario, _)| scenario.title());
    report::write(workspace, choice, &results)
}

fn play(stage: &Stage<'_>, scenario: &Scenario) -> Verdict {
    let command = match stage.workshop.equip(scenario.program.language) {
        Err(missing) => return Verdict::Skipped(missing),
        Ok(()) => stage.workshop.command(&scenario.program),
    };
    let command = match command {
        Ok(command) => command,
        Err(broken) => return Verdict::Failed(broken),
    };
    let patience = SILENT_AFTER + 2 * INTERVAL;
    match scenario::run(stage, scenario, command) {
        Ok(seen) => {
            let patience = i64::try_from(patience.as_millis()).unwrap_or(i64::MAX);
            Verdict::Judged(judge::judge(scenario, &seen, patience))
        }
        Err(error) => Verdict::Failed(format!("{error:#}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Option<Choice> {
        Choice::read(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn filters_choose() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let all = Manifest::read(root).unwrap().scenarios(1).unwrap();
        let taken = |words: &[&str]| {
            let choice = read(words).unwrap();
            all.iter().filter(|one| choice.takes(one)).map(Scenario::title).collect::<Vec<_>>()
        };
        assert_eq!(taken(&["go-pq/rows/", "!/tls/"]), ["go-pq/rows"]);
        assert_eq!(taken(&["go-pq/rows/", "/tls/"]), ["go-pq/rows/tls"]);
        assert_eq!(taken(&[]).len(), all.len());
        assert!(read(&[]).unwrap().is_whole() && !read(&["go"]).unwrap().is_whole());
    }

    #[test]
    fn options_have_values() {
        assert_eq!(read(&["--seed", "7"]).unwrap().seed, 7);
        for words in [&["--seed"][..], &["--seed", "x"], &["--parallel", "0"], &["--else"]] {
            assert!(read(words).is_none(), "{words:?}");
        }
    }
}
