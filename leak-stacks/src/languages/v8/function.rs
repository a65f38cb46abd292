//! Functions: what all closures of one have in common, `SharedFunctionInfo`.

use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use crate::languages::v8::heap::{Heap, pointer, small, weak_pointer};

/// Longest name, in characters.
const MAX_NAME: u32 = 512;
/// Most variables whose names lie in a scope's description itself (`scope-info.tq`).
const MAX_INLINE_NAMES: u64 = 75;
/// Most words of a scope's description before what is looked for.
const MAX_WORDS: u64 = 16 << 10;
/// Most functions of a script, those that are looked at for what one is written in, and how many of
/// these are told.
const MAX_FUNCTIONS: u64 = 64 << 10;
const MAX_BEFORE: usize = 1024;
const MAX_OUTER: usize = 4;
/// Most functions of one process for which that is remembered.
const MAX_REMEMBERED: usize = 4096;
/// What functions without a name are called.
pub(crate) const ANONYMOUS: &str = "<anonymous>";

/// Where the flags of a scope have what is looked for (`ScopeFlags` of `scope-info.tq`).
const SCOPE_TYPE: u32 = 0xf;
const HAS_CLASS: u32 = 1 << 10;
const HAS_NAME: u32 = 3 << 12;
const HAS_INFERRED_NAME: u32 = 1 << 14;
/// Types of scopes that have a place in the script, and that of modules, in releases that have it
/// behind the names.
const WITH_POSITIONS: [u32; 5] = [0, 1, 2, 4, 8];
const MODULE: u32 = 3;

/// A function, as far as it can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    /// Its script's address; `None`: it is of none, as V8's own functions.
    pub(crate) script: Option<u64>,
    /// Where it begins and ends in the script.
    pub(crate) range: Option<Range<u32>>,
}

impl Function {
    /// Reads what closures share, at this address; `None` when it is no such thing.
    pub(crate) fn read(shared: u64, heap: Heap<'_>) -> Option<Self> {
        let layout = heap.layout;
        heap.is(shared, layout.types.shared).then_some(())?;
        let script = heap.object(shared, layout.shared.script);
        let script = script.filter(|script| heap.is(*script, layout.types.script));
        let told = Told::read(shared, heap)?;
        let name = told.name.into_iter().chain(told.inferred).find(|name| !name.is_empty());
        let name = name.unwrap_or_else(|| ANONYMOUS.to_owned());
        let range = told.range.or_else(|| uncompiled(shared, heap));
        Some(Self { name, script, range })
    }

    /// The names of the functions that it is written in, innermost first.
    ///
    /// A script lists its functions in the order in which they begin, so those are before it.
    fn outer(&self, shared: u64, heap: Heap<'_>) -> Option<Vec<String>> {
        let all = heap.object(self.script?, heap.layout.script.functions)?;
        let all = heap.elements(all, MAX_FUNCTIONS)?;
        let own = all.iter().position(|function| weak_pointer(*function) == Some(shared))?;
        let before = all.get(own.saturating_sub(MAX_BEFORE)..own)?.iter().rev();
        let mut inner = self.range.clone()?;
        let mut names = Vec::new();
        for function in before.filter_map(|function| weak_pointer(*function)) {
            let Some(outer) = Self::read(function, heap) else { continue };
            let is_within =
                |range: &Range<u32>| range.start < inner.start && inner.end <= range.end;
            let Some(range) = outer.range.filter(is_within) else { continue };
            inner = range;
            if outer.name != ANONYMOUS {
                names.push(outer.name);
            }
            if names.len() >= MAX_OUTER {
                break;
            }
        }
        Some(names)
    }
}

/// Where a function that is not compiled begins and ends.
fn uncompiled(shared: u64, heap: Heap<'_>) -> Option<Range<u32>> {
    let layout = heap.layout;
    let data = heap.object(shared, layout.shared.data)?;
    let kind = heap.instance_type(data)?;
    layout.types.uncompiled.contains(&Some(kind)).then_some(())?;
    let start = data.checked_add(layout.shared.uncompiled_start)?;
    let (start, end) = (heap.target.u32(start)?, heap.target.u32(start.checked_add(4)?)?);
    (start <= end).then_some(start..end)
}

