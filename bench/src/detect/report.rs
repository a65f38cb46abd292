//! Totals of all runs; writes `docs/detection.md`.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::Result;

use super::{
    Choice, Verdict,
    judge::{Culprit, Outcome},
    manifest::Scenario,
    scenario::{INTERVAL, SILENT_AFTER},
};

/// Where the figures go.
const DOCUMENT: &str = "docs/detection.md";

/// What several runs add up to.
#[derive(Default)]
struct Sum {
    leaks: usize,
    found: usize,
    healthy: usize,
    accused: usize,
    /// Runs with a leak, in which something innocent was accused beside it.
    accused_beside: usize,
    right: usize,
    wrong: usize,
    said_so: usize,
    named: usize,
    due: usize,
    times: Vec<i64>,
}

impl Sum {
    fn add(&mut self, scenario: &Scenario, outcome: &Outcome) {
        let accused = usize::from(!outcome.false_accusations.is_empty());
        if !scenario.leaks() {
            self.healthy += 1;
            self.accused += accused;
            return;
        }
        self.leaks += 1;
        self.accused_beside += accused;
        let Some(after) = outcome.detected_after else {
            self.said_so += usize::from(outcome.said_so);
            return;
        };
        self.found += 1;
        self.times.push(after);
        match outcome.culprit {
            Culprit::Right => self.right += 1,
            Culprit::Wrong(_) => self.wrong += 1,
            Culprit::Nobody => {}
        }
        if let Some((named, due)) = outcome.named {
            self.named += named;
            self.due += due;
        }
    }

    /// Of the runs in which a leak was called, those in which all that was called one leaked.
    fn precision(&self) -> String {
        let right = self.found.saturating_sub(self.accused_beside);
        percent(right, right + self.accused + self.accused_beside)
    }

    fn row(&mut self, name: &str) -> String {
        self.times.sort_unstable();
        let median = self.times.get(self.times.len() / 2).copied();
        format!(
            "| {name} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
            self.leaks,
            percent(self.found, self.leaks),
            percent(self.said_so, self.leaks - self.found),
            self.healthy,
            self.accused + self.accused_beside,
            self.precision(),
            seconds(median),
            seconds(self.times.last().copied()),
            percent(self.right, self.found),
            percent(self.wrong, self.found),
            percent(self.named, self.due),
        )
    }
}

/// The head of a table.
const HEAD: &str = "leaking runs | recall | of the missed, said so | healthy runs | runs with a false accusation | precision | \
                    median time | longest | culprit right | culprit wrong | connections named |\n\
                    |---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n";

/// One line about one run.
pub(super) fn line(scenario: &Scenario, verdict: &Verdict) -> String {
    let title = scenario.title();
    match verdict {
        Verdict::Skipped(why) => format!("skipped  {title}: {why}"),
        Verdict::Failed(why) => format!("FAILED   {title}: {why}"),
        Verdict::Judged(outcome) => {
            let state =
                match (scenario.leaks(), outcome.found(), outcome.false_accusations.is_empty()) {
                    (_, _, false) => "ACCUSED ",
                    (true, false, _) => "MISSED  ",
                    (true, true, _) => "found   ",
                    (false, ..) => "quiet   ",
                };
            format!("{state} {title}{}", details(outcome))
        }
    }
}

/// ": in 4.2 s by abandoned, growing; culprit right; 5 of 6 connections named".
fn details(outcome: &Outcome) -> String {
    let mut text = String::new();
    if let Some(after) = outcome.detected_after {
        let reasons: Vec<&str> = outcome.reasons.iter().map(String::as_str).collect();
        let culprit = match &outcome.culprit {
            Culprit::Right => "culprit right".to_owned(),
            Culprit::Wrong(name) => format!("culprit WRONG: {name}"),
            Culprit::Nobody => "nobody named".to_owned(),
        };
        text = format!(": {} by {}; {culprit}", seconds(Some(after)), reasons.join(", "));
        if let Some((named, due)) = outcome.named {
            text.push_str(&format!("; {named} of {due} connections named"));
        }
    } else if outcome.leaked > 0 {
        let said = if outcome.said_so { ", and said so" } else { "" };
        text = format!(": {} leaked{said}", outcome.leaked);
    }
    for accusation in &outcome.false_accusations {
        text.push_str(&format!("\n           falsely: {accusation}"));
    }
    text
}

/// Prints the sums; writes them where the whole corpus was run.
pub(super) fn write(
    workspace: &Path,
    choice: &Choice,
    results: &[(Scenario, Verdict)],
) -> Result<()> {
    println!("\n{}", summary(results));
    if choice.is_whole() {
        let text = document(choice, results);
        let file = workspace.join(DOCUMENT);
        if let Some(directory) = file.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(&file, &text)?;
        println!("bench: wrote {DOCUMENT}");
    }
    Ok(())
}

/// The figures of all runs, and what was not as it should be.
fn summary(results: &[(Scenario, Verdict)]) -> String {
    let mut all = Sum::default();
    let mut wrong = String::new();
    for (scenario, verdict) in results {
        if let Verdict::Judged(outcome) = verdict {
            all.add(scenario, outcome);
        }
        if !is_right(scenario, verdict) && !matches!(verdict, Verdict::Skipped(_)) {
            wrong.push_str(&format!("\n{}", line(scenario, verdict)));
        }
    }
    format!("| | {HEAD}{}{wrong}", all.row("all"))
}

