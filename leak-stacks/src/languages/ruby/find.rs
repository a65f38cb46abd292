//! Finds Ruby in a process, and where its threads keep their execution contexts.
//!
//! Releases keep this in different places, and since 3.3 no symbol tells where. What leads there is
//! found by what must be true of it: the VM has an object that points back to it; its main thread
//! points to the VM and to a context that points back to the thread; the thread's register points
//! to itself; and near it, at the same place in all threads, lies the context's address.

use crate::binary::elf::Section;
use crate::binary::facts::{Facts, Source};
use crate::binary::symbol_table::addresses_of;
use crate::bytes::{base_name, u64_at};
use crate::languages::language::Process;
use crate::languages::ruby::object::{DATA, is};
use crate::languages::target::Target;

/// Most bytes of a binary's variables that are searched.
const MAX_DATA: u64 = 1 << 20;
/// Words of structures that are searched: the VM's, a thread's, a context's, and those of what the
/// system's thread is kept in.
const VM_WORDS: usize = 96;
const THREAD_WORDS: usize = 48;
const CONTEXT_WORDS: usize = 10;
const SYSTEM_THREAD_WORDS: usize = 16;
/// Words of an object that may hold what it stands for.
const OBJECT_WORDS: usize = 6;
/// Largest stack of a context that is believed, in words.
const MAX_STACK: u64 = 1 << 24;
/// How much of a thread's variables is searched, below its register and above it.
const BELOW: u64 = 16 << 10;
const ABOVE: u64 = 2304;

/// Ruby's binary in a process.
#[derive(Debug)]
pub(crate) struct Place {
    /// Address of the variable with the VM's address, if a symbol tells.
    pub(super) vm: Option<u64>,
    /// The binary's variables: address and size.
    pub(super) data: Vec<(u64, u64)>,
    /// Addresses of the variables that hold the classes `Object` and `String`.
    pub(crate) classes: [u64; 2],
    /// Address of the release's name.
    pub(crate) version: u64,
}

/// A thread of Ruby's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Thread {
    /// Address of its execution context.
    pub(crate) context: u64,
    /// From the thread register, the place of that address or of the thread's.
    pub(crate) slot: i32,
    /// In the thread, the place of the context's address, if the slot has the thread's.
    pub(crate) context_offset: Option<u32>,
}

impl Place {
    /// Looks for Ruby among the files that are mapped.
    pub(crate) fn find(process: &Process<'_>) -> Option<Self> {
        process.modules.iter().find_map(|mapping| {
            let name = base_name(mapping.path.as_deref()?);
            if !name.starts_with("libruby") && !name.starts_with("ruby") {
                return None;
            }
            let symbols = mapping.binary.as_deref()?.facts::<Symbols>()?;
            let bias = mapping.start.wrapping_sub(mapping.address_in_file(mapping.start)?);
            symbols.placed(bias)
        })
    }

    /// The address of the VM.
    pub(crate) fn vm(&self, target: &dyn Target) -> Option<u64> {
        if let Some(variable) = self.vm {
            return target.u64(variable);
        }
        self.data.iter().find_map(|&(start, size)| {
            let words = words(start, usize::try_from(size / 8).ok()?, target)?;
            words.into_iter().find(|&word| is_vm(word, target))
        })
    }
}

/// Whether this is a VM, which begins with the address of an object for it.
fn is_vm(address: u64, target: &dyn Target) -> bool {
    let object = (address.is_multiple_of(8) && address >= 4096).then(|| target.u64(address));
    let Some(object) = object.flatten() else { return false };
    is(object, DATA, target)
        && words(object, OBJECT_WORDS, target).is_some_and(|words| words.contains(&address))
}

impl Thread {
    /// The main thread of a VM.
    pub(crate) fn main(vm: u64, target: &dyn Target) -> Option<Self> {
        let candidates = words(vm, VM_WORDS, target)?;
        candidates.into_iter().find_map(|thread| Self::of(thread, vm, target))
    }

