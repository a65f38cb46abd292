//! The one door to the engine.

use std::process::ExitStatus;

use crate::engine::detect::Severity;
use crate::engine::doubt::Doubt;
use crate::engine::findings::{Fingerprint, Suppression};
use crate::engine::snapshot::RunVerdict;
use crate::engine::{Beginning, Engine};
use crate::model::{Fact, IntervalCost, Timestamp};
use crate::outputs::{OutputError, Sink as _, Sinks};

/// How a trace ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// What it found.
    pub verdict: RunVerdict,
    /// Why it is no proof that there is no leak.
    pub doubt: Option<Doubt>,
    /// The open findings of severity `leak`.
    pub leaks: Vec<Fingerprint>,
    /// How the command ended, if one was traced and has ended.
    pub status: Option<ExitStatus>,
    /// The servers that were to be asked and never answered.
    pub unanswered: Vec<String>,
}

/// An engine, and the outputs that show what it finds. A trace and a replay tell it facts.
pub struct Session {
    engine: Engine,
    sinks: Sinks,
}

impl Session {
    /// Begins a run.
    ///
    /// # Errors
    ///
    /// When an output cannot be written.
    pub fn begin(beginning: Beginning, mut sinks: Sinks) -> Result<Self, OutputError> {
        sinks.begin(&beginning)?;
        Ok(Self { engine: Engine::new(beginning), sinks })
    }

    /// Hides findings, from now on.
    pub fn suppress(&mut self, rules: &[Suppression]) {
        self.engine.suppress(rules);
    }

    /// Tells the engine a fact that becomes known `now`, and the outputs what comes of it. It is
    /// the only way to the engine, so this is where facts are recorded.
    ///
    /// # Errors
    ///
    /// When an output cannot be written. The engine and the other outputs know the fact all the
    /// same.
    pub fn tell(&mut self, now: Timestamp, fact: &Fact) -> Result<(), OutputError> {
        let fed = self.sinks.fact(now, fact);
        let changes = self.engine.take(fact, now);
        let shown = match fact {
            Fact::Judge(_) => {
                let shown = self.sinks.interval(&self.engine.snapshot(now, false), &changes);
                self.engine.forget_the_unneeded();
                shown
            }
            Fact::End(_) => self.sinks.end(&self.engine.snapshot(now, true), &changes),
            _ => Ok(()),
        };
        fed.and(shown)
    }

    /// What is known so far.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// How the run stands.
    #[must_use]
    pub fn ended(&self, now: Timestamp) -> Ended {
        let snapshot = self.engine.snapshot(now, true);
        let open = snapshot.ledger.open().into_iter();
        let leaks = open.filter(|finding| finding.verdict.severity == Severity::Leak);
        Ended {
            verdict: snapshot.verdict(),
            doubt: Doubt::about(&snapshot),
            leaks: leaks.map(|finding| snapshot.fingerprint(finding)).collect(),
            status: None,
            unanswered: Vec::new(),
        }
    }

    /// Shows readers what the outputs have written.
    ///
    /// # Errors
    ///
    /// When an output cannot be written.
    pub(crate) fn flush(&mut self) -> Result<(), OutputError> {
        self.sinks.flush()
    }

    /// Waits until everything is printed, however long the reader takes.
    ///
    /// # Errors
    ///
    /// When it cannot be printed.
    pub(crate) async fn printed(&mut self) -> Result<(), OutputError> {
        self.sinks.printed().await
    }

    /// Tells the outputs what an interval has cost the tracer: no fact, and not recorded.
    ///
    /// # Errors
    ///
    /// When an output cannot be written.
    pub(crate) fn interval_cost(
        &mut self,
        now: Timestamp,
        cost: &IntervalCost,
    ) -> Result<(), OutputError> {
        self.sinks.interval_cost(now, cost)
    }

    /// Tells the outputs that the event loop is at work.
    pub(crate) fn alive(&mut self, now: Timestamp) {
        self.sinks.alive(now);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::io::{self, Cursor, Write};
    use std::rc::Rc;

    use super::*;
    use crate::engine::testing::secs;
    use crate::outputs::recording::testing::{Told, beginning, story};
    use crate::outputs::recording::{Recorder, Recording};
    use crate::outputs::{Format, Sink};

    #[derive(Clone, Default)]
    struct Shared(Rc<RefCell<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is printed in a run that is told this.
    fn printed(beginning: Beginning, told: &Told, format: Format) -> String {
        let out = Shared::default();
        let mut session = Session::begin(beginning, Sinks::to(format, out.clone())).unwrap();
        for (now, fact) in told {
            session.tell(*now, fact).unwrap();
        }
        String::from_utf8(out.0.take()).unwrap()
    }

    #[test]
    fn a_replay_prints_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run");
        let mut recorder = Recorder::create(&path, &beginning()).unwrap();
        story().iter().for_each(|(now, fact)| recorder.record(*now, fact));
        recorder.finish();
        let bytes = std::fs::read(&path).unwrap();
        let mut recording = Recording::read(Cursor::new(&bytes[..])).unwrap();
        let told: Told = std::iter::from_fn(|| recording.next_fact().unwrap()).collect();
        for format in [Format::Text, Format::Json, Format::Ndjson] {
            let live = printed(beginning(), &story(), format);
            assert_eq!(live, printed(recording.beginning().clone(), &told, format));
            assert!(live.contains("abandoned") && live.contains("app::report"), "{live}");
        }
    }

    #[test]
    fn an_interval_s_cost_is_shown_and_changes_nothing() {
        let out = Shared::default();
        let sinks = Sinks::to(Format::Ndjson, out.clone());
        let mut session = Session::begin(beginning(), sinks).unwrap();
        session.interval_cost(secs(1.0), &IntervalCost::default()).unwrap();
        session.flush().unwrap();
        let text = String::from_utf8(out.0.take()).unwrap();
        assert_eq!(text.lines().count(), 2, "after the start: {text}");
        assert!(text.lines().last().unwrap().starts_with("{\"event\":\"interval\""), "{text}");
    }

    #[test]
    fn what_a_rule_hides_is_counted_and_not_told() {
        let mut session = Session::begin(beginning(), Sinks::default()).unwrap();
        let rule = Suppression {
            reason: None,
            comm: None,
            function: None,
            application_name: None,
            why: "known".into(),
            until: None,
        };
        session.suppress(&[rule]);
        let story = story();
        story.iter().for_each(|(now, fact)| session.tell(*now, fact).unwrap());
        let last = story.last().unwrap().0;
        assert_eq!(session.ended(last).verdict.leaks, 0);
        assert!(session.engine().snapshot(last, true).suppressed[0].count() > 0);
    }

    #[test]
    fn a_reader_who_has_gone_keeps_nothing_from_the_other_outputs() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        struct Counting(Rc<RefCell<usize>>);
        impl Sink for Counting {
            fn fact(&mut self, _: Timestamp, _: &Fact) -> Result<(), OutputError> {
                *self.0.borrow_mut() += 1;
                Ok(())
            }
        }
        let facts = Rc::default();
        let mut sinks = Sinks::to(Format::Text, Closed);
        sinks.add(Some(Counting(Rc::clone(&facts))));
        let mut session = Session::begin(beginning(), sinks).unwrap();
        let story = story();
        let failed = story.iter().filter_map(|(now, fact)| session.tell(*now, fact).err());
        assert!(failed.last().unwrap().reader_has_gone());
        assert_eq!(facts.take(), story.len());
        assert!(session.ended(story.last().unwrap().0).verdict.leaks > 0);
    }
}
