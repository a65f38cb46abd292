//! Text for people: what changes while the trace goes on, and the report at the end.

mod causes;
mod code;
mod columns;
mod entry;
mod folded;
mod head;
mod health;
mod held;
mod holders;
mod journal;
mod line;
mod listing;
mod live;
mod look;
mod note;
mod notes;
mod older;
mod phrase;
mod place;
mod pools;
mod refused;
mod relief;
mod report;
mod servers;
mod session;
mod sink;
mod style;
mod table;
mod waiting;
mod zone;

pub use listing::write_listing;
pub use look::{Frames, Look, Screen, Terminal};
pub use report::write_report;
pub use sink::Text;
pub use style::Paint;
pub use zone::Zone;

use crate::engine::detect::plural;

fn plural_of(count: u64, what: &str) -> String {
    plural(usize::try_from(count).unwrap_or(usize::MAX), what)
}

#[cfg(test)]
mod tests;
