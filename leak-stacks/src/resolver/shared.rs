//! Stacks that processes have in common.

use std::sync::Arc;

use crate::stack::{Stack, StackId};

/// A stack, compared by its identity.
#[derive(Debug)]
pub(crate) struct SharedStack(pub(super) Arc<Stack>);

impl PartialEq for SharedStack {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for SharedStack {}

impl std::hash::Hash for SharedStack {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.id.hash(state);
    }
}

impl std::borrow::Borrow<StackId> for SharedStack {
    fn borrow(&self) -> &StackId {
        &self.0.id
    }
}
