//! A binary's unwind rules.

use std::fs::File;
use std::ops::Range;

use crate::binary::elf::{Elf, read_exact};
use crate::binary::facts::{Facts, Source};
use crate::binary::store::Binary;
use crate::processor::SIGNAL_RETURN;
use crate::unwind::cfi::{Bytes, Cfi, Outward, Places};
use crate::unwind::emulate::after_first_call;
use crate::unwind::registers::Registers;

/// Bytes in which the first function of a program makes its only call.
const START: u64 = 64;

/// A binary's unwind rules, in its own address numbering, so that all its processes share them.
#[derive(Debug)]
pub(crate) struct FrameRules {
    /// Both may be there, for different functions.
    sections: Vec<Cfi>,
    /// Where the first function of a program goes on after its call.
    start: Option<u64>,
}

impl Facts for FrameRules {
    /// Rules that the binary's own file lacks may be in its debug file.
    fn read(&Source { elf, file, debug }: &Source<'_>) -> Self {
        let data = |elf: &Elf, file: &File, name: &str| {
            let data = elf.data(file, elf.section(name)?).ok().filter(|d| !d.is_empty())?;
            Some(Bytes::from(data))
        };
        let address = |name: &str| elf.section(name).map_or(0, |section| section.address);
        let frames = data(elf, file, ".eh_frame").map(|frames| {
            let places = Places {
                frames: address(".eh_frame"),
                table: address(".eh_frame_hdr"),
                text: address(".text"),
                got: address(".got"),
            };
            Cfi::eh_frame(frames, data(elf, file, ".eh_frame_hdr"), places)
        });
        let more = data(elf, file, ".debug_frame")
            .or_else(|| debug.and_then(|(elf, file)| data(elf, file, ".debug_frame")))
            .map(Cfi::debug_frame);
        let start = || {
            let code = code_at(elf, file, elf.entry, START)?;
            after_first_call(elf.entry, &code)
        };
        Self { sections: frames.into_iter().chain(more).collect(), start: start() }
    }

    fn bytes(&self) -> u64 {
        self.sections.iter().map(Cfi::bytes).sum()
    }
}

impl FrameRules {
    /// Whether the binary has any.
    pub(crate) fn is_present(&self) -> bool {
        !self.sections.is_empty()
    }

    /// Whether there are rules for `address`.
    pub(crate) fn cover(&self, address: u64) -> bool {
        self.beginning_of(address).is_some()
    }

    /// Where the rules that cover `address` begin: those of a function, or of a part of one.
    pub(crate) fn beginning_of(&self, address: u64) -> Option<u64> {
        self.sections.iter().find_map(|section| section.beginning_of(address))
    }

    /// Whether rules begin at `address`.
    pub(crate) fn begin_at(&self, address: u64) -> bool {
        self.sections.iter().any(|section| section.beginning_of(address) == Some(address))
    }

    /// The addresses of the function that holds `address`.
    pub(crate) fn function_at(&self, address: u64) -> Option<Range<u64>> {
        self.sections.iter().find_map(|section| section.function_at(address))
    }

    /// Whether the program's first function goes on at `address` after its call.
    pub(crate) fn is_start(&self, address: u64) -> bool {
        self.start == Some(address)
    }

    /// One step outward from a frame by the rules; `None` when there are none for its address.
    pub(crate) fn step(
        &self,
        address: u64,
        registers: &mut Registers,
        memory: &impl Fn(u64) -> Option<u64>,
    ) -> Option<Outward> {
        self.sections.iter().find_map(|section| section.step(address, registers, memory))
    }
}

/// Whether `address` of a binary is in code that signal handlers return to.
pub(crate) fn is_signal_return(binary: &Binary, address: u64) -> bool {
    // A walk that came through it has read the rules.
    let Some(rules) = binary.known_facts::<FrameRules>() else { return false };
    let Some(elf) = binary.elf() else { return false };
    rules.sections.iter().any(|section| section.is_signal_return(address))
        || [Some(address), address.checked_add(1)]
            .into_iter()
            .flatten()
            .any(|at| holds_signal_return(&elf, &binary.file, at))
}

/// Whether the code at `address` is what signal handlers return to.
pub(crate) fn holds_signal_return(elf: &Elf, file: &File, address: u64) -> bool {
    let code = code_at(elf, file, address, SIGNAL_RETURN.len() as u64);
    code.is_some_and(|code| code == SIGNAL_RETURN)
}

/// The code from `address` to at most `length` bytes further.
pub(crate) fn code_at(elf: &Elf, file: &File, address: u64, length: u64) -> Option<Vec<u8>> {
    let (offset, available) = elf.code_at(address)?;
    let length = usize::try_from(available.min(length)).ok()?;
    read_exact(file, offset, length).ok()
}
