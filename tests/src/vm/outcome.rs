//! The results of a virtual machine's run.

use std::fmt;

pub(super) use support::results::Fate;
use support::results::{self, MOST_LATE};

use super::protocol::Line;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// All steps and the machine have ended.
    Whole,
    /// The kernel panicked.
    Panic,
    /// The machine was silent for too long.
    Hang,
    /// The machine ended before its plan.
    Early,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Whole => "whole",
            Self::Panic => "the kernel panicked",
            Self::Hang => "it hung",
            Self::Early => "it ended too early",
        })
    }
}

/// The results of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tests {
    /// The step's name.
    pub(super) name: String,
    /// Each test's name without the suite's, and its result.
    pub(super) fates: Vec<(String, Fate)>,
    /// Whether the step succeeded; `None` until it has ended.
    pub(super) success: Option<bool>,
    /// Lines that begin with `note: `, without this prefix.
    pub(super) notes: Vec<String>,
}

impl Tests {
    fn new(name: String) -> Self {
        Self { name, fates: Vec::new(), success: None, notes: Vec::new() }
    }

    /// Records a line that the step has printed.
    fn hear(&mut self, line: &str) {
        match results::Line::read(line) {
            results::Line::Ended { name, fate, .. } => {
                let own = name.strip_prefix(&self.name).and_then(|name| name.strip_prefix("::"));
                self.fates.push((own.unwrap_or(&name).to_owned(), fate));
            }
            results::Line::Text(text) => {
                self.notes.extend(text.strip_prefix("note: ").map(str::to_owned));
            }
            results::Line::Started(_) | results::Line::Other => {}
        }
    }

    /// The number of tests with this result. A failed step without tests counts as one failure.
    pub(super) fn count(&self, fate: Fate) -> usize {
        let count = self.fates.iter().filter(|(_, one)| *one == fate).count();
        let silently = self.success != Some(true) || self.fates.is_empty();
        if fate == Fate::Failed && count == 0 && silently { 1 } else { count }
    }
}

/// The results of a run.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    /// The kernel's release, once it is up.
    pub(super) release: Option<String>,
    pub(super) steps: Vec<Tests>,
    pub(super) ending: Ending,
    pub(super) trouble: Option<String>,
    /// The run's duration.
    pub(super) seconds: u64,
    /// The tests that failed in the first boot and passed in the second, or the boot itself.
    pub(super) late: Vec<String>,
    done: bool,
}

impl Outcome {
    pub(super) fn new() -> Self {
        Self {
            release: None,
            steps: Vec::new(),
            ending: Ending::Early,
            trouble: None,
            seconds: 0,
            late: Vec::new(),
            done: false,
        }
    }

    /// Parses a line of results.
    pub(super) fn hear(&mut self, line: &str) {
        match Line::read(line) {
            Some(Line::Up(release)) => self.release = Some(release),
            Some(Line::Begin(name)) => {
                self.steps.push(Tests::new(name));
            }
            Some(Line::End(_, status)) => {
                if let Some(step) = self.steps.last_mut() {
                    step.success = Some(status == Some(0));
                }
            }
            Some(Line::Done) => self.done = true,
            Some(Line::Trouble(what)) => self.trouble = Some(what),
            None => {
                let Some(step) = self.steps.last_mut() else { return };
                step.hear(line);
            }
        }
    }

    /// Whether all steps have ended.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// Whether the run succeeded. Machines meet all prerequisites, so a skipped test is a failure.
    pub(super) fn is_well(&self) -> bool {
        self.ending == Ending::Whole
            && self.count(Fate::Failed) == 0
            && self.count(Fate::Skipped) == 0
    }

    /// The failures that may be due to chance, if there are no others. A kernel that fails to boot
    /// has run no code of this project: under emulation, one occasionally crashes while it patches
    /// its own code. One or two tests may fail because the machine was slow, or because the kernel
    /// skipped a run of a program that concerned the connection under test.
    pub(super) fn unlucky(&self) -> Option<Vec<String>> {
        if self.release.is_none() && self.ending != Ending::Whole {
            return Some(vec!["the boot".into()]);
        }
        let of_step = |step: &Tests| {
            let failed = step.fates.iter().filter(|(_, fate)| *fate == Fate::Failed);
            failed.map(|(name, _)| format!("{}::{name}", step.name)).collect::<Vec<_>>()
        };
        let failed: Vec<String> = self.steps.iter().flat_map(of_step).collect();
        let all_are_named = failed.len() == self.count(Fate::Failed);
        let may_be = self.ending == Ending::Whole
            && self.count(Fate::Skipped) == 0
            && all_are_named
            && (1..=MOST_LATE).contains(&failed.len());
        may_be.then_some(failed)
    }

