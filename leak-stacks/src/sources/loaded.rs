//! Which source files a program loads.
//!
//! Programs that share a directory have texts in common. So where the file is known that a program
//! begins with, only those count that can be reached from it by imports. Where files are loaded in
//! ways that their text does not show, all count.

use std::collections::HashSet;

use crate::sources::files::SourceFile;
use crate::sources::language::SourceLanguage;

/// Keeps the files that a program with this command line loads.
pub(crate) fn keep_loaded(
    files: &mut Vec<SourceFile>,
    arguments: &[String],
    language: SourceLanguage,
) {
    let begins_with = |argument: &String| {
        let name = argument.split(':').next().unwrap_or_default();
        let wanted = match language {
            // `-m package.module`, `package.module:application`
            SourceLanguage::Python if !name.ends_with(".py") => module_path(name),
            _ => vec![name.trim_start_matches("./").to_owned()],
        };
        files.iter().position(|file| wanted.iter().any(|wanted| is_path(&file.path, wanted)))
    };
    let named = arguments.iter().skip(1).filter(|argument| !argument.starts_with('-'));
    let mut waiting: Vec<usize> = named.filter_map(begins_with).collect();
    if waiting.is_empty() {
        return;
    }
    let mut reached = HashSet::new();
    while let Some(index) = waiting.pop() {
        let Some(file) = files.get(index).filter(|_| reached.insert(index)) else { continue };
        if loads_unseen(&file.text, language) {
            return;
        }
        let imports = imports(file, language);
        let loaded = |other: &&SourceFile| imports.iter().any(|path| is_path(&other.path, path));
        let found = files.iter().enumerate().filter(|(_, other)| loaded(other));
        waiting.extend(found.map(|(index, _)| index));
    }
    let mut index = 0;
    files.retain(|_| {
        index += 1;
        reached.contains(&(index - 1))
    });
}

/// Whether a path ends with this one, as a whole.
fn is_path(path: &str, end: &str) -> bool {
    !end.is_empty()
        && path.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
}

/// Whether a file loads others in ways that cannot be followed.
fn loads_unseen(text: &str, language: SourceLanguage) -> bool {
    let marks: &[&str] = match language {
        SourceLanguage::Python => &["importlib", "__import__(", "INSTALLED_APPS", "django."],
        SourceLanguage::Ruby => &["Zeitwerk", "Rails", "autoload", "Dir[", "Dir.glob"],
        SourceLanguage::JavaScript => &["readdir", "import.meta.glob", "require(path", "glob("],
        SourceLanguage::Php => &["autoload", "glob("],
    };
    marks.iter().any(|mark| text.contains(mark))
}

/// The ends of the paths of the files that a file loads; more rather than less.
fn imports(file: &SourceFile, language: SourceLanguage) -> Vec<String> {
    match language {
        SourceLanguage::Python => file.text.lines().flat_map(imported_by_python).collect(),
        SourceLanguage::Ruby => named_files(&file.text, &["require", "load"], &["", ".rb"]),
        SourceLanguage::Php => named_files(&file.text, &["require", "include"], &[""]),
        SourceLanguage::JavaScript => {
            let endings = ["", ".js", ".mjs", ".cjs", ".ts", "/index.js", "/index.ts"];
            named_files(&file.text, &["require", "import", "from", "export"], &endings)
        }
    }
}

/// The files that a line names whose module or names it imports.
fn imported_by_python(line: &str) -> Vec<String> {
    let line = line.trim_start();
    if let Some(names) = line.strip_prefix("import ") {
        let names = names.split(',').filter_map(|name| name.split_whitespace().next());
        return names.flat_map(module_path).collect();
    }
    let Some((module, names)) =
        line.strip_prefix("from ").and_then(|rest| rest.split_once(" import"))
    else {
        return Vec::new();
    };
    let module = module.trim().trim_start_matches('.');
    let mut paths = module_path(module);
    let is_separator = |c: char| !(c.is_alphanumeric() || c == '_');
    for name in names.split(is_separator).filter(|name| !name.is_empty()) {
        paths.extend(match module {
            "" => module_path(name),
            module => module_path(&format!("{module}.{name}")),
        });
    }
    paths
}

