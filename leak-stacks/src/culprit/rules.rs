//! The rules of `rules.txt`, and the globs that they are made of.

use std::sync::LazyLock;

use crate::stack::Language;

/// The rules, one a line; the file explains itself.
const RULES: &str = include_str!("rules.txt");

pub(crate) static PARSED: LazyLock<Rules> = LazyLock::new(|| Rules::parse(RULES));

pub(crate) type Globs = Vec<&'static str>;
/// Globs for the names of functions that are written in a language, or run on it.
pub(crate) type Names = Vec<(Language, &'static str)>;

#[derive(Debug, Default)]
pub(crate) struct Rules {
    pub(crate) languages: Names,
    pub(crate) modules: Globs,
    pub(crate) functions: Names,
    pub(crate) packages: Globs,
    pub(crate) files: Globs,
    pub(crate) dependencies: Globs,
    pub(crate) loop_functions: Names,
    pub(crate) loop_files: Globs,
    pub(crate) interpreters: Globs,
    /// Lines that are no rules; a test keeps this at none.
    pub(crate) malformed: usize,
}

impl Rules {
    fn parse(text: &'static str) -> Self {
        let mut rules = Self::default();
        let mut section = None;
        for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
            if rules.take(line, &mut section).is_none() {
                rules.malformed += 1;
            }
        }
        rules
    }

    fn take(&mut self, line: &'static str, section: &mut Option<Language>) -> Option<()> {
        let (kind, rest) = line.split_once(' ')?;
        let rest = rest.trim();
        match kind {
            "for" => *section = Some(language(rest)?),
            "language" => {
                let (name, glob) = rest.split_once(' ')?;
                self.languages.push((language(name)?, glob.trim()));
            }
            "function" => self.functions.push(((*section)?, rest)),
            "loop-function" => self.loop_functions.push(((*section)?, rest)),
            "module" => self.modules.push(rest),
            "package" => self.packages.push(rest),
            "file" => self.files.push(rest),
            "dependency" => self.dependencies.push(rest),
            "loop-file" => self.loop_files.push(rest),
            "interpreter" => self.interpreters.push(rest),
            _ => return None,
        }
        Some(())
    }
}

fn language(name: &str) -> Option<Language> {
    serde_json::from_value(name.into()).ok()
}

/// Whether one of the globs matches all of `text`.
pub(crate) fn any(globs: &Globs, text: &str) -> bool {
    globs.iter().any(|glob| matches(glob, text))
}

/// Whether `text` as a whole matches `glob`, where `*` stands for any characters and `?` for one
/// digit.
pub(crate) fn matches(glob: &str, text: &str) -> bool {
    let (glob, text) = (glob.as_bytes(), text.as_bytes());
    // Where to resume when a literal fails: after the latest star, one character later.
    let (mut g, mut t, mut resume) = (0, 0, None);
    while let Some(&character) = text.get(t) {
        match glob.get(g) {
            Some(b'*') => {
                g += 1;
                resume = Some((g, t));
                continue;
            }
            Some(b'?') if character.is_ascii_digit() => {}
            Some(&literal) if literal == character => {}
            _ => match resume {
                Some((after_star, from)) => {
                    resume = Some((after_star, from + 1));
                    (g, t) = (after_star, from + 1);
                    continue;
                }
                None => return false,
            },
        }
        (g, t) = (g + 1, t + 1);
    }
    glob.get(g..).is_some_and(|rest| rest.iter().all(|&c| c == b'*'))
}
