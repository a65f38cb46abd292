//! The plan of the crate: rooms on floors, imports that go down only, and no circle of files.

#![expect(clippy::unwrap_used, reason = "what fails here is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The floors from the ground up. A file may import from its own floor and from those below it.
const FLOORS: [&[&str]; 7] = [
    &["bytes", "guarded", "time"],
    &["process", "raw", "processor", "stack", "truncation", "counts"],
    &["binary", "culprit"],
    &["unwind"],
    &["languages"],
    &["resolver"],
    &["fuzzing"],
];

/// How a line begins that imports something.
const USES: [&str; 5] =
    ["\nuse ", "\n    use ", "\npub use ", "\npub(crate) use ", "\npub(super) use "];

/// The files of the crate, by their module paths, and what each imports; tests are left out.
type Graph = BTreeMap<String, BTreeSet<String>>;

fn rust_files(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// `binary::elf` for `binary/elf.rs`; `None` for the root and for tests.
fn module_of(path: &Path, root: &Path) -> Option<String> {
    let path = path.strip_prefix(root).unwrap().with_extension("");
    let parts: Vec<_> = path.iter().map(|part| part.to_str().unwrap()).collect();
    let is_test = parts.iter().any(|part| *part == "tests" || *part == "testing");
    (!is_test && parts != ["lib"]).then(|| parts.join("::"))
}

/// The paths that a `use` declaration names, with braces taken apart.
fn expanded(tree: &str) -> Vec<String> {
    let Some(open) = tree.find('{') else { return vec![tree.trim().to_owned()] };
    let (prefix, inner) = (&tree[..open], &tree[open + 1..tree.rfind('}').unwrap()]);
    let (mut depth, mut start, mut paths) = (0, 0, Vec::new());
    for (at, character) in inner.char_indices().chain([(inner.len(), ',')]) {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let part = inner[start..at].trim();
                if !part.is_empty() {
                    paths.extend(expanded(part).iter().map(|rest| format!("{prefix}{rest}")));
                }
                start = at + 1;
            }
            _ => {}
        }
    }
    paths
}

/// The module paths that a file imports, as the file writes them but beginning at the crate's root.
fn imports(text: &str, module: &str) -> Vec<String> {
    // What follows is for tests.
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let code: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| [line, "\n"])
        .collect();
    // The parent of a module within the file is the file.
    let code = code.replace("\n    use super::", "\n    use self::");
    let mut found = Vec::new();
    let mut rest = code.as_str();
    while let Some(at) = USES.iter().filter_map(|start| Some(rest.find(start)? + start.len())).min()
    {
        rest = &rest[at..];
        let tree: String = rest.split(';').next().unwrap().split_whitespace().collect();
        found.extend(expanded(&tree));
    }
    // Paths that are written out where they are used.
    for rest in code.split("crate::").skip(1) {
        let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        let path = rest.split(|c| !is_path(c)).next().unwrap();
        // Declarations with braces were read above.
        if !path.ends_with("::") {
            found.push(format!("crate::{path}"));
        }
    }
    let parent = module.rsplit_once("::").map_or("", |(parent, _)| parent);
    let absolute = |path: String| {
        let (first, rest) = path.split_once("::")?;
        match first {
            "crate" => Some(rest.to_owned()),
            "self" => Some(format!("{module}::{rest}")),
            "super" => Some(format!("{parent}::{rest}").trim_start_matches("::").to_owned()),
            _ => None,
        }
    };
    found.into_iter().filter_map(absolute).collect()
}

fn graph() -> Graph {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    let modules: BTreeMap<String, &PathBuf> =
        files.iter().filter_map(|path| Some((module_of(path, &root)?, path))).collect();
    let file_of = |path: &str, from: &str| {
        let mut path = path;
        while !modules.contains_key(path) {
            match path.rsplit_once("::") {
                Some((shorter, _)) => path = shorter,
                None => panic!("{from} imports {path} from the crate's root: name its module"),
            }
        }
        path.to_owned()
    };
    let edges = |(module, path): (&String, &&PathBuf)| {
        let text = fs::read_to_string(path).unwrap();
        let imported = imports(&text, module).into_iter();
        let imported = imported.map(|path| file_of(&path, module)).filter(|file| file != module);
        (module.clone(), imported.collect())
    };
    modules.iter().map(edges).collect()
}

fn room(module: &str) -> &str {
    module.split("::").next().unwrap()
}

fn floor(module: &str) -> usize {
    let found = FLOORS.iter().position(|floor| floor.contains(&room(module)));
    found.unwrap_or_else(|| panic!("{module} is on no floor"))
}

#[test]
fn imports_go_down() {
    let graph = graph();
    let climbing: Vec<_> = graph
        .iter()
        .flat_map(|(from, imported)| imported.iter().map(move |to| (from, to)))
        .filter(|(from, to)| floor(to) > floor(from))
        .collect();
    assert!(climbing.is_empty(), "{climbing:#?}");
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let mut graph = graph();
    assert!(graph.len() > 40, "the files are read");
    // Files without imports that are left are taken away until none is.
    loop {
        let done: BTreeSet<String> =
            graph.iter().filter(|(_, to)| to.is_empty()).map(|(from, _)| from.clone()).collect();
        if done.is_empty() {
            break;
        }
        graph.retain(|from, _| !done.contains(from));
        graph.values_mut().for_each(|to| to.retain(|file| !done.contains(file)));
    }
    // Those that only lead into a circle go, too.
    loop {
        let imported: BTreeSet<String> = graph.values().flatten().cloned().collect();
        let before = graph.len();
        graph.retain(|from, _| imported.contains(from));
        if graph.len() == before {
            break;
        }
    }
    assert!(graph.is_empty(), "in a circle: {graph:#?}");
}
