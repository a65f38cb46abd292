//! The rules: which code is not the application's. There is one file for each ecosystem.
//!
//! Each line is a rule:
//!
//! - `language NAME GLOB`: a module whose base name matches gives the stack this language.
//! - `module GLOB`: code of a module whose base name matches is a runtime's or a driver's.
//! - `for LANGUAGE`: the function rules that follow are for frames of this language. Native frames
//!   are in a module; frames that a runtime has compiled are in none.
//! - `function GLOB`: functions whose name matches are a runtime's or a driver's.
//! - `package GLOB`: so is code of a source file or module whose path below the innermost
//!   `site-packages` or `dist-packages` directory matches.
//! - `file GLOB`: so is code of a source file or module whose whole path matches, and which is
//!   below no such directory.
//! - `dependency GLOB`: code of a source file or module whose path matches belongs to a library
//!   that the application has installed. It is the culprit only if nothing else is.
//! - `loop-function GLOB`: a function whose name matches runs whatever is due. Frames further out
//!   have only started it, and are never the culprit.
//! - `loop-file GLOB`: the same by source file.
//! - `acquire GLOB [in GLOB]`, for a language: a function whose name matches, in a source file that
//!   matches, hands out a pool's connections.
//! - `waits GLOB [in GLOB]`, for a language: such a function only waits.
//! - `interpreter GLOB`: a function whose name matches runs code that has no frame of its own.
//!   Whether it is on a stack does not tell two stacks apart.
//!
//! `GLOB` is a [`Glob`](crate::culprit::glob::Glob). Names of Go functions begin with the whole
//! path of their package; those of vendored packages are matched without the path up to `vendor/`.
//! Names of Rust methods are also matched from their type on: `<&mut mio::Poll as ...>` begins with
//! `mio::`.

use std::sync::LazyLock;

use globset::{GlobSet, GlobSetBuilder};

use crate::culprit::glob::{self, Glob};
use crate::stack::Language;

/// The rules of each ecosystem.
const FILES: [&str; 13] = [
    include_str!("rules/beam.txt"),
    include_str!("rules/bun.txt"),
    include_str!("rules/deno.txt"),
    include_str!("rules/dotnet.txt"),
    include_str!("rules/go.txt"),
    include_str!("rules/java.txt"),
    include_str!("rules/native.txt"),
    include_str!("rules/node.txt"),
    include_str!("rules/perl.txt"),
    include_str!("rules/php.txt"),
    include_str!("rules/python.txt"),
    include_str!("rules/ruby.txt"),
    include_str!("rules/rust.txt"),
];

pub(crate) static RULES: LazyLock<Rules> = LazyLock::new(|| Rules::parse(&FILES));

/// All rules, each kind in one set.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    pub(crate) languages: ByLanguage,
    pub(crate) modules: GlobSet,
    pub(crate) functions: ByLanguage,
    pub(crate) packages: GlobSet,
    pub(crate) files: GlobSet,
    pub(crate) dependencies: GlobSet,
    pub(crate) loop_functions: ByLanguage,
    pub(crate) loop_files: GlobSet,
    pub(crate) interpreters: GlobSet,
    pub(crate) acquires: Vec<Placed>,
    pub(crate) waits: Vec<Placed>,
    /// Lines that are no rules; a test keeps this at none.
    pub(crate) malformed: usize,
}

/// A function of a language, in a source file where that matters.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub(crate) language: Language,
    pub(crate) function: Glob,
    pub(crate) file: Option<Glob>,
}

impl Placed {
    fn parse(language: Language, rule: &str) -> Option<Self> {
        let (function, file) = match rule.split_once(" in ") {
            Some((function, file)) => (function, Some(file.trim().parse().ok()?)),
            None => (rule, None),
        };
        Some(Self { language, function: function.trim().parse().ok()?, file })
    }
}

/// A set for each language that has one.
#[derive(Debug, Default)]
pub(crate) struct ByLanguage(Vec<(Language, GlobSet)>);

impl ByLanguage {
    /// The sets for these languages.
    pub(crate) fn of(
        &self,
        is_wanted: impl Fn(Language) -> bool,
    ) -> impl Iterator<Item = &GlobSet> {
        self.0.iter().filter(move |(language, _)| is_wanted(*language)).map(|(_, set)| set)
    }

    /// The language in whose set `text` is.
    pub(crate) fn language_of(&self, text: &str) -> Option<Language> {
        self.0.iter().find(|(_, set)| set.is_match(text)).map(|(language, _)| *language)
    }
}

/// Rules that are being read.
#[derive(Default)]
struct Reader {
    /// By kind and, where that matters, by language.
    sets: Vec<((&'static str, Option<Language>), GlobSetBuilder)>,
    acquires: Vec<Placed>,
    waits: Vec<Placed>,
    malformed: usize,
}

impl Rules {
    fn parse(files: &[&'static str]) -> Self {
        let mut reader = Reader::default();
        for file in files {
            let mut section = None;
            for line in file.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'))
            {
                if reader.take(line, &mut section).is_none() {
                    reader.malformed += 1;
                }
            }
        }
        reader.finish()
    }
}

impl Reader {
    fn take(&mut self, line: &'static str, section: &mut Option<Language>) -> Option<()> {
        let (kind, rest) = line.split_once(' ')?;
        let rest = rest.trim();
        match kind {
            "for" => *section = Some(language(rest)?),
            "language" => {
                let (name, pattern) = rest.split_once(' ')?;
                self.add((kind, Some(language(name)?)), pattern.trim())?;
            }
            "acquire" => self.acquires.push(Placed::parse((*section)?, rest)?),
            "waits" => self.waits.push(Placed::parse((*section)?, rest)?),
            "function" | "loop-function" => self.add((kind, Some((*section)?)), rest)?,
            "module" | "package" | "file" | "dependency" | "loop-file" | "interpreter" => {
                self.add((kind, None), rest)?;
            }
            _ => return None,
        }
        Some(())
    }

    fn add(&mut self, set: (&'static str, Option<Language>), pattern: &str) -> Option<()> {
        let pattern = glob::parse(pattern).ok()?;
        match self.sets.iter_mut().find(|(known, _)| *known == set) {
            Some((_, builder)) => {
                builder.add(pattern);
            }
            None => {
                let mut builder = GlobSetBuilder::new();
                builder.add(pattern);
                self.sets.push((set, builder));
            }
        }
        Some(())
    }

    fn finish(self) -> Rules {
        let Self { sets, acquires, waits, malformed } = self;
        let mut rules = Rules { acquires, waits, malformed, ..Rules::default() };
        for ((kind, language), builder) in sets {
            let Ok(set) = builder.build() else {
                rules.malformed += 1;
                continue;
            };
            match (kind, language) {
                ("language", Some(language)) => rules.languages.0.push((language, set)),
                ("function", Some(language)) => rules.functions.0.push((language, set)),
                ("loop-function", Some(language)) => rules.loop_functions.0.push((language, set)),
                ("module", _) => rules.modules = set,
                ("package", _) => rules.packages = set,
                ("file", _) => rules.files = set,
                ("dependency", _) => rules.dependencies = set,
                ("loop-file", _) => rules.loop_files = set,
                ("interpreter", _) => rules.interpreters = set,
                _ => rules.malformed += 1,
            }
        }
        rules
    }
}

fn language(name: &str) -> Option<Language> {
    serde_json::from_value(name.into()).ok()
}