/// The names of the functions that others are written in.
#[derive(Debug, Default)]
pub(crate) struct OuterNames(HashMap<Identity, Rc<[String]>>);

/// A function: what its closures share, its script, and where it is in that.
type Identity = (u64, Option<u64>, Range<u32>);

impl OuterNames {
    /// The name of a function behind those of the functions that it is written in.
    pub(crate) fn qualify(&mut self, function: &Function, shared: u64, heap: Heap<'_>) -> String {
        let Some(range) = function.range.clone() else { return function.name.clone() };
        if self.0.len() >= MAX_REMEMBERED {
            self.0.clear();
        }
        let outer = self.0.entry((shared, function.script, range)).or_insert_with(|| {
            let names = function.outer(shared, heap).unwrap_or_default();
            names.into_iter().rev().collect()
        });
        outer.iter().chain([&function.name]).map(String::as_str).collect::<Vec<_>>().join(".")
    }
}

/// What is told of a function.
#[derive(Debug, Default)]
struct Told {
    name: Option<String>,
    /// What it is assigned to.
    inferred: Option<String>,
    range: Option<Range<u32>>,
}

impl Told {
    fn read(shared: u64, heap: Heap<'_>) -> Option<Self> {
        let layout = heap.layout;
        let word = heap.word(shared, layout.shared.name_or_scope)?;
        // A number stands for no name.
        let Some(described) = pointer(word) else { return small(word).map(|_| Self::default()) };
        let kind = heap.instance_type(described)?;
        if kind == layout.types.scope {
            return Self::of_scope(described, heap);
        }
        let name = (kind < layout.types.first_non_string).then(|| name(described, heap))?;
        Some(Self { name, ..Self::default() })
    }

    fn of_scope(scope: u64, heap: Heap<'_>) -> Option<Self> {
        let word = |index: u64| heap.word(scope, index.checked_add(1)?.checked_mul(8)?);
        // A small number, or in newer releases one of 32 bits.
        let flags = match word(0)? {
            tagged if small(tagged).is_some() => small(tagged)?.cast_unsigned(),
            plain => u32::try_from(plain).ok()?,
        };
        let variables = u64::try_from(small(word(2)?)?).ok()?;
        let mut next = heap.layout.scope.first_names;
        let mut told = Self::default();
        if heap.layout.scope.has_positions_first {
            told.range = range(word(next - 2)?, word(next - 1)?);
        } else if flags & SCOPE_TYPE == MODULE {
            // It has no name, and some releases have a number before those of its variables.
            return Some(Self { range: Some(0..u32::MAX), ..Self::default() });
        }
        // The names, or one table of them; then what kind each is.
        let names = if variables < MAX_INLINE_NAMES { variables } else { 1 };
        next = next.checked_add(names)?.checked_add(variables)?;
        (next < MAX_WORDS).then_some(())?;
        if flags & HAS_CLASS != 0 {
            next += 1;
        }
        if flags & HAS_NAME != 0 {
            told.name = string(word(next)?, heap);
            next += 2;
        }
        if flags & HAS_INFERRED_NAME != 0 {
            told.inferred = string(word(next)?, heap);
            next += 1;
        }
        let has_positions = WITH_POSITIONS.contains(&(flags & SCOPE_TYPE));
        if has_positions && !heap.layout.scope.has_positions_first {
            told.range = range(word(next)?, word(next + 1)?);
        }
        Some(told)
    }
}

/// Where a function begins and ends, given the words of both.
fn range(first: u64, last: u64) -> Option<Range<u32>> {
    let number = |word| u32::try_from(small(word)?).ok();
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some(first..last)
}

fn string(word: u64, heap: Heap<'_>) -> Option<String> {
    name(pointer(word)?, heap)
}

fn name(string: u64, heap: Heap<'_>) -> Option<String> {
    let name = heap.string(string, MAX_NAME)?;
    (!name.contains(char::is_control)).then_some(name)
}
