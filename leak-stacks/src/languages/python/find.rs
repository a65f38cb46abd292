//! Finds CPython in a process, and where its threads keep their Python calls.

use crate::binary::facts::{Facts, Source};
use crate::binary::modules::Mapping;
use crate::binary::symbol_table::addresses_of;
use crate::bytes::{base_name, u64_at};
use crate::languages::language::Process;
use crate::languages::python::layout::{ABSENT, INTERPRETER, Layout, NEXT_THREAD, Version};
use crate::process::memory::Memory;
use crate::raw::InterpreterProfile;

/// Most threads that are asked for their slot.
const MAX_THREADS: usize = 64;
/// Most slots that are looked at. The interpreter takes its own early.
const SLOT_COUNT: usize = 32;

/// How much of a `PyThreadState` is looked at.
pub(crate) const THREAD_STATE: usize = 256;
/// In the structure that the thread register points to, for glibc (`dtv` of `tcbhead_t`) and musl
/// (`dtv` of `struct pthread`): the table of the blocks of the thread's variables.
const BLOCKS: u32 = 8;
/// How many words of that table are looked at.
const MAX_BLOCKS: u32 = 64;
/// How far below the thread register its variables are looked for.
const MAX_VARIABLES: u64 = 16 << 10;

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

/// CPython in a process: what holds as long as the process runs its program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interpreter {
    pub(crate) layout: Layout,
    /// What an address in memory is above the same in the file's numbering.
    pub(crate) bias: u64,
    /// Address of `_PyRuntime`.
    pub(crate) runtime: u64,
    /// Address of `PyCode_Type`, which every code object points to.
    pub(crate) code_type: u64,
    /// Whether it may run Python code that it has compiled.
    pub(crate) compiles: bool,
}

impl Interpreter {
    /// Looks for CPython among the files that are mapped.
    pub(crate) fn find(process: &Process<'_>) -> Option<Self> {
        process
            .modules
            .iter()
            .filter_map(|mapping| Some((mapping, version_in(mapping.path.as_deref()?)?)))
            .find_map(|(mapping, version)| Self::of(mapping, version, process))
    }

    fn of(mapping: &Mapping, by_name: Option<Version>, process: &Process<'_>) -> Option<Self> {
        let binary = mapping.binary.as_deref()?;
        let bias = mapping.start.wrapping_sub(mapping.address_in_file(mapping.start)?);
        let Symbols { runtime, code_type, version, compiler } = *binary.facts()?;
        let memory = process.memory()?;
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
        Some(Self { layout, bias, runtime, code_type, compiles: compiler.is_some() })
    }

    /// What the kernel programs need to follow the process's Python calls; `None` while the
    /// interpreter starts.
    ///
    /// The interpreter's list of threads tells which thread has which `PyThreadState`; the slot
    /// that holds the one in the other is the interpreter's, in all threads. So nothing has to be
    /// assumed of how the slot was allocated, and which C library it is shows by itself.
    pub(crate) fn profile(&self, memory: &Memory) -> Option<InterpreterProfile> {
        let layout = &self.layout;
        let interpreter = memory.field(self.runtime, layout.interpreters)?;
        let mut state = memory.field(interpreter, layout.threads)?;
        for _ in 0..MAX_THREADS {
            if memory.field(state, INTERPRETER)? != interpreter {
                return None;
            }
            if let Some((slots, slot)) = slot_of(state, memory) {
                return layout.profile(slots, slot);
            }
            state = memory.field(state, NEXT_THREAD)?;
        }
        None
    }
}

/// Where a thread keeps the address of its `PyThreadState`: offsets of the table of slots and of
/// the slot.
///
/// The state notes the `pthread_t`, which is the thread register's value. Where it does shows by
/// itself: nothing else that it holds leads to a slot with its own address.
fn slot_of(state: u64, memory: &Memory) -> Option<(u32, u32)> {
    let words = memory.bytes(state, THREAD_STATE)?;
    (0..THREAD_STATE / 8).find_map(|index| {
        let thread = u64_at(&words, index * 8)?;
        if thread == 0 || thread % 16 != 0 || thread == state {
            return None;
        }
        slot_with(state, thread, memory)
    })
}

/// Offsets of the table of slots and of the slot that holds `value`, in the thread of that
/// `pthread_t`.
fn slot_with(value: u64, thread: u64, memory: &Memory) -> Option<(u32, u32)> {
    // glibc's `tcbhead_t` and musl's `struct pthread` begin with their own address.
    if memory.field(thread, 0)? != thread {
        return None;
    }
    let key = C_LIBRARIES.iter().find_map(|slots| {
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
    });
    key.or_else(|| Some((ABSENT, variable_with(value, thread, memory)?)))
}

/// Offset of the variable of a thread that holds `value`: since 3.15, the slot is one. `None` when
/// there are several: another one holds it while the thread runs Python.
///
/// Such variables lie below the thread register, in blocks of which both C libraries keep a table.
fn variable_with(value: u64, thread: u64, memory: &Memory) -> Option<u32> {
    let blocks = memory.field(thread, BLOCKS)?;
    let below = |word: u64| thread.checked_sub(word).filter(|&by| by > 0 && by <= MAX_VARIABLES);
    // Its own length is kept in different ways.
    let words = (0..MAX_BLOCKS).map_while(|index| memory.field(blocks, index * 8));
    let length = words.filter_map(below).max()? / 8 * 8;
    let variables = memory.bytes(thread - length, usize::try_from(length).ok()?)?;
    let mut holding = (0..variables.len() / 8).filter(|i| u64_at(&variables, i * 8) == Some(value));
    let (only, None) = (holding.next()?, holding.next()) else { return None };
    let distance = i32::try_from(length).ok()?.checked_sub(i32::try_from(only * 8).ok()?)?;
    Some(distance.wrapping_neg().cast_unsigned())
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

/// Addresses of what is looked for, in the binary's own numbering.
#[derive(Clone, Copy, Debug)]
struct Symbols {
    runtime: Option<u64>,
    code_type: Option<u64>,
    version: Option<u64>,
    compiler: Option<u64>,
}

impl Facts for Symbols {
    fn read(source: &Source<'_>) -> Self {
        let names = ["_PyRuntime", "PyCode_Type", "Py_Version", "_PyOptimizer_Optimize"];
        let [runtime, code_type, version, compiler] = addresses_of(source, names);
        Self { runtime, code_type, version, compiler }
    }

    fn bytes(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::ProcessKey;
    use crate::process::stat::start_ticks;

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
    fn a_variable_of_a_thread() {
        let pid = std::process::id();
        let process = ProcessKey { pid, start_ticks: start_ticks(pid).unwrap() };
        let memory = Memory::open(process).unwrap();
        let value = 0x5eed;
        let mut words = vec![0u64; 512];
        let address = |words: &Vec<u64>, index: usize| {
            std::hint::black_box(words).as_ptr() as u64 + index as u64 * 8
        };
        // Blocks of variables below the thread's structure, and their table above it.
        let thread = address(&words, 100);
        words[100] = thread;
        words[101] = address(&words, 300);
        (words[301], words[303]) = (thread - 16, thread - 80);
        words[80] = value;
        let offset = |words: &Vec<u64>| slot_with(value, address(words, 100), &memory);
        assert_eq!(offset(&words), None, "it is in no block");
        words[95] = value;
        assert_eq!(offset(&words), Some((ABSENT, (-40i32).cast_unsigned())));
        words[98] = value;
        assert_eq!(offset(&words), None, "which one?");
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
