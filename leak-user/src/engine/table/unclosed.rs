//! Connections that their process left open when it exited.

use crate::engine::table::Connection;

/// Most of them between two judgements. Beyond that they are only counted as closed.
const MAX_UNCLOSED: usize = 16_384;

/// The connections that were left open since the last judgement, as they were at their end.
#[derive(Debug, Default)]
pub(super) struct Unclosed(Vec<Connection>);

impl Unclosed {
    pub(super) fn add(&mut self, connection: &Connection) {
        if self.0.len() < MAX_UNCLOSED {
            self.0.push(connection.clone());
        }
    }

    pub(super) fn connections(&self) -> &[Connection] {
        &self.0
    }

    /// They have been judged.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
