//! A connection that may be lost.

use crate::engine::detect::View;
use crate::engine::detect::code::CodePath;
use crate::engine::table::Connection;

/// How many different amounts of growth make a staircase.
pub(super) const STEPS: usize = 3;

/// A silent, idle connection, the growth of its pool since, and the code that used it last.
pub(super) struct Candidate<'a> {
    pub(super) connection: &'a Connection,
    pub(super) growth: i64,
    pub(super) path: Option<CodePath>,
}

impl<'a> Candidate<'a> {
    pub(super) fn new(view: &View<'_>, connection: &'a Connection) -> Self {
        let (growth, path) = (view.lasting_growth(connection), view.path(connection));
        Self { connection, growth, path }
    }
}

/// Whether the pool has no other connections.
pub(super) fn is_whole_pool(view: &View<'_>, pool: &[Candidate<'_>]) -> bool {
    let Some(first) = pool.first() else { return false };
    let open = view.table().pool_of(first.connection).open_now();
    i64::try_from(pool.len()).is_ok_and(|count| count == open)
}
