//! What is worked out from a binary's file once, and shared by all processes that run it.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fs::File;
use std::rc::Rc;

use crate::binary::elf::Elf;

/// The files that facts are read from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    /// Headers of the binary.
    pub(crate) elf: &'a Elf,
    /// The binary.
    pub(crate) file: &'a File,
    /// Its debug file, when its symbols and lines are not in its own.
    pub(crate) debug: Option<(&'a Elf, &'a File)>,
}

/// Something that is worked out from a binary: unwind rules, symbols, a runtime's offsets.
///
/// It is read when it is first asked for, kept with the binary, and dropped with the binary's other
/// contents when memory is short. See [`Binary::facts`](crate::binary::store::Binary::facts).
pub(crate) trait Facts: Any {
    /// Reads it from the file. Whatever is missing or malformed there must be part of the result:
    /// a file is read once only.
    fn read(source: &Source<'_>) -> Self
    where
        Self: Sized;

    /// How much memory it takes, in bytes, as far as that matters.
    fn bytes(&self) -> u64;
}

/// The facts of one binary.
#[derive(Debug, Default)]
pub(crate) struct AllFacts(HashMap<TypeId, Kept>);

#[derive(Debug)]
struct Kept {
    value: Rc<dyn Any>,
    bytes: fn(&dyn Any) -> u64,
}

impl AllFacts {
    /// Those of this type, if they were read.
    pub(crate) fn get<T: Facts>(&self) -> Option<Rc<T>> {
        let kept = self.0.get(&TypeId::of::<T>())?;
        Rc::clone(&kept.value).downcast().ok()
    }

    /// Keeps facts that were read.
    pub(crate) fn keep<T: Facts>(&mut self, facts: &Rc<T>) {
        let value: Rc<dyn Any> = Rc::<T>::clone(facts);
        let bytes = |any: &dyn Any| any.downcast_ref::<T>().map_or(0, T::bytes);
        self.0.insert(TypeId::of::<T>(), Kept { value, bytes });
    }

    /// How much memory they take, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.values().map(|kept| (kept.bytes)(&*kept.value)).sum()
    }
}
