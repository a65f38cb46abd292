//! From texts to the code that has them.

use std::rc::Rc;

use crate::binary::modules::Mapping;
use crate::binary::references::{Reference, References};
use crate::binary::store::Binary;
use crate::binary::window::Window;
use crate::bytes::base_name;
use crate::culprit::{is_of_application, is_of_library, language_of};
use crate::guarded::guarded;
use crate::languages::go::is_built_by_go;
use crate::process::ProcessKey;
use crate::resolver::Resolver;
use crate::resolver::naming::name_code;
use crate::resolver::programs::{Program, Programs};
use crate::sources::{SourceLanguage, uses_in_sources};
use crate::stack::{Frame, Language};
use crate::texts::{TextMatch, TextUse, TextUser, WantedTexts};
use crate::time::Timestamp;

/// Most bytes of a text that are looked at.
const MAX_TEXT: usize = 8 << 10;
/// How much of a text is looked at first.
const START: usize = 96;
/// Most uses of texts in one program that are told.
const MAX_USES: usize = 1024;
/// Most libraries of a program that are searched besides its executable.
const MAX_LIBRARIES: usize = 16;
/// How far from the instruction that takes a text's address the one is that takes its length.
const NEARBY: u64 = 64;

impl Resolver {
    /// The code of a process's program that has these texts. The first time for a program takes up
    /// to some hundred milliseconds.
    pub fn uses_of_texts(
        &mut self,
        process: ProcessKey,
        wanted: &dyn WantedTexts,
        now: Timestamp,
    ) -> Vec<TextUse> {
        if self.first_sight(process, now).is_err() {
            return Vec::new();
        }
        let Some(program) = self.processes.get_mut(&process).and_then(Programs::latest_mut) else {
            return Vec::new();
        };
        let executable = program.modules.executable_path.as_deref();
        let mut uses = Vec::new();
        let language = language_of(std::iter::empty(), executable);
        if let Some(language) = SourceLanguage::of(language) {
            uses = guarded(|| uses_in_sources(process.pid, language, wanted)).unwrap_or_default();
        } else if language == Language::Native {
            let searched = searched_binaries(program);
            for binary in searched {
                self.binaries.touch(&binary);
                uses_in_code(&binary, program, wanted, &self.driver_frames, now, &mut uses);
            }
        }
        self.binaries.trim();
        uses
    }
}

/// The executable, and the libraries that may be the application's own.
fn searched_binaries(program: &Program) -> Vec<Rc<Binary>> {
    let executable = program.modules.executable().cloned();
    let is_own = |mapping: &&Mapping| {
        mapping.path.as_deref().is_some_and(|path| path.starts_with('/') && !is_of_library(path))
    };
    let mut found: Vec<_> = executable.into_iter().collect();
    for mapping in program.modules.iter().filter(is_own) {
        let Some(binary) = &mapping.binary else { continue };
        if found.len() <= MAX_LIBRARIES && !found.iter().any(|known| Rc::ptr_eq(known, binary)) {
            found.push(Rc::clone(binary));
        }
    }
    found
}

fn uses_in_code(
    binary: &Rc<Binary>,
    program: &mut Program,
    wanted: &dyn WantedTexts,
    drivers: &[crate::culprit::driver_frames::DriverFrames],
    now: Timestamp,
    uses: &mut Vec<TextUse>,
) {
    let (Some(references), Some(elf)) = (binary.facts::<References>(), binary.elf()) else {
        return;
    };
    let language = if is_built_by_go(binary) { Language::Go } else { Language::Native };
    let mut texts = Window::new(&elf, &binary.file);
    let mut code = Window::new(&elf, &binary.file);
    let mut known: (u64, Vec<TextMatch>, usize) = (0, Vec::new(), 0);
    for reference in references.iter() {
        if known.0 != reference.text {
            known = (reference.text, Vec::new(), 0);
            let start = texts.at(reference.text, START).unwrap_or_default();
            if !wanted.may_begin(printable(start).0) {
                continue;
            }
            let bytes = texts.at(reference.text, MAX_TEXT).unwrap_or_default();
            let (text, ends_at) = printable(bytes);
            known = (reference.text, wanted.beginning(text), ends_at);
        }
        let (_, matches, ends_at) = &known;
        for TextMatch { wanted, lengths } in matches {
            let is_whole = match reference.length {
                Some(length) if !lengths.contains(&(length as usize)) => continue,
                Some(_) => true,
                None if lengths.contains(ends_at) => true,
                None => {
                    let from = reference.code.saturating_sub(NEARBY);
                    let nearby = code.at(from, 2 * NEARBY as usize).unwrap_or_default();
                    has_number(nearby, lengths)
                }
            };
            let Some((user, frame)) = user(&reference, binary, program, language, drivers, now)
            else {
                continue;
            };
            if uses.len() < MAX_USES {
                uses.push(TextUse { wanted: *wanted, is_whole, user, frame });
            }
        }
    }
}

