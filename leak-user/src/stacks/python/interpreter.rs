//! Finds CPython in a process, and where its threads keep their Python calls.

use std::fs::File;

use leak_common::interpreter::InterpreterProfile;
use leak_common::interpreter::cpython::ABSENT;

use super::super::binary::Binary;
use super::super::bytes::{text_at, u16_at, u32_at, u64_at};
use super::super::culprit::base_name;
use super::super::elf::Elf;
use super::super::modules::{Mapping, Modules};
use super::layout::{Layout, Version};
use super::memory::Memory;

/// Most threads that are asked for their slot.
const MAX_THREADS: usize = 64;
/// Most slots that are looked at. The interpreter takes its own early.
const SLOT_COUNT: usize = 32;

/// How a C library keeps the slots that `pthread_setspecific` writes.
struct Slots {
    /// From the thread register, the address of their table; [`ABSENT`]: they lie there themselves.
    table: u32,
    /// The first slot's value.
    first: u32,
    /// From one slot to the next.
    step: usize,
}

const C_LIBRARIES: [Slots; 2] = [
    // glibc for x86-64, nptl/descr.h: `specific_1stblock` of `struct pthread`, whose elements are a
    // sequence number and the value.
    Slots { table: ABSENT, first: 0x310 + 8, step: 16 },
    // musl for x86-64, src/internal/pthread_impl.h: `tsd` of `struct pthread`.
    Slots { table: 128, first: 0, step: 8 },
];

/// Size of an ELF symbol, and where its value lies.
const SYMBOL_SIZE: usize = 24;
const SYMBOL_VALUE: usize = 8;
const SYMBOL_SECTION: usize = 6;

/// CPython in a process: what holds as long as the process runs its program.
#[derive(Clone, Copy, Debug)]
pub(super) struct Interpreter {
    pub(super) layout: Layout,
    /// Address of `_PyRuntime`.
    runtime: u64,
    /// Address of `PyCode_Type`, which every code object points to.
    pub(super) code_type: u64,
}

impl Interpreter {
    /// Looks for CPython among the files that are mapped.
    pub(super) fn find(modules: &Modules, memory: &Memory) -> Option<Self> {
        modules
            .iter()
            .filter_map(|mapping| Some((mapping, version_in(mapping.path.as_deref()?)?)))
            .find_map(|(mapping, version)| Self::of(mapping, version, memory))
    }

    fn of(mapping: &Mapping, by_name: Option<Version>, memory: &Memory) -> Option<Self> {
        let binary = mapping.binary.as_deref()?;
        let bias = mapping.start.wrapping_sub(mapping.address_in_file(mapping.start)?);
        let [runtime, code_type, version] = super::super::guarded(|| {
            symbols(binary, ["_PyRuntime", "PyCode_Type", "Py_Version"])
        })??;
        let in_memory = |symbol: Option<u64>| symbol.map(|at| at.wrapping_add(bias));
        let (runtime, code_type) = (in_memory(runtime)?, in_memory(code_type)?);
        let version = match in_memory(version) {
            // PY_VERSION_HEX, since 3.11.
            Some(at) => {
                let [_, _, minor, major, ..] = memory.word(at)?.to_le_bytes();
                (major, minor)
            }
            None => by_name?,
        };
        let described = || Layout::described(&memory.bytes(runtime, Layout::DESCRIPTION)?);
        let layout = Layout::of(version).or_else(described)?;
        Some(Self { layout, runtime, code_type })
    }

    /// What the kernel programs need to follow the process's Python calls; `None` while the
    /// interpreter starts.
    ///
    /// The interpreter's list of threads tells which thread has which `PyThreadState`; the slot that
    /// holds the one in the other is the interpreter's, in all threads. So nothing has to be assumed
    /// of how the slot was allocated, and which C library it is shows by itself.
    pub(super) fn profile(&self, memory: &Memory) -> Option<InterpreterProfile> {
        let layout = &self.layout;
        let interpreter = memory.field(self.runtime, layout.interpreters)?;
        let mut state = memory.field(interpreter, layout.threads)?;
        for _ in 0..MAX_THREADS {
            if memory.field(state, layout.interpreter)? != interpreter {
                return None;
            }
            let thread = memory.field(state, layout.thread_id)?;
            if let Some((slots, slot)) = slot_with(state, thread, memory) {
                return layout.profile(slots, slot);
            }
            state = memory.field(state, layout.next_thread)?;
        }
        None
    }
}

