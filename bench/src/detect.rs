//! Accuracy of verdicts: every program of the corpus runs under a tracer of its own.

mod judge;
mod manifest;
mod programs;
mod report;
mod scenario;
mod watch;

use std::{
    num::{NonZeroU64, NonZeroUsize, ParseIntError},
    path::Path,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use self::{
    judge::Outcome,
    manifest::{Manifest, Scenario},
    programs::Builder,
    scenario::{INTERVAL, SILENT_AFTER, Stage},
};
use harness::{
    FakeServer, Manner, Server,
    server::{self, Purpose},
};
use support::{process::ensure_not_stopped, workspace};

/// Which part of the corpus is run, and how.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub(crate) struct Choice {
    /// Parts of scenarios' titles; a title has to contain all of them, and none after a `!`.
    filters: Vec<String>,
    /// The seed of pool sizes, pauses and loads.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run only one in N scenarios, evenly spread; the seed picks which.
    #[arg(long, value_name = "N", default_value = "1")]
    one_in: NonZeroU64,
    /// How many seconds a healthy program is watched.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    watch: Duration,
    /// How many programs run at the same time: they mostly wait.
    #[arg(long, value_name = "N", default_value = "10")]
    parallel: NonZeroUsize,
    /// After so many minutes no further program is started.
    #[arg(long = "minutes", value_name = "N", value_parser = minutes)]
    within: Option<Duration>,
}

fn seconds(text: &str) -> Result<Duration, ParseIntError> {
    text.parse().map(Duration::from_secs)
}

fn minutes(text: &str) -> Result<Duration, ParseIntError> {
    text.parse().map(|minutes: u64| Duration::from_secs(60 * minutes))
}

impl Choice {
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

    /// The part of the scenarios that is run, for people; nothing where that is all.
    fn share(&self) -> String {
        match self.one_in.get() {
            1 => String::new(),
            n => format!(" Of all scenarios one in {n} was run, picked by the seed."),
        }
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
pub(crate) fn run(root: &Path, choice: &Choice) -> Result<()> {
    let manifest = Manifest::read(root)?;
    let mut scenarios: Vec<Scenario> =
        manifest.scenarios(choice.seed)?.into_iter().filter(|one| choice.takes(one)).collect();
    // Mixed, so that heavy languages do not come all at once.
    scenarios.sort_by_key(|scenario| scenario.pick("turn", 0..u64::MAX));
    scenarios.truncate(scenarios.len().div_ceil(usize::try_from(choice.one_in.get())?));
    ensure!(!scenarios.is_empty(), "No scenario has such a title.");
    let tracer = workspace::binary(root);
    let builder = Builder::new(root);
    let postgres = Server::alone(Purpose::Crowds)?;
    postgres.load(&root.join(manifest::CORPUS).join("schema.sql"))?;
    let (hole, full) = (FakeServer::start(Manner::Mute)?, FakeServer::start(Manner::Full)?);
    let scratch = tempfile::Builder::new().prefix("pgsocktrace-").tempdir()?;
    let stage = Stage {
        workspace: root,
        builder: &builder,
        postgres: &postgres,
        programs: server::programs()?,
        tracer: &tracer,
        scratch: scratch.path(),
        hole: hole.port(),
        full: full.port(),
        watch: choice.watch,
    };
    for scenario in &scenarios {
        // Said again, and why, where the program would run.
        drop(builder.command(&scenario.program));
    }
    println!("bench: {} runs, {} at a time", scenarios.len(), choice.parallel);
    let end = choice.within.map(|within| Instant::now() + within);
    let left = Mutex::new(scenarios.iter());
    let results = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..choice.parallel.get() {
            scope.spawn(|| {
                while ensure_not_stopped().is_ok() {
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
    ensure_not_stopped()?;
    let mut results = results.into_inner().ok().context("A run panicked.")?;
    results.sort_by_key(|(scenario, _)| scenario.title());
    report::write(root, choice, &results)
}

fn play(stage: &Stage<'_>, scenario: &Scenario) -> Verdict {
    let command = match stage.builder.equip(scenario.program.language) {
        Err(missing) => return Verdict::Skipped(missing),
        Ok(()) => stage.builder.command(&scenario.program),
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
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        choice: Choice,
    }

    fn read(words: &[&str]) -> Option<Choice> {
        let line = Line::try_parse_from(["detect"].iter().chain(words)).ok()?;
        Some(line.choice)
    }

    #[test]
    fn filters_choose() {
        let root = workspace::root();
        let all = Manifest::read(root).unwrap().scenarios(1).unwrap();
        let taken = |words: &[&str]| {
            let choice = read(words).unwrap();
            all.iter().filter(|one| choice.takes(one)).map(Scenario::title).collect::<Vec<_>>()
        };
        assert_eq!(
            taken(&["go-pq/rows/", "!/tls/"]),
            ["go-pq/rows", "go-pq/rows/late", "go-pq/rows/over", "go-pq/rows/asked"]
        );
        assert_eq!(taken(&["go-pq/rows/", "/tls/late"]), ["go-pq/rows/tls/late"]);
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
