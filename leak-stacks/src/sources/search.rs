//! Looks for texts in a program's sources.

use crate::culprit::is_source_of_library;
use crate::sources::files::{Program, SourceFile, program};
use crate::sources::language::SourceLanguage;
use crate::sources::literal::Literal;
use crate::sources::{constants, loaded};
use crate::stack::Frame;
use crate::texts::{TextUse, TextUser, WantedTexts};

/// Shorter texts may be a library's, too, and libraries are not searched.
const SHORTEST: usize = 16;
/// Most uses that are told.
const MAX_USES: usize = 1024;

/// The code in the sources of a process's program that has these texts.
pub(crate) fn uses_in_sources(
    pid: u32,
    language: SourceLanguage,
    wanted: &dyn WantedTexts,
) -> Vec<TextUse> {
    let Program { arguments, mut files } = program(pid, language.endings());
    files.retain(|file| !is_source_of_library(&file.path));
    loaded::keep_loaded(&mut files, &arguments, language);
    let mut uses = Vec::new();
    for file in &files {
        for literal in language.literals(&file.text) {
            if literal.text.len() < SHORTEST || !wanted.may_begin(&literal.text) {
                continue;
            }
            for found in wanted.beginning(&literal.text) {
                if !found.lengths.contains(&literal.text.len()) {
                    continue;
                }
                let places = places(file, &literal, &files, language);
                let left = MAX_USES - uses.len();
                uses.extend(places.into_iter().take(left).map(|frame| TextUse {
                    wanted: found.wanted,
                    is_whole: true,
                    user: TextUser::Application,
                    frame,
                }));
            }
        }
    }
    uses
}

/// Where a literal is used: where it stands or, when it has a name of its own, where that does.
fn places(
    file: &SourceFile,
    literal: &Literal,
    files: &[SourceFile],
    language: SourceLanguage,
) -> Vec<Frame> {
    let named = literal.name.as_deref().filter(|_| literal.function.is_none());
    let uses = named.map(|name| constants::uses(name, files, language)).unwrap_or_default();
    if uses.is_empty() {
        return vec![frame(&file.path, literal.function.as_deref(), literal.line)];
    }
    uses.iter().map(|one| frame(one.path, Some(&one.function), one.line)).collect()
}

fn frame(path: &str, function: Option<&str>, line: u32) -> Frame {
    Frame {
        function: function.map(str::to_owned),
        module: Some(path.to_owned()),
        file: Some(path.to_owned()),
        line: Some(line),
        address: 0,
    }
}
