//! Picks the culprit of a stack, the innermost frame of the application, and tells the language.

pub(crate) mod acquire;
pub(crate) mod driver_frames;
pub(crate) mod glob;
mod rules;

use self::rules::{ByLanguage, RULES};
use crate::bytes::base_name;
use crate::culprit::driver_frames::DriverFrames;
use crate::stack::{Frame, Language};

/// Directories into which Python packages are installed.
const PACKAGES: [&str; 2] = ["/site-packages/", "/dist-packages/"];

/// How good a culprit a frame is, best last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Of a library that the application has installed, or made up by one at run time (`<string>`).
    Dependency,
    Application,
}

/// Indices of the frames of a stack that belong to the application, innermost first: the first one
/// is the culprit, the others are its callers. Empty when no frame does, or none that does has a
/// name. Frames further out than an event loop have only started it.
pub(crate) fn application(
    frames: &[Frame],
    language: Language,
    drivers: &[DriverFrames],
) -> Vec<usize> {
    let frames = frames.iter().take_while(|frame| !is_loop(frame, language)).enumerate();
    let ranked: Vec<_> = frames
        .filter_map(|(index, frame)| Some((rank(frame, language, drivers)?, index)))
        .collect();
    let best = ranked.iter().map(|&(rank, _)| rank).max();
    ranked.into_iter().filter(|&(rank, _)| Some(rank) == best).map(|(_, index)| index).collect()
}

/// Whether a call belongs to the application, or to a library that it has installed.
#[must_use]
pub fn is_application(frame: &Frame, language: Language) -> bool {
    rank(frame, language, &[]).is_some()
}

/// `None`: the frame is a runtime's, a driver's or a framework's.
fn rank(frame: &Frame, language: Language, drivers: &[DriverFrames]) -> Option<Rank> {
    let function = frame.function.as_deref()?;
    let own = without_vendor(function);
    // An interpreter's call is in no module; its source file may be named like one.
    let module = frame.module.as_deref().filter(|_| frame.module != frame.file).map(base_name);
    let paths = || [&frame.file, &frame.module].into_iter().flatten();
    let is_library = has_name_in(&RULES.functions, frame, language)
        || module.is_some_and(|module| RULES.modules.is_match(module))
        || paths().any(|path| is_library(path))
        || drivers.iter().any(|pattern| {
            [function, own].into_iter().chain(module).any(|name| pattern.matches(name))
                || paths().any(|path| pattern.matches(path))
        });
    if is_library {
        return None;
    }
    let is_made_up = frame.file.as_deref().is_some_and(|file| file.starts_with('<'));
    let is_dependency = paths().any(|path| RULES.dependencies.is_match(path));
    Some(if is_made_up || is_dependency { Rank::Dependency } else { Rank::Application })
}

/// Whether a frame's code is the application's own.
pub(crate) fn is_of_application(
    frame: &Frame,
    language: Language,
    drivers: &[DriverFrames],
) -> bool {
    rank(frame, language, drivers) == Some(Rank::Application)
}

/// Whether a module is a runtime's, a driver's or another library's, by its path.
pub(crate) fn is_of_library(path: &str) -> bool {
    RULES.modules.is_match(base_name(path)) || is_source_of_library(path)
}

/// Whether a source file is a driver's or another library's, by its path.
pub(crate) fn is_source_of_library(path: &str) -> bool {
    is_library(path) || RULES.dependencies.is_match(path)
}

fn is_loop(frame: &Frame, language: Language) -> bool {
    has_name_in(&RULES.loop_functions, frame, language)
        || frame.file.as_deref().is_some_and(|file| RULES.loop_files.is_match(file))
}

/// Whether one of the globs for a frame's language matches its function.
///
/// The same name is a driver's in one language and an application's in another. In a stack of a
/// runtime's, frames in a module are native, those in none compiled at run time, and those in a
/// source file an interpreter's calls, which only their file tells.
fn has_name_in(names: &ByLanguage, frame: &Frame, language: Language) -> bool {
    let Some(function) = frame.function.as_deref() else { return false };
    let is_native = frame.module.is_some();
    if is_native && frame.module == frame.file {
        return false;
    }
    let own = without_vendor(function);
    let placed = in_crate(frame);
    let applies = |of: Language| match of {
        Language::Native => is_native,
        _ => of == language && (!is_native || of == Language::Go),
    };
    names.of(applies).any(|set| {
        set.is_match(own)
            || set.is_match(subject(own))
            || placed.as_deref().is_some_and(|placed| set.is_match(placed))
    })
}

/// The name of a function of Rust's with the crate and the modules that its file lies in, when it
/// has none itself: inlined ones do not where debug information is of lines alone.
fn in_crate(frame: &Frame) -> Option<String> {
    const CRATES: [(&str, usize); 3] =
        [("/rustc/", 2), ("/registry/src/", 1), ("/git/checkouts/", 2)];
    let function = frame.function.as_deref()?;
    if function.split('<').next()?.contains("::") {
        return None;
    }
    let file = frame.file.as_deref()?;
    let (below, skipped) =
        CRATES.iter().find_map(|(root, skipped)| Some((file.split_once(root)?.1, *skipped)))?;
    let mut parts = below.trim_end_matches(".rs").split('/').skip(skipped);
    let package = parts.next()?;
    let is_version = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    let name = match package.rsplit_once('-') {
        Some((name, version)) if is_version(version) => name,
        _ => package,
    };
    let mut path = name.replace('-', "_");
    for part in parts.filter(|part| !matches!(*part, "src" | "lib" | "mod")).chain([function]) {
        path.push_str("::");
        path.push_str(part);
    }
    Some(path)
}

/// Whether this is code that runs other code which has no frame of its own: the stack does not show
/// what is run, and an optimizing compiler may take the frame away at any time.
pub(crate) fn is_interpreter(function: &str) -> bool {
    RULES.interpreters.is_match(function)
}

/// Whether a source file or module belongs to a library.
fn is_library(path: &str) -> bool {
    let below = |directory: &&str| path.rfind(*directory).map(|at| at + directory.len());
    match PACKAGES.iter().filter_map(below).max().and_then(|at| path.get(at..)) {
        Some(package) => RULES.packages.is_match(package),
        None => RULES.files.is_match(path),
    }
}

/// Language of a stack by the modules it runs through, then by the process's executable: a
/// truncated stack does not reach the interpreter.
pub(crate) fn language_of<'a>(
    frames: impl Iterator<Item = &'a str>,
    executable: Option<&'a str>,
) -> Language {
    frames
        .chain(executable)
        .map(base_name)
        .find_map(|module| RULES.languages.language_of(module))
        .unwrap_or(Language::Native)
}

/// A Go function's name without the path that vendoring puts in front of its package.
fn without_vendor(function: &str) -> &str {
    match function.rsplit_once("/vendor/") {
        Some((_, vendored)) => vendored,
        None => function.strip_prefix("vendor/").unwrap_or(function),
    }
}

/// The type that a Rust method is of: `<&mut sqlx::Pool as Future>::poll` is one of `sqlx::Pool`.
fn subject(function: &str) -> &str {
    let mut rest = function;
    while let Some(shorter) =
        ["<", "&", "mut ", "*const ", "dyn ", "["].iter().find_map(|mark| rest.strip_prefix(mark))
    {
        rest = shorter;
    }
    rest
}

#[cfg(test)]
mod tests;
