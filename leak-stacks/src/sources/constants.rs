//! Where the name of a text is used.

use crate::sources::files::SourceFile;
use crate::sources::language::SourceLanguage;

/// Most uses of a name that are looked at.
const MAX_USES: usize = 64;

/// A use of a name in a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NameUse<'a> {
    pub(crate) path: &'a str,
    pub(crate) function: String,
    pub(crate) line: u32,
}

/// The uses of `name` in functions. None when it is used elsewhere, too, or too often: then nobody
/// knows what becomes of it.
pub(crate) fn uses<'a>(
    name: &str,
    files: &'a [SourceFile],
    language: SourceLanguage,
) -> Vec<NameUse<'a>> {
    let mut uses = Vec::new();
    for file in files {
        for (index, line) in file.text.lines().enumerate().filter(|(_, line)| has(line, name)) {
            let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
            let function = language.function_of_line(&file.text, number);
            if let Some(function) = function {
                uses.push(NameUse { path: &file.path, function, line: number });
            } else if !is_harmless(line, name) {
                return Vec::new();
            }
            if uses.len() > MAX_USES {
                return Vec::new();
            }
        }
    }
    uses
}

/// Whether a line has the name as a word.
fn has(line: &str, name: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(name).any(|(at, _)| {
        let before = line.get(..at).and_then(|before| before.chars().next_back());
        let after = line.get(at + name.len()..).and_then(|after| after.chars().next());
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

/// Whether a line outside of functions only makes the name known: by giving it its value, or by
/// importing or exporting it.
fn is_harmless(line: &str, name: &str) -> bool {
    let line = line.trim();
    const WORDS: [&str; 7] = ["import ", "from ", "export ", "module.exports", "#", "//", "*"];
    let gives = |rest: &str| rest.trim_start_matches('$').starts_with(name);
    WORDS.iter().any(|word| line.starts_with(word))
        || gives(line)
        || ["const ", "let ", "var ", "public const ", "private const "]
            .iter()
            .any(|word| line.strip_prefix(word).is_some_and(gives))
        // One of several names in an import or export.
        || line.trim_end_matches(',') == name
}
