//! Functions by their bytecode, which stays where it is when closures have moved.
//!
//! V8 lists the scripts of each isolate, and each script's functions. The list is among the roots,
//! which V8's code has in a register.

use std::collections::HashMap;
use std::time::Duration;

use crate::bytes::u64_at;
use crate::languages::v8::code::bytecode_of;
use crate::languages::v8::heap::{Heap, pointer, weak_pointer};
use crate::time::Timestamp;

/// Where the roots are, from what the register points to.
const BEFORE: u64 = 128;
const ROOTS: usize = 12 << 10;
/// Most isolates of one process whose lists are remembered, as of worker threads.
const MAX_ISOLATES: usize = 64;
/// Most scripts and functions that are gone through.
const MAX_SCRIPTS: u64 = 16 << 10;
const MAX_FUNCTIONS: u64 = 16 << 10;
const MAX_ALL: usize = 128 << 10;
/// Most functions that are remembered.
const MAX_REMEMBERED: usize = 4096;
/// How often the lists are gone through at most, and how long what was found is kept.
const PAUSE: Duration = Duration::from_secs(10);

/// What is known of a process's functions.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// Where the list of scripts is kept, by the register's value; `None`: nowhere.
    lists: HashMap<u64, Option<u64>>,
    /// What closures share, by bytecode: of functions that were met.
    met: HashMap<u64, u64>,
    /// Of all functions of an isolate, for a short while.
    all: HashMap<u64, u64>,
    listed: Option<(u64, Timestamp)>,
}

impl Index {
    /// Remembers the bytecode of a function that was met.
    pub(crate) fn meet(&mut self, bytecode: u64, shared: u64) {
        if self.met.len() >= MAX_REMEMBERED {
            self.met.clear();
        }
        self.met.insert(bytecode, shared);
    }

    /// Forgets what is kept for a short while only.
    pub(crate) fn tidy(&mut self, now: Timestamp) {
        if self.listed.is_some_and(|(_, at)| now.since(at) >= PAUSE) {
            self.all = HashMap::new();
        }
    }

    /// What the closures share of the function that has this bytecode, of the isolate whose roots
    /// are where `roots` says.
    pub(crate) fn find(
        &mut self,
        bytecode: u64,
        roots: Option<u64>,
        now: Timestamp,
        heap: Heap<'_>,
    ) -> Option<u64> {
        let has = |shared: &&u64| bytecode_of(**shared, heap) == Some(bytecode);
        if let Some(&met) = self.met.get(&bytecode).filter(has) {
            return Some(met);
        }
        let roots = roots?;
        let is_fresh = self.listed.is_some_and(|(of, at)| of == roots && now.since(at) < PAUSE);
        if !is_fresh {
            self.list(roots, now, heap)?;
        }
        let shared = self.all.get(&bytecode).filter(has).copied()?;
        self.meet(bytecode, shared);
        Some(shared)
    }

    fn list(&mut self, roots: u64, now: Timestamp, heap: Heap<'_>) -> Option<()> {
        self.all = HashMap::new();
        self.listed = Some((roots, now));
        if self.lists.len() >= MAX_ISOLATES {
            self.lists.clear();
        }
        let slot = *self.lists.entry(roots).or_insert_with(|| slot_of_scripts(roots, heap));
        let scripts = scripts_in(pointer(heap.target.u64(slot?)?)?, heap)?;
        for script in scripts {
            self.add(script, heap);
        }
        Some(())
    }

    /// Adds the functions of a script.
    fn add(&mut self, script: u64, heap: Heap<'_>) -> Option<()> {
        let layout = heap.layout;
        let functions = heap.object(script, layout.script.functions)?;
        for function in heap.elements(functions, MAX_FUNCTIONS)? {
            // Scripts list what else has a scope, too, and what is not used any more.
            let Some(shared) = weak_pointer(function) else { continue };
            if self.all.len() < MAX_ALL
                && heap.is(shared, layout.types.shared)
                && let Some(bytecode) = bytecode_of(shared, heap)
            {
                self.all.insert(bytecode, shared);
            }
        }
        Some(())
    }
}

/// Where among the roots the list of scripts is.
fn slot_of_scripts(roots: u64, heap: Heap<'_>) -> Option<u64> {
    let first = roots.checked_sub(BEFORE)?;
    let words = heap.target.bytes_up_to(first, ROOTS)?;
    let mut slots = (0..words.len()).step_by(8);
    let offset = slots.find(|&offset| {
        let list = u64_at(&words, offset).and_then(pointer);
        list.and_then(|list| scripts_in(list, heap)).is_some_and(|scripts| !scripts.is_empty())
    })?;
    first.checked_add(offset as u64)
}

/// The scripts in a list; `None` when it is none of scripts.
fn scripts_in(list: u64, heap: Heap<'_>) -> Option<Vec<u64>> {
    let types = &heap.layout.types;
    let listed = heap.listed(list, MAX_SCRIPTS)?;
    let scripts = listed.into_iter().filter_map(weak_pointer);
    scripts.map(|script| heap.is(script, types.script).then_some(script)).collect()
}
