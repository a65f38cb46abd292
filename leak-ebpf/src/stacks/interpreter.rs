//! The frames of interpreters, whose native stacks only show the interpreter itself.
//!
//! The thread is in a system call, so its calls stand still. What the addresses mean is found out
//! later, by the collector.

mod cpython;
mod php;
mod ruby;

use leak_common::interpreter::{InterpreterProfile, NONE};
use leak_common::stack::StackHeader;

use crate::kernel::task::Task;

/// Records the task's calls in `header`, innermost first, until there are no more, one cannot be
/// read, or there is no room. The header has none yet.
///
/// The kind of the profile selects the walker.
#[inline(always)]
pub(super) fn walk(profile: &InterpreterProfile, task: Task, header: &mut StackHeader) {
    if profile.kind == NONE {
        return;
    }
    header.interpreter_tag = profile.tag;
    match profile.kind {
        cpython::KIND => {
            cpython::walk_cpython(profile, task.thread_register(), header);
        }
        ruby::KIND => {
            ruby::walk_ruby(profile, task.thread_register(), header);
        }
        php::KIND => {
            php::walk_php(profile, task.thread_register(), header);
        }
        _ => {}
    }
}
