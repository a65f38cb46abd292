//! Which files of a crate use which: for tests that check a crate's structure.
//!
//! [`Modules::read`] parses the product's code without its tests. A file uses another when it
//! imports or names something that is defined there, in a macro's tokens too. A re-export
//! (`pub use`) is no use: it leads on to the file that defines the name. So a parent that only
//! declares and re-exports its children uses none of them; one whose own code names a child's
//! types does. Methods that are called on a value name no file and do not count.

mod names;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, io};

use names::Names;

/// Why a crate cannot be checked.
#[derive(Debug)]
pub enum Error {
    /// A file cannot be read.
    Unreadable(PathBuf, io::Error),
    /// A file is not Rust.
    Unparsable(PathBuf, syn::Error),
}

/// The files of a crate, by the paths of their modules: `engine::table`, and `` for the root, which
/// is `lib.rs`, or `main.rs` where there is no library.
#[derive(Debug, Default)]
pub struct Modules {
    files: BTreeMap<String, Names>,
}

impl Modules {
    /// Reads a crate's `src`, except files of tests and the given other ones.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or parsed.
    pub fn read(src: &Path, except: &[&str]) -> Result<Self, Error> {
        let mut paths = Vec::new();
        collect(src, &mut paths)?;
        let root = if src.join("lib.rs").exists() { "lib" } else { "main" };
        let mut modules = Self::default();
        let mut tests = BTreeSet::new();
        for path in paths {
            let module = module_of(src, &path, root);
            if except.contains(&module.as_str()) {
                continue;
            }
            let text = fs::read_to_string(&path);
            let text = text.map_err(|error| Error::Unreadable(path.clone(), error))?;
            let parsed = syn::parse_file(&text);
            let parsed = parsed.map_err(|error| Error::Unparsable(path.clone(), error))?;
            let names = Names::of(&parsed, &module);
            tests.extend(names.test_modules.iter().cloned());
            modules.files.insert(module, names);
        }
        modules.files.retain(|module, _| !tests.iter().any(|test| is_within(module, test)));
        Ok(modules)
    }

    /// The modules.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// Which module uses which other ones of this crate.
    #[must_use]
    pub fn uses(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let used = |module: &String, names: &Names| {
            // Whoever imports a module uses what is then named through it.
            let is_module = |path: &&Vec<String>| self.files.contains_key(&path.join("::"));
            let imports = names.imports.values().filter(|path| !is_module(path));
            let found = names.paths.iter().chain(imports);
            let found = found.filter_map(|path| self.definer(path, 0));
            found.filter(|used| used != module).collect()
        };
        self.files.iter().map(|(module, names)| (module.as_str(), used(module, names))).collect()
    }

    /// Uses that lead from one room to another that it may not use, as `from -> to`. A room is a
    /// module of the root with all that is in it. The root itself may use all rooms.
    #[must_use]
    pub fn forbidden(&self, may_use: impl Fn(&str, &str) -> bool) -> Vec<String> {
        let is_forbidden = |from: &str, to: &str| {
            !from.is_empty() && room(from) != room(to) && !may_use(room(from), room(to))
        };
        let uses = self.uses().into_iter();
        uses.flat_map(|(from, used)| used.into_iter().map(move |to| (from, to)))
            .filter(|(from, to)| is_forbidden(from, to))
            .map(|(from, to)| format!("{from} -> {to}"))
            .collect()
    }

    /// The modules that name this other crate.
    #[must_use]
    pub fn users_of_crate(&self, name: &str) -> Vec<&str> {
        let uses = |(_, names): &(&String, &Names)| names.crates.contains(name);
        self.files.iter().filter(uses).map(|(module, _)| module.as_str()).collect()
    }

    /// Groups of modules that use each other in a circle.
    #[must_use]
    pub fn circles(&self) -> Vec<Vec<&str>> {
        let uses = self.uses();
        let reached: BTreeMap<&str, BTreeSet<&str>> =
            uses.keys().map(|&module| (module, reach(module, &uses))).collect();
        let mut circles: Vec<Vec<&str>> = Vec::new();
        for (module, others) in &reached {
            if !others.contains(module) || circles.iter().flatten().any(|known| known == module) {
                continue;
            }
            let circle = others.iter().filter(|other| reached[*other].contains(module));
            circles.push(circle.copied().collect());
        }
        circles
    }

    /// The module that defines what a path names, as far as this crate does.
    fn definer(&self, path: &[String], depth: usize) -> Option<&str> {
        const MAX_RE_EXPORTS: usize = 8;
        let longest = (0..=path.len()).rev().find_map(|length| {
            self.files.get_key_value(&path[..length].join("::")).map(|it| (it, length))
        });
        let ((module, names), length) = longest?;
        let exported = path.get(length).and_then(|name| names.re_exports.get(name));
        match exported {
            Some(target) if depth < MAX_RE_EXPORTS => {
                let whole: Vec<String> =
                    target.iter().chain(&path[length + 1..]).cloned().collect();
                self.definer(&whole, depth + 1)
            }
            _ => Some(module),
        }
    }
}

/// The room that a module is in: `engine` for `engine::table`.
#[must_use]
pub fn room(module: &str) -> &str {
    module.split("::").next().unwrap_or_default()
}

fn reach<'a>(from: &'a str, uses: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut open = vec![from];
    while let Some(module) = open.pop() {
        for &used in uses.get(module).into_iter().flatten() {
            if reached.insert(used) {
                open.push(used);
            }
        }
    }
    reached
}

fn is_within(module: &str, of: &str) -> bool {
    module.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn collect(directory: &Path, paths: &mut Vec<PathBuf>) -> Result<(), Error> {
    let unreadable = |error| Error::Unreadable(directory.to_owned(), error);
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.is_dir() {
            collect(&path, paths)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
    Ok(())
}

fn module_of(src: &Path, path: &Path, root: &str) -> String {
    let path = path.strip_prefix(src).unwrap_or(path).with_extension("");
    let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
    match parts.as_slice() {
        [only] if only == root => String::new(),
        parts => parts.join("::"),
    }
}

#[cfg(test)]
mod tests;