    fn of(thread: u64, vm: u64, target: &dyn Target) -> Option<Self> {
        let thread_words = words(thread, THREAD_WORDS, target)?;
        if !thread_words.contains(&vm) {
            return None;
        }
        let is_context = |word: u64| {
            Stack::of(word, target).is_some()
                && words(word, CONTEXT_WORDS, target).is_some_and(|words| words.contains(&thread))
        };
        let index = thread_words.iter().position(|&word| is_context(word))?;
        let context = *thread_words.get(index)?;
        let register = thread_register(&thread_words, target)?;
        let slot_with = |value| slot_with(value, register, target);
        let (slot, context_offset) = match slot_with(context) {
            Some(slot) => (slot, None),
            None => (slot_with(thread)?, Some(u32::try_from(index * 8).ok()?)),
        };
        Some(Self { context, slot, context_offset })
    }
}

/// The stack of an execution context, at whose end the control frames lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stack {
    /// Address of the innermost frame.
    pub(crate) innermost: u64,
    /// Address behind the outermost.
    pub(crate) end: u64,
}

impl Stack {
    /// That of a context.
    pub(crate) fn of(context: u64, target: &dyn Target) -> Option<Self> {
        let words = words(context, 3, target)?;
        let &[start, size, innermost] = words.as_slice() else { return None };
        let end = start.checked_add(size.checked_mul(8)?)?;
        let is_stack = start.is_multiple_of(8)
            && innermost.is_multiple_of(8)
            && (1..=MAX_STACK).contains(&size)
            && (start..end).contains(&innermost);
        is_stack.then_some(Self { innermost, end })
    }
}

/// A thread's register by what Ruby notes of it: in the thread itself or in what it points to. Both
/// glibc and musl keep there first the register's own value, then another address.
fn thread_register(thread: &[u64], target: &dyn Target) -> Option<u64> {
    let is_register = |&word: &u64| {
        words(word, 2, target).is_some_and(|found| found[..] != [word; 2] && found[0] == word)
    };
    let find = |words: &[u64]| words.iter().copied().find(is_register);
    find(thread).or_else(|| {
        thread.iter().find_map(|&word| find(&words(word, SYSTEM_THREAD_WORDS, target)?))
    })
}

/// Where, seen from a thread's register, the only word with this value lies.
fn slot_with(value: u64, register: u64, target: &dyn Target) -> Option<i32> {
    // What lies below may begin anywhere.
    let mut below = BELOW;
    let (start, bytes) = loop {
        let start = register.checked_sub(below)?;
        let length = usize::try_from(below.checked_add(ABOVE)?).ok()?;
        match target.bytes(start, length) {
            Some(bytes) => break (start, bytes),
            None if below == 0 => return None,
            None => below = if below > 256 { below / 2 } else { 0 },
        }
    };
    let mut found = (0..bytes.len() / 8).filter(|index| u64_at(&bytes, index * 8) == Some(value));
    let at = start.checked_add(found.next()? as u64 * 8)?;
    if found.next().is_some() {
        return None;
    }
    i32::try_from(at.wrapping_sub(register).cast_signed()).ok()
}

/// `count` words at an address that may be none.
fn words(address: u64, count: usize, target: &dyn Target) -> Option<Vec<u64>> {
    if address < 4096 || !address.is_multiple_of(8) {
        return None;
    }
    let bytes = target.bytes(address, count.checked_mul(8)?)?;
    Some((0..count).filter_map(|index| u64_at(&bytes, index * 8)).collect())
}

/// What a binary's symbols tell, in its own numbering.
#[derive(Debug)]
struct Symbols {
    vm: Option<u64>,
    classes: [Option<u64>; 2],
    version: Option<u64>,
    data: Vec<(u64, u64)>,
}

impl Symbols {
    fn placed(&self, bias: u64) -> Option<Place> {
        let at = |address: u64| address.wrapping_add(bias);
        let [object, string] = self.classes;
        Some(Place {
            vm: self.vm.map(at),
            data: self.data.iter().map(|&(address, size)| (at(address), size)).collect(),
            classes: [at(object?), at(string?)],
            version: at(self.version?),
        })
    }
}

impl Facts for Symbols {
    fn read(source: &Source<'_>) -> Self {
        let names = ["ruby_current_vm_ptr", "rb_cObject", "rb_cString", "ruby_version"];
        let [vm, object, string, version] = addresses_of(source, names);
        let is_variables = |section: &&Section| [".data", ".bss"].contains(&&*section.name);
        let variables = source.elf.sections.iter().filter(is_variables);
        Self {
            vm,
            classes: [object, string],
            version,
            data: variables.map(|s| (s.address, s.size.min(MAX_DATA))).collect(),
        }
    }

    fn bytes(&self) -> u64 {
        size_of::<Self>() as u64
    }
}