    /// The number of tests with this result.
    pub(super) fn count(&self, fate: Fate) -> usize {
        self.steps.iter().map(|step| step.count(fate)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(lines: &str) -> Outcome {
        let mut outcome = Outcome::new();
        lines.lines().for_each(|line| outcome.hear(line));
        outcome
    }

    /// The result line of a test.
    fn ended(name: &str, event: &str) -> String {
        format!("{{ \"type\": \"test\", \"name\": \"{name}\", \"event\": \"{event}\" }}\n")
    }

    #[test]
    fn tests_are_counted_apart() {
        let [ipv4, far, near] =
            [("bytes::ipv4", "ok"), ("bytes::far", "ignored"), ("bytes::near", "failed")]
                .map(|(name, event)| ended(name, event));
        let outcome = hear(&format!(
            "@vm up 6.1\n@vm begin bytes\n{ipv4}{far}note: y\n{near}@vm end bytes 101\n@vm done\n"
        ));
        let counts = [Fate::Passed, Fate::Failed, Fate::Skipped].map(|fate| outcome.count(fate));
        assert_eq!(counts, [1, 1, 1]);
        assert_eq!(outcome.release.as_deref(), Some("6.1"));
        assert_eq!(outcome.steps[0].fates[0].0, "ipv4");
        assert_eq!(outcome.steps[0].notes, ["y"]);
        assert!(outcome.is_done() && !outcome.is_well());
    }

    #[test]
    fn well_is_what_ended_without_a_test_that_failed_or_was_skipped() {
        let run = |event: &str, ending| {
            let tests = ended("x", "ok") + &ended("y", event);
            Outcome { ending, ..hear(&format!("@vm begin a\n{tests}@vm end a 0\n")) }.is_well()
        };
        assert!(run("ok", Ending::Whole));
        assert!(!run("ok", Ending::Hang));
        assert!(!run("failed", Ending::Whole));
        assert!(!run("ignored", Ending::Whole));
    }

    #[test]
    fn few_that_failed_may_be_unlucky() {
        let run = |events: &[&str], status| {
            let tests: String = events
                .iter()
                .enumerate()
                .map(|(n, event)| ended(&format!("a::t{n}"), event))
                .collect();
            let lines = format!("@vm begin a\n{tests}@vm end a {status}\n@vm done\n");
            Outcome { ending: Ending::Whole, ..hear(&lines) }
        };
        let unlucky = |events: &[&str], status| run(events, status).unlucky();
        assert_eq!(unlucky(&["ok", "failed"], 101), Some(vec!["a::t1".to_owned()]));
        assert_eq!(unlucky(&["ok"], 0), None, "none failed");
        assert_eq!(unlucky(&["ok"], 101), None, "none of its tests failed, but the step did");
        assert_eq!(unlucky(&["failed", "failed", "failed"], 101), None, "too many");
        assert_eq!(unlucky(&["failed", "ignored"], 101), None, "one was skipped");
        let up = || Some("6.1.0".into());
        let hung = Outcome { ending: Ending::Hang, release: up(), ..run(&["failed"], 101) };
        assert_eq!(hung.unlucky(), None, "a hanging machine is no bad luck");
        let panicked = Outcome { ending: Ending::Panic, ..Outcome::new() };
        assert_eq!(panicked.unlucky(), Some(vec!["the boot".to_owned()]));
        let later = Outcome { release: up(), ..panicked };
        assert_eq!(later.unlucky(), None, "the kernel had booted already");
    }

    #[test]
    fn a_step_that_says_nothing_has_failed() {
        let x = ended("x", "ok");
        for lines in [
            "@vm begin a\n@vm end a 0\n".to_owned(),
            "@vm begin a\n".to_owned(),
            format!("@vm begin a\n{x}"),
            format!("@vm begin a\n{x}@vm end a 1\n"),
            format!("@vm begin a\n{x}@vm end a killed\n"),
        ] {
            assert_eq!(hear(&lines).count(Fate::Failed), 1, "{lines}");
        }
        assert_eq!(hear(&format!("@vm begin a\n{x}@vm end a 0\n")).count(Fate::Failed), 0);
    }
}