/// The files that may be a module of Python's.
fn module_path(name: &str) -> Vec<String> {
    let path = name.replace('.', "/");
    let is_name = !path.is_empty() && path.chars().all(|c| c.is_alphanumeric() || "_/".contains(c));
    if is_name { vec![format!("{path}.py"), format!("{path}/__init__.py")] } else { Vec::new() }
}

/// What stands in quotes on lines with one of these words, as the end of a path.
fn named_files(text: &str, words: &[&str], endings: &[&str]) -> Vec<String> {
    let lines = text.lines().filter(|line| words.iter().any(|word| line.contains(word)));
    let quoted = lines.flat_map(|line| line.split(['\'', '"', '`']).skip(1).step_by(2));
    let relative = quoted.map(|path| {
        let mut path = path;
        while let Some(rest) = path.strip_prefix("../").or_else(|| path.strip_prefix("./")) {
            path = rest;
        }
        path.trim_start_matches('/')
    });
    let relative = relative.filter(|path| !path.is_empty() && *path != "." && *path != "..");
    relative.flat_map(|path| endings.iter().map(move |ending| format!("{path}{ending}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(arguments: &[&str], files: &[(&str, &str)], language: SourceLanguage) -> Vec<String> {
        let arguments: Vec<_> = arguments.iter().map(|text| (*text).to_owned()).collect();
        let mut files: Vec<_> = files
            .iter()
            .map(|(path, text)| SourceFile { path: (*path).into(), text: (*text).into() })
            .collect();
        keep_loaded(&mut files, &arguments, language);
        files.into_iter().map(|file| file.path).collect()
    }

    #[test]
    fn what_is_imported_is_loaded() {
        let files = [
            ("/srv/shop.py", "import os, store.orders\nfrom .util import (a, b)\n"),
            ("/srv/store/orders.py", "from store import stock as s"),
            ("/srv/store/stock.py", ""),
            ("/srv/util.py", ""),
            ("/srv/other.py", "import shop"),
        ];
        let python = SourceLanguage::Python;
        let expected =
            ["/srv/shop.py", "/srv/store/orders.py", "/srv/store/stock.py", "/srv/util.py"];
        assert_eq!(kept(&["python3", "shop.py"], &files, python), expected);
        assert_eq!(kept(&["gunicorn", "shop:app"], &files, python), expected);
        assert_eq!(
            kept(&["python3", "-m", "store.stock"], &files, python),
            ["/srv/store/stock.py"]
        );
        assert_eq!(kept(&["uwsgi", "--ini", "x.ini"], &files, python).len(), 5);
        let unseen = [("/srv/a.py", "import importlib"), ("/srv/b.py", "")];
        assert_eq!(kept(&["python3", "a.py"], &unseen, python).len(), 2);
    }

    #[test]
    fn other_languages_name_files() {
        let files =
            [("/a/x.js", "const y = require('../lib/y')"), ("/a/lib/y.js", ""), ("/a/z.js", "")];
        let found = kept(&["node", "./x.js"], &files, SourceLanguage::JavaScript);
        assert_eq!(found, ["/a/x.js", "/a/lib/y.js"]);
        let files = [("/a/x.rb", "require_relative \"y\""), ("/a/y.rb", ""), ("/a/z.rb", "")];
        assert_eq!(kept(&["ruby", "x.rb"], &files, SourceLanguage::Ruby), ["/a/x.rb", "/a/y.rb"]);
        let files =
            [("/a/x.php", "include __DIR__ . '/y.php';"), ("/a/y.php", ""), ("/a/z.php", "")];
        assert_eq!(
            kept(&["php", "/a/x.php"], &files, SourceLanguage::Php),
            ["/a/x.php", "/a/y.php"]
        );
    }
}
