//! `pgsocktrace replay`: a recorded run, told to the engine once more.

use std::path::PathBuf;
use std::time::Duration;

use crate::engine::Beginning;
use crate::engine::findings::Suppression;
use crate::model::Fact;
use crate::outputs::recording::{Recording, RecordingError};
use crate::outputs::{OutputError, OutputSettings, Printing, Sinks};
use crate::trace::{Ended, Session};

/// What to replay, and how.
#[derive(Clone, Debug)]
pub struct ReplaySettings {
    /// A recording.
    pub file: PathBuf,
    /// How long silence must last, instead of what was recorded.
    pub silent_after: Option<Duration>,
    /// How many connections are allowed, instead of what was recorded.
    pub limit: Option<u64>,
    /// What a process leaves open at its exit is a leak, also if it was none in the recorded run.
    pub fail_on_leak: bool,
    /// Findings that are not told.
    pub suppress: Vec<Suppression>,
    /// What is written and drawn.
    pub outputs: OutputSettings,
}

/// Why a recording cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The file cannot be read, or is no recording.
    #[error("{} cannot be replayed", file.display())]
    Recording {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        source: RecordingError,
    },
    /// An output cannot be written.
    #[error(transparent)]
    Output(#[from] OutputError),
}

/// Shows what the recorded run has shown, in the outputs asked for.
///
/// A recording without an end, because its tracer was killed or its disk was full, is judged for
/// the last time at the moment of its last entry, and a warning says so.
///
/// # Errors
///
/// When the file is no recording that this version can read, is damaged, or an output cannot be
/// written.
pub fn replay(settings: &ReplaySettings) -> Result<Ended, ReplayError> {
    let file = &settings.file;
    let unreadable = |source| ReplayError::Recording { file: file.clone(), source };
    let sinks = Sinks::open(&settings.outputs, Printing::AtOnce)?;
    let mut recording = Recording::open(file).map_err(unreadable)?;
    let beginning = with_overrides(recording.beginning().clone(), settings);
    let mut session = Session::begin(beginning, sinks)?;
    session.suppress(&settings.suppress);
    let mut last = None;
    loop {
        let (now, fact) = match recording.next_fact() {
            Ok(Some(next)) => next,
            Ok(None) | Err(RecordingError::CutOff(_)) => break,
            Err(error) => return Err(unreadable(error)),
        };
        session.tell(now, &fact)?;
        last = Some(now);
        if let Fact::End(_) = fact {
            return Ok(session.ended(now));
        }
    }
    let last = last.ok_or(RecordingError::Empty).map_err(unreadable)?;
    log::warn!(
        "{} breaks off before the end of its trace; what it holds is reported",
        file.display()
    );
    let health = session.engine().health().clone();
    session.tell(last, &Fact::End(health))?;
    Ok(session.ended(last))
}

/// The recorded settings, unless others are asked for.
fn with_overrides(mut beginning: Beginning, settings: &ReplaySettings) -> Beginning {
    let thresholds = &mut beginning.thresholds;
    thresholds.silent_after = settings.silent_after.unwrap_or(thresholds.silent_after);
    thresholds.limit = settings.limit.or(thresholds.limit);
    thresholds.fail_on_leak |= settings.fail_on_leak;
    beginning
}
