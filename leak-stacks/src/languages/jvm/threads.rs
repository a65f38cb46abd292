//! The VM's own list of its threads, and where each has left Java: the VM notes that before it
//! calls anything that may block.

use crate::languages::jvm::layout::{Thread, ThreadList, Threads};
use crate::languages::target::Target;
use crate::languages::thread_index::MAX_THREADS;
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
    all.take(MAX_THREADS).filter_map(numbered)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::languages::jvm::description::{Description, Field};
    use crate::languages::target::made_up::{BASE, Image};

    /// Offsets in the memory that is made up: a variable, a list, its elements, two threads.
    const LIST: u64 = 16;
    const ELEMENTS: u64 = 64;
    const THREADS: [u64; 2] = [128, 256];

    fn threads(is_list: bool) -> Threads {
        let field = |place, width, is_static| Field { place, width, is_static };
        let list = [
            ("ThreadsSMRSupport", "_java_thread_list", field(BASE, 8, true)),
            ("ThreadsList", "_length", field(0, 4, false)),
            ("ThreadsList", "_threads", field(8, 8, false)),
        ];
        let others = [
            ("Threads", "_thread_list", field(BASE + 8, 8, true)),
            ("JavaThread", "_next", field(0, 8, false)),
            ("JavaThread", "_osthread", field(8, 8, false)),
            ("JavaThread", "_anchor", field(16, 8, false)),
            ("JavaFrameAnchor", "_last_Java_sp", field(0, 8, false)),
            ("JavaFrameAnchor", "_last_Java_pc", field(8, 8, false)),
            ("JavaFrameAnchor", "_last_Java_fp", field(16, 8, false)),
            ("OSThread", "_thread_id", field(4, 8, false)),
        ];
        let fields = list.into_iter().filter(|_| is_list).chain(others);
        Threads::of(&Description::made_up(fields, &[])).unwrap()
    }

    /// Two threads; the first has left Java, with this instruction pointer.
    fn memory(pc: u64) -> Vec<u8> {
        let mut memory = vec![0; 1024];
        let mut put = |at: u64, value: u64| {
            memory[at as usize..][..8].copy_from_slice(&value.to_le_bytes());
        };
        put(0, BASE + LIST);
        put(8, BASE + THREADS[0]);
        put(LIST, 2);
        put(LIST + 8, BASE + ELEMENTS);
        for (index, (thread, number)) in THREADS.into_iter().zip([71_u64, 72]).enumerate() {
            put(ELEMENTS + 8 * index as u64, BASE + thread);
            put(thread, if index == 0 { BASE + THREADS[1] } else { 0 });
            put(thread + 8, BASE + thread + 64);
            put(thread + 68, number);
        }
        put(THREADS[0] + 16, BASE + 512);
        put(THREADS[0] + 24, pc);
        put(THREADS[0] + 32, BASE + 600);
        put(504, 0x7777);
        memory
    }

    #[test]
    fn both_kinds_of_lists_tell_where_a_thread_has_left_java() {
        for (is_list, pc, returns_to) in [(true, 0x5555, 0x5555), (false, 0, 0x7777)] {
            let (threads, bytes) = (threads(is_list), memory(pc));
            let image = Image(&bytes);
            let all: Vec<_> = list(&threads, &image).collect();
            assert_eq!(all, [(71, BASE + THREADS[0]), (72, BASE + THREADS[1])]);
            let entry = |thread, tid| entry_of(thread, tid, &threads.thread, &image);
            let expected = RuntimeEntry { returns_to, sp: BASE + 512, bp: BASE + 600 };
            assert_eq!(entry(all[0].1, 71), Some(expected));
            assert_eq!(entry(all[0].1, 72), None, "another thread has it by now");
            assert_eq!(entry(all[1].1, 72), None, "it is in Java");
        }
    }

    #[test]
    fn broken_lists_end() {
        for is_list in [true, false] {
            let threads = threads(is_list);
            for at in (0..320).step_by(8) {
                for value in [0, u64::MAX, BASE, BASE + THREADS[0], BASE + 1020] {
                    let mut bytes = memory(0);
                    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
                    let image = Image(&bytes);
                    for (tid, thread) in list(&threads, &image) {
                        entry_of(thread, tid, &threads.thread, &image);
                    }
                }
            }
        }
    }
}
