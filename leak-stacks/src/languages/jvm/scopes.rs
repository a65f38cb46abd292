//! What compilers note of the places in their code: which methods were compiled into which, and
//! where in their bytecode each stands.

use crate::bytes::u32_at;
use crate::languages::jvm::code::Blob;
use crate::languages::jvm::layout::Layout;
use crate::languages::jvm::numbers::Numbers;
use crate::languages::target::Target;

/// Most methods within one another.
const MAX_INLINED: usize = 64;
/// Most bytes of places' descriptions that are read.
const MAX_PLACES: u64 = 4 << 20;
/// Most methods that compiled code refers to.
const MAX_METADATA: u32 = 1 << 20;
/// Bytes that the head of a scope takes at most: three numbers.
const HEAD: usize = 15;

/// A method that runs at a place in compiled code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    pub(crate) method: u64,
    /// Place in its bytecode; `None` before the first instruction.
    pub(crate) place: Option<u32>,
}

/// The methods that run at the place in compiled code that calls return to, innermost first.
///
/// `None` when the compiler noted no such place: then other code was there when the call was made.
pub(crate) fn scopes_at(
    blob: &Blob,
    returns_to: u64,
    layout: &Layout,
    target: &dyn Target,
) -> Option<Vec<Scope>> {
    let compiled = &layout.compiled;
    let place = u32::try_from(returns_to.checked_sub(blob.code)?).ok()?;
    let first = compiled.places.0.find(blob.address, target)?;
    let end = compiled.places.1.find(blob.address, target)?;
    let scope = scope_of(place, first, end, layout, target)?;
    let data = compiled.scopes.find(blob.address, target)?;
    let metadata = compiled.metadata.find(blob.address, target)?;
    let outermost = compiled.method.read(blob.address, target)?;
    let mut scopes = Vec::new();
    let mut next = scope;
    while next != 0 {
        if scopes.len() >= MAX_INLINED {
            return None;
        }
        let head = head_at(data.checked_add(next.into())?, target);
        let mut numbers = Numbers::new(&head, layout.excess);
        let sender = numbers.unsigned()?;
        let index = numbers.unsigned().filter(|&index| index <= MAX_METADATA)?;
        let place = numbers.unsigned()?.checked_sub(1);
        let method = target.u64(metadata.checked_add(u64::from(index.checked_sub(1)?) * 8)?)?;
        scopes.push(Scope { method, place });
        // Callers are noted before those that they call.
        if sender >= next {
            return None;
        }
        next = sender;
    }
    (scopes.last()?.method == outermost).then_some(scopes)
}

/// The scope that belongs to a place, among descriptions in the order of their places.
fn scope_of(place: u32, first: u64, end: u64, layout: &Layout, target: &dyn Target) -> Option<u32> {
    let size = layout.place.size;
    let length = end.checked_sub(first).filter(|&length| length <= MAX_PLACES)?;
    let (mut low, mut high) = (0, length / size);
    while low < high {
        let middle = low + (high - low) / 2;
        let at = first.checked_add(middle * size)?;
        let description = target.bytes(at, usize::try_from(size).ok()?)?;
        let found = u32_at(&description, usize::try_from(layout.place.code).ok()?)?;
        // The first one stands for no place, and is -1.
        match found.cast_signed().cmp(&place.cast_signed()) {
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Greater => high = middle,
            std::cmp::Ordering::Equal => {
                return u32_at(&description, usize::try_from(layout.place.scope).ok()?);
            }
        }
    }
    None
}

/// As much of a scope's head as can be read: it may be the last thing before memory ends.
fn head_at(address: u64, target: &dyn Target) -> Vec<u8> {
    target.bytes(address, HEAD).unwrap_or_else(|| {
        let bytes = (0..HEAD as u64).map_while(|at| target.u8(address.checked_add(at)?));
        bytes.collect()
    })
}
