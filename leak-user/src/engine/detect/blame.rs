//! Whom the connections of a verdict blame.

use std::collections::BTreeMap;

use crate::engine::detect::code::CodeKey;
use crate::engine::detect::culprit::{Culprit, CulpritUses};
use crate::engine::detect::reason::StackOf;
use crate::model::StackId;

/// Whom a connection blames, and by which stack.
#[derive(Clone, Debug)]
pub(super) struct Blame {
    /// Which stack `stack` is.
    pub(super) stack_of: StackOf,
    /// The stack that shows the code.
    pub(super) stack: Option<StackId>,
    /// The code to blame.
    pub(super) cause: Option<CodeKey>,
    /// Its frame in `stack`.
    pub(super) culprit: Option<Culprit>,
    /// How uses by the same code ended.
    pub(super) uses: Option<CulpritUses>,
}

impl Blame {
    /// Nobody, whatever stacks show.
    pub(super) const NOBODY: Self =
        Self { stack_of: StackOf::LastUsedBy, stack: None, cause: None, culprit: None, uses: None };

    /// What most of the connections blame by the same stack.
    pub(super) fn commonest<'a>(all: impl Iterator<Item = &'a Self>) -> Self {
        let mut counts: BTreeMap<(StackOf, StackId), (usize, &Self)> = BTreeMap::new();
        for blame in all {
            if let Some(stack) = blame.stack {
                counts.entry((blame.stack_of, stack)).or_insert((0, blame)).0 += 1;
            }
        }
        let commonest = counts.into_values().max_by_key(|&(count, _)| count);
        commonest.map_or(Self::NOBODY, |(_, blame)| blame.clone())
    }
}
