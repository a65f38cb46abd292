//! `pgsocktrace replay`: a recorded run, told to the engine once more.

use anyhow::Context as _;

use crate::cli::ReplayArgs;
use crate::engine::snapshot::EventCounts;
use crate::engine::{Beginning, Engine, Fact};
use crate::outputs::flamegraph::{File, Flames};
use crate::outputs::recording::{Recording, RecordingError};
use crate::outputs::writer::Output;
use crate::trace::Ended;

/// Prints what the recorded run has printed, in the format asked for.
///
/// A recording without an end, because its tracer was killed or its disk was full, is judged for the
/// last time at the moment of its last entry, and a warning says so.
///
/// # Errors
///
/// When the file is no recording that this version can read, is damaged, or the output cannot be
/// written.
pub fn replay(args: &ReplayArgs) -> anyhow::Result<Ended> {
    let picture = args.picture.flamegraph.as_deref().map(File::prepare).transpose()?;
    let draw = |engine: &Engine, counts, now| match &picture {
        Some(file) => {
            let flames =
                Flames::of(&engine.snapshot(counts, now, true), args.picture.flamegraph_by);
            file.write(&flames.svg())
        }
        None => Ok(()),
    };
    let unreadable = || format!("{} cannot be replayed", args.file.display());
    let mut recording = Recording::open(&args.file).with_context(unreadable)?;
    let beginning = with_overrides(recording.beginning().clone(), args);
    let mut engine = Engine::new(beginning, Output::to_stdout(args.output));
    let mut last = None;
    let mut counts = EventCounts::default();
    loop {
        let (now, fact) = match recording.next_fact() {
            Ok(Some(next)) => next,
            Ok(None) | Err(RecordingError::CutOff(_)) => break,
            Err(error) => return Err(error).with_context(unreadable),
        };
        engine.take(&fact, now)?;
        last = Some(now);
        match fact {
            Fact::End(counts) => {
                draw(&engine, counts, now)?;
                return Ok(Ended { leak: engine.has_leak() });
            }
            Fact::Judge(so_far) => counts = so_far,
            _ => {}
        }
    }
    let last = last.ok_or(RecordingError::Empty).with_context(unreadable)?;
    log::warn!(
        "{} breaks off before the end of its trace; what it holds is reported",
        args.file.display()
    );
    engine.take(&Fact::End(counts), last)?;
    draw(&engine, counts, last)?;
    Ok(Ended { leak: engine.has_leak() })
}

/// The recorded settings, unless others are asked for.
fn with_overrides(mut beginning: Beginning, args: &ReplayArgs) -> Beginning {
    let thresholds = &mut beginning.thresholds;
    thresholds.silent_after = args.silent_after.unwrap_or(thresholds.silent_after);
    thresholds.limit = args.limit.or(thresholds.limit);
    beginning
}