/// The text at the beginning of `bytes`, up to what cannot be text, and its length where a NUL ends
/// it; `usize::MAX`: it goes on.
fn printable(bytes: &[u8]) -> (&str, usize) {
    let is_text = |byte: &u8| *byte >= b' ' || matches!(byte, b'\t' | b'\n' | b'\r');
    let length = bytes.iter().take_while(|byte| is_text(byte)).count();
    let ends_at = if bytes.get(length) == Some(&0) { length } else { usize::MAX };
    let bytes = bytes.get(..length).unwrap_or_default();
    match std::str::from_utf8(bytes) {
        Ok(text) => (text, ends_at),
        // Another text follows that is none.
        Err(error) => {
            let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
            (std::str::from_utf8(valid).unwrap_or_default(), usize::MAX)
        }
    }
}

/// Whether code takes one of these numbers with 32 bits.
fn has_number(code: &[u8], numbers: &std::ops::RangeInclusive<usize>) -> bool {
    let is_one = |window: &[u8]| {
        let number: Option<[u8; 4]> = window.try_into().ok();
        number.is_some_and(|n| numbers.contains(&(u32::from_le_bytes(n) as usize)))
    };
    code.windows(4).any(is_one)
}

/// Whose code refers to a text, and its place.
fn user(
    reference: &Reference,
    binary: &Rc<Binary>,
    program: &mut Program,
    language: Language,
    drivers: &[crate::culprit::driver_frames::DriverFrames],
    now: Timestamp,
) -> Option<(TextUser, Frame)> {
    let elf = binary.elf()?;
    let offset = elf.offset_of_address(reference.code)?;
    let mapping = program.modules.iter().find(|mapping| {
        let is_its = mapping.binary.as_ref().is_some_and(|mapped| Rc::ptr_eq(mapped, binary));
        let length = mapping.end - mapping.start;
        is_its && offset.checked_sub(mapping.offset).is_some_and(|within| within < length)
    })?;
    let address = mapping.start.checked_add(offset - mapping.offset)?;
    let module = mapping.path.as_deref().map(str::to_owned);
    let symbols = {
        let (runtimes, process) = program.parts(now);
        name_code(address, runtimes, &process).symbols
    };
    let mut frames: Vec<_> = symbols
        .iter()
        .filter(|symbol| !symbol.is_generated())
        .map(|symbol| Frame {
            function: symbol.function.clone(),
            module: module.clone(),
            file: symbol.file.clone(),
            line: symbol.line,
            address: reference.code,
        })
        .collect();
    program.runtimes.tidy(&mut frames);
    if frames.iter().any(|frame| frame.function.as_deref().is_some_and(is_initialiser)) {
        return Some((TextUser::Initialiser, frames.swap_remove(0)));
    }
    // The innermost one that is the application's: the compiler may count the instruction to what
    // it has inlined there.
    let own = frames.iter().position(|frame| is_of_application(frame, language, drivers));
    let unnamed = Frame { function: None, module, file: None, line: None, address: reference.code };
    Some(match own {
        Some(index) => (TextUser::Application, frames.swap_remove(index)),
        None => (TextUser::Library, frames.into_iter().next().unwrap_or(unnamed)),
    })
}

/// Whether a function is what compilers make of initialised variables.
fn is_initialiser(function: &str) -> bool {
    let last = base_name(function);
    let is_go = last.split_once('.').is_some_and(|(_, name)| {
        name == "init" || name.strip_prefix("init.").is_some_and(|n| n.parse::<u32>().is_ok())
    });
    const CPLUSPLUS: [&str; 3] =
        ["_GLOBAL__", "__static_initialization_and_destruction_", "__cxx_global_var_init"];
    is_go || CPLUSPLUS.iter().any(|beginning| function.starts_with(beginning))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initialisers_have_names_of_their_own() {
        for name in ["main.init", "example.com/a.b/store.init.0", "_GLOBAL__sub_I_main"] {
            assert!(is_initialiser(name), "{name}");
        }
        for name in ["main.initStore", "main.init.0.func1", "main.(*store).init", "init"] {
            assert!(!is_initialiser(name), "{name}");
        }
    }

    #[test]
    fn a_text_ends_where_a_nul_does() {
        assert_eq!(printable(b"SELECT 1\0abc"), ("SELECT 1", 8));
        assert_eq!(printable(b"SELECT 1"), ("SELECT 1", usize::MAX));
        assert_eq!(printable(b"SELECT 1\xff\0"), ("SELECT 1", usize::MAX));
        assert_eq!(printable(b"SELECT\n1\x01"), ("SELECT\n1", usize::MAX));
    }

    #[test]
    fn lengths_stand_near_the_code() {
        assert!(has_number(&[0xbb, 0x29, 0, 0, 0, 0x90], &(41..=43)));
        assert!(!has_number(&[0xbb, 0x2c, 0, 0, 0, 0x90], &(41..=43)));
        assert!(!has_number(&[0x29, 0], &(41..=43)));
    }
}