/// Offsets of the table of slots and of the slot that holds `value`, in the thread of that
/// `pthread_t`, which is the thread register's value.
fn slot_with(value: u64, thread: u64, memory: &Memory) -> Option<(u32, u32)> {
    // glibc's `tcbhead_t` and musl's `struct pthread` begin with their own address.
    if memory.field(thread, 0)? != thread {
        return None;
    }
    C_LIBRARIES.iter().find_map(|slots| {
        let table = match slots.table {
            ABSENT => thread,
            offset => memory.field(thread, offset)?,
        };
        let first = table.checked_add(slots.first.into())?;
        let bytes = memory.bytes(first, SLOT_COUNT * slots.step)?;
        let at = (0..SLOT_COUNT)
            .map(|index| index * slots.step)
            .find(|&at| u64_at(&bytes, at) == Some(value))?;
        Some((slots.table, u32::try_from(at).ok()?.checked_add(slots.first)?))
    })
}

/// Whether a file may hold the interpreter, and its release if the name has it: `python3.11`,
/// `libpython3.9.so.1.0`, `libpython3.so`.
fn version_in(path: &str) -> Option<Option<Version>> {
    let name = base_name(path);
    let rest = name.strip_prefix("lib").unwrap_or(name).strip_prefix("python")?;
    let minor = rest.strip_prefix("3.").and_then(|rest| {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        rest.get(..digits)?.parse().ok()
    });
    Some(minor.map(|minor| (3, minor)))
}

/// The values of these symbols.
fn symbols<const N: usize>(binary: &Binary, names: [&str; N]) -> Option<[Option<u64>; N]> {
    let loaded = binary.loaded()?;
    let mut found = [None; N];
    for (table, strings) in [(".dynsym", ".dynstr"), (".symtab", ".strtab")] {
        look_up(&loaded.elf, &binary.file, (table, strings), &names, &mut found);
    }
    Some(found)
}

fn look_up(
    elf: &Elf,
    file: &File,
    tables: (&str, &str),
    names: &[&str],
    found: &mut [Option<u64>],
) {
    let data = |name| elf.data(file, elf.section(name)?).ok();
    let (Some(table), Some(strings)) = (data(tables.0), data(tables.1)) else { return };
    let longest = names.iter().map(|n| n.len()).max().unwrap_or(0) + 1;
    for symbol in table.chunks_exact(SYMBOL_SIZE) {
        if found.iter().all(Option::is_some) {
            break;
        }
        // Section 0: the symbol is another file's.
        let is_defined = u16_at(symbol, SYMBOL_SECTION).is_some_and(|section| section != 0);
        let name = u32_at(symbol, 0).and_then(|at| text_at(&strings, at as usize, longest));
        let (Some(name), true) = (name, is_defined) else { continue };
        if let Some(index) = names.iter().position(|wanted| *wanted == name)
            && let Some(place) = found.get_mut(index)
            && place.is_none()
        {
            *place = u64_at(symbol, SYMBOL_VALUE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::ProcessKey;
    use crate::stacks::identity::start_ticks;

    #[test]
    fn slots_of_both_c_libraries() {
        let pid = std::process::id();
        let process = ProcessKey { pid, start_ticks: start_ticks(pid).unwrap() };
        let memory = Memory::open(process).unwrap();
        let mut thread = vec![0u64; 256];
        let address = thread.as_ptr() as u64;
        let value = 0x5eed;
        assert_eq!(slot_with(value, address, &memory), None, "it does not begin with its address");
        thread[0] = address;
        assert_eq!(slot_with(value, std::hint::black_box(&thread).as_ptr() as u64, &memory), None);
        let table: Vec<u64> = (0x5eed - 9..).take(SLOT_COUNT).collect();
        thread[128 / 8] = std::hint::black_box(&table).as_ptr() as u64;
        let found = slot_with(value, std::hint::black_box(&thread).as_ptr() as u64, &memory);
        assert_eq!(found, Some((128, 9 * 8)));
        thread[(0x310 + 3 * 16 + 8) / 8] = value;
        let found = slot_with(value, std::hint::black_box(&thread).as_ptr() as u64, &memory);
        assert_eq!(found, Some((ABSENT, 0x310 + 3 * 16 + 8)));
    }

    #[test]
    fn names_of_interpreters() {
        assert_eq!(version_in("/usr/bin/python3.11"), Some(Some((3, 11))));
        assert_eq!(version_in("/opt/lib/libpython3.9.so.1.0"), Some(Some((3, 9))));
        assert_eq!(version_in("/usr/bin/python"), Some(None));
        assert_eq!(version_in("/usr/lib/libpq.so.5"), None);
        assert_eq!(version_in("/x/python3.999"), Some(None));
    }
}