fn is_right(scenario: &Scenario, verdict: &Verdict) -> bool {
    match verdict {
        Verdict::Judged(outcome) => {
            outcome.false_accusations.is_empty()
                && outcome.found() == scenario.leaks()
                && !matches!(outcome.culprit, Culprit::Wrong(_))
        }
        Verdict::Skipped(_) | Verdict::Failed(_) => false,
    }
}

fn document(choice: &Choice, results: &[(Scenario, Verdict)]) -> String {
    let mut all = Sum::default();
    let mut tables: [(&str, BTreeMap<String, Sum>); 4] = [
        ("arrival of the tracer", BTreeMap::new()),
        ("encryption", BTreeMap::new()),
        ("program", BTreeMap::new()),
        ("pattern", BTreeMap::new()),
    ];
    let (mut reasons, mut patterns) = (BTreeMap::new(), BTreeMap::new());
    let (mut wrong, mut undone) = (String::new(), String::new());
    let mut skipped: BTreeMap<&str, usize> = BTreeMap::new();
    for (scenario, verdict) in results {
        let outcome = match verdict {
            Verdict::Judged(outcome) => outcome,
            Verdict::Skipped(why) => {
                *skipped.entry(why).or_default() += 1;
                continue;
            }
            Verdict::Failed(_) => {
                undone.push_str(&format!("- {}\n", line(scenario, verdict)));
                continue;
            }
        };
        all.add(scenario, outcome);
        let arrival = scenario.arrival.about();
        let tls = if scenario.tls { "with TLS" } else { "without TLS" };
        let program = format!("{:?}: {}", scenario.program.language, scenario.program.driver);
        for ((_, table), name) in tables.iter_mut().zip([arrival, tls, &program, &scenario.name]) {
            table.entry(name.to_owned()).or_default().add(scenario, outcome);
        }
        patterns.insert(&scenario.name, &scenario.pattern.about);
        for reason in &outcome.reasons {
            *reasons.entry(reason.clone()).or_insert(0) += 1;
        }
        if !is_right(scenario, verdict) {
            wrong.push_str(&format!("- {}\n", line(scenario, verdict)));
        }
    }
    for (why, runs) in skipped {
        undone.push_str(&format!("- {runs} runs: {why}\n"));
    }
    let mut text = preface(choice, results.len());
    text.push_str(&format!("| | {HEAD}{}", all.row("all")));
    for (name, table) in &mut tables {
        text.push_str(&format!("\n## By {name}\n\n| {name} | {HEAD}"));
        for (name, sum) in table {
            text.push_str(&sum.row(name));
        }
    }
    text.push_str("\n## Reasons\n\nA leak may be found for several.\n\n");
    for (reason, runs) in reasons {
        text.push_str(&format!("- `{reason}`: {runs} runs\n"));
    }
    text.push_str("\n## Every miss, false accusation and wrong culprit\n\n");
    text.push_str(if wrong.is_empty() { "None.\n" } else { &wrong });
    text.push_str("\n## Not judged\n\n");
    text.push_str(if undone.is_empty() { "Nothing.\n" } else { &undone });
    text.push_str("\n## Patterns\n\n");
    for (name, about) in patterns {
        text.push_str(&format!("- **{name}**: {about}\n"));
    }
    text
}

fn preface(choice: &Choice, runs: usize) -> String {
    format!(
        "# Detection\n\n\
         Written by `cargo xtask bench detect`, which anyone can repeat: {runs} runs of the programs in \
         tests/apps/corpus, each under a tracer with `--silent-after {}s --interval {}s`, {} at a time. Pool sizes, \
         pauses and load come from seed {}.{} Healthy programs are watched for {} s.\n\n\
         A leak is found when a finding of severity `leak` (a hanging connect: `suspect`) names a connection that the \
         program itself says it has lost. Times count from the third lost connection or the tracer's arrival, whichever is \
         later. A finding that names any \
         other connection is a false accusation, even if it is retracted later. A miss is \"said\" where a finding of \
         severity `suspect` names a lost connection, or the report ends with connections of which it cannot tell. \"Connections named\" are those of the \
         lost ones, older than {} s at the end, that a standing finding names.\n\n",
        SILENT_AFTER.as_secs(),
        INTERVAL.as_secs(),
        choice.parallel,
        choice.seed,
        choice.share(),
        choice.watch.as_secs(),
        (SILENT_AFTER + 2 * INTERVAL).as_secs(),
    )
}

fn seconds(milliseconds: Option<i64>) -> String {
    milliseconds.map_or_else(|| "–".to_owned(), |time| format!("{:.1} s", time as f64 / 1000.0))
}

/// "99 %", rounded down: only all is 100 %.
fn percent(part: usize, of: usize) -> String {
    (part * 100).checked_div(of).map_or_else(|| "–".to_owned(), |share| format!("{share} %"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_all_is_100_percent() {
        assert_eq!(percent(999, 1000), "99 %");
        assert_eq!(percent(3, 3), "100 %");
        assert_eq!(percent(0, 0), "–");
    }
}
