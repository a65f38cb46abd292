//! Decides whether two spellings of a name mean the same function.

use std::collections::{BTreeMap, HashMap};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

/// Marks a name in gdb's output of which debug information has only the last part.
pub(super) const MADE_UP: &str = "last part: ";

/// Symbols of a module and their addresses, from `nm`.
type Addresses = HashMap<String, String>;

/// Whether both names mean the same function of `module`.
pub(super) fn is_same(told: &str, traced: &str, module: Option<&str>) -> bool {
    let told = &without_hashes(told);
    let of_made_up = told.strip_prefix(MADE_UP);
    let is_cpp = of_made_up.is_some() || is_cpp(told);
    let plain_told = plain(of_made_up.unwrap_or(told), is_cpp);
    let plain_traced = plain(traced, is_cpp);
    let is_last_part = !plain_told.contains("::");
    // A closure's last part only says that it is a closure; the comparison of lines tells which.
    let is_some_closure = of_made_up.is_some_and(|part| part.starts_with('{'));
    is_some_closure
        || plain_told == plain_traced
        || (is_last_part && plain_traced.ends_with(&format!("::{plain_told}")))
        || (of_made_up.is_some() && plain_told.ends_with(&format!("::{plain_traced}")))
        || module.is_some_and(|module| are_aliases(told, traced, module))
}

/// A name without the parts that programs print differently.
fn plain(name: &str, is_cpp: bool) -> String {
    let name = without_closures(name);
    let name = if is_cpp { without_arguments(name) } else { name.replace(' ', "") };
    let mut rest = name.as_str();
    while let Some((before, last)) = rest.rsplit_once('.')
        && !last.is_empty()
        && last.bytes().all(|byte| byte.is_ascii_digit())
    {
        rest = before;
    }
    rest.to_owned()
}

/// Whether this is a complete C++ name, with arguments. Rust names have arguments only inside
/// generic parameters.
fn is_cpp(name: &str) -> bool {
    name.contains('(') && !name.contains("{{") && !name.contains("{closure#")
}

/// The name of the Rust function that contains a closure.
fn without_closures(name: &str) -> &str {
    match name.rsplit_once("::") {
        Some((before, last)) if last == "{{closure}}" || last.starts_with("{closure#") => {
            without_closures(before)
        }
        _ => name,
    }
}

/// A C++ function's name without the parts in brackets, its return type, and the suffix of a part
/// that the compiler split off.
fn without_arguments(name: &str) -> String {
    const WORDS: [(&str, &str); 6] = [
        ("(anonymous namespace)", "anonymous"),
        ("operator()", "operator_call"),
        ("operator->", "operator_arrow"),
        ("operator<<", "operator_left"),
        ("operator<", "operator_less"),
        ("operator>", "operator_greater"),
    ];
    let name = name.split(" [clone").next().unwrap_or(name).to_owned();
    let name = WORDS.iter().fold(name, |name, (from, to)| name.replace(from, to));
    let mut depth = 0_u32;
    let mut kept = String::new();
    for character in name.chars() {
        match character {
            '(' | '<' => depth += 1,
            ')' | '>' => depth = depth.saturating_sub(1),
            other if depth == 0 => kept.push(other),
            _ => {}
        }
    }
    let kept = kept.trim_end_matches(" const");
    kept.rsplit(' ').next().unwrap_or(kept).to_owned()
}

/// Whether two symbols of a module have the same address.
fn are_aliases(one: &str, other: &str, module: &str) -> bool {
    let addresses = addresses(module);
    addresses.get(one).is_some_and(|address| addresses.get(other) == Some(address))
}

/// The symbols of a module and of the debug file beside it.
fn addresses(module: &str) -> Arc<Addresses> {
    static KNOWN: Mutex<BTreeMap<String, Arc<Addresses>>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let read = || {
        let mut addresses = Addresses::new();
        let debug = format!("{module}.debug");
        for arguments in [["-C", "-a", module], ["-C", "-D", module], ["-C", "-a", &debug]] {
            let Ok(output) = Command::new("nm").args(arguments).output() else { continue };
            for line in String::from_utf8_lossy(&output.stdout).lines() {
                let mut words = line.splitn(3, ' ');
                if let (Some(address), _, Some(name)) = (words.next(), words.next(), words.next()) {
                    let name = without_hashes(name.split('@').next().unwrap_or(name));
                    addresses.entry(name).or_insert_with(|| address.to_owned());
                }
            }
        }
        Arc::new(addresses)
    };
    Arc::clone(known.entry(module.to_owned()).or_insert_with(read))
}

/// A Rust name without its hashes.
pub(super) fn without_hashes(name: &str) -> String {
    let is_hash = |text: &str| text.len() >= 12 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let name = match name.rsplit_once("::h") {
        Some((before, hash)) if is_hash(hash) => before,
        _ => name,
    };
    let mut parts = name.split('[');
    let mut kept = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once(']') {
            Some((hash, rest)) if is_hash(hash) => kept.push_str(rest),
            _ => {
                kept.push('[');
                kept.push_str(part);
            }
        }
    }
    kept
}
