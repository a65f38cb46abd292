//! The languages whose sources can be read.

use crate::sources::braces::{self, Kind};
use crate::sources::literal::Literal;
use crate::sources::{python, ruby};
use crate::stack::Language;

/// A language whose sources can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SourceLanguage {
    Python,
    Ruby,
    JavaScript,
    Php,
}

impl SourceLanguage {
    /// All of them.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) const ALL: [Self; 4] = [Self::Python, Self::Ruby, Self::JavaScript, Self::Php];

    /// That of programs that run on this runtime.
    pub(crate) fn of(language: Language) -> Option<Self> {
        match language {
            Language::Python => Some(Self::Python),
            Language::Ruby => Some(Self::Ruby),
            Language::Node | Language::Deno | Language::Bun => Some(Self::JavaScript),
            Language::Php => Some(Self::Php),
            Language::Go
            | Language::Native
            | Language::Java
            | Language::Perl
            | Language::Dotnet
            | Language::Beam => None,
        }
    }

    /// How the names of source files end.
    pub(super) fn endings(self) -> &'static [&'static str] {
        match self {
            Self::Python => &[".py"],
            Self::Ruby => &[".rb", ".ru"],
            Self::JavaScript => &[".js", ".mjs", ".cjs", ".ts", ".mts", ".cts", ".tsx", ".jsx"],
            Self::Php => &[".php"],
        }
    }

    /// The string literals of a source file.
    pub(super) fn literals(self, source: &str) -> Vec<Literal> {
        match self {
            Self::Python => python::literals(source),
            Self::Ruby => ruby::literals(source),
            Self::JavaScript => braces::literals(source, Kind::JavaScript),
            Self::Php => braces::literals(source, Kind::Php),
        }
    }

    /// The function that a line of a source file is in.
    pub(super) fn function_of_line(self, source: &str, number: u32) -> Option<String> {
        match self {
            Self::Python => python::function_of_line(source, number),
            Self::Ruby => ruby::function_of_line(source, number),
            Self::JavaScript => braces::function_of_line(source, Kind::JavaScript, number),
            Self::Php => braces::function_of_line(source, Kind::Php, number),
        }
    }
}
