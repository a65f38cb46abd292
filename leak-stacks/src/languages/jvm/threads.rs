//! The VM's own list of its threads, and where each has left Java: the VM notes that before it
//! calls anything that may block.

use crate::languages::jvm::layout::{Thread, ThreadList, Threads};
use crate::languages::target::Target;
use crate::raw::RuntimeEntry;

/// The threads, each with its number for the kernel.
pub(crate) fn list<'a>(
    threads: &'a Threads,
    target: &'a dyn Target,
) -> impl Iterator<Item = (u32, u64)> + 'a {
    let numbered = |thread| Some((number_of(thread, &threads.thread, target)?, thread));
    let (mut listed, mut chained) = (None, None);
    match threads.list {
        ThreadList::Array { variable, length, elements } => {
            let list = target.u64(variable).filter(|&list| list != 0);
            let length = list.and_then(|list| length.read(list, target));
            let first = list.and_then(|list| elements.read(list, target));
            let at = move |index: u64| target.u64(first?.checked_add(index.checked_mul(8)?)?);
            listed = Some((0..u64::from(length.unwrap_or(0) as u32)).map_while(at));
        }
        ThreadList::Chain { variable, next } => {
            let first = target.u64(variable).filter(|&thread| thread != 0);
            let next = move |&thread: &u64| next.read(thread, target).filter(|&next| next != 0);
            chained = Some(std::iter::successors(first, next));
        }
    }
    let all = listed.into_iter().flatten().chain(chained.into_iter().flatten());
    all.filter_map(numbered)
}

fn number_of(thread: u64, layout: &Thread, target: &dyn Target) -> Option<u32> {
    let os_thread = layout.os_thread.read(thread, target).filter(|&at| at != 0)?;
    // A `pid_t`.
    Some(layout.number.read(os_thread, target)? as u32)
}

/// Where a thread, which has this number, has left Java; `None`: it has not.
pub(crate) fn entry_of(
    thread: u64,
    tid: u32,
    layout: &Thread,
    target: &dyn Target,
) -> Option<RuntimeEntry> {
    if number_of(thread, layout, target)? != tid {
        return None;
    }
    let sp = layout.anchor_sp.read(thread, target).filter(|&sp| sp != 0)?;
    let returns_to = match layout.anchor_pc.read(thread, target)? {
        // Then it is where the call that it has made returns to.
        0 => target.u64(sp.checked_sub(8)?)?,
        pc => pc,
    };
    Some(RuntimeEntry { returns_to, sp, bp: layout.anchor_fp.read(thread, target)? })
}
