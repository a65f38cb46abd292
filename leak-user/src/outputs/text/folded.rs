//! How many calls of drivers and runtimes are not shown, and of which.

use crate::engine::detect::plural;
use leak_stacks::{Frame, Language, Stack};

/// Most libraries that are named.
const MAX_NAMES: usize = 3;

/// "(19 frames of database/sql, lib/pq, net hidden: --frames all)"; `None` when none are.
pub(super) fn told(stack: &Stack, culprit: usize, callers: &[usize]) -> Option<String> {
    let is_shown = |index: &usize| *index == culprit || callers.contains(index);
    let hidden = || (0..stack.frames.len()).filter(|index| !is_shown(index));
    let count = hidden().count();
    if count == 0 {
        return None;
    }
    let own = stack.frames.get(culprit).and_then(|frame| library(stack.language, frame));
    let mut names: Vec<&str> = Vec::new();
    // Those next to the application say most: the driver comes before the runtime below it.
    for frame in
        hidden().filter(|&index| index < culprit).rev().map(|index| stack.frames.get(index))
    {
        let name = frame.and_then(|frame| library(stack.language, frame));
        if let Some(name) = name.filter(|name| Some(*name) != own && !names.contains(name)) {
            names.push(name);
        }
    }
    names.truncate(MAX_NAMES);
    let of = if names.is_empty() { String::new() } else { format!(" of {}", names.join(", ")) };
    Some(format!("({}{of} hidden: --frames all)", plural(count, "frame")))
}

/// The library that a call belongs to: Go's package, else the file of the code.
fn library(language: Language, frame: &Frame) -> Option<&str> {
    if language == Language::Go {
        let function = frame.function.as_deref()?;
        let base = function.rfind('/').map_or(0, |slash| slash + 1);
        let end = base + function.get(base..)?.find('.')?;
        let package = function.get(..end)?;
        let host = package.split_once('/').filter(|(host, _)| host.contains('.'));
        return Some(host.map_or(package, |(_, path)| path));
    }
    let file = frame.module.as_deref()?.rsplit('/').next()?;
    let name = file.split(".so").next()?.split(".cpython").next()?;
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use leak_stacks::{Quality, StackId};

    fn stack(language: Language, frames: &[(&str, &str)], culprit: usize) -> Stack {
        let frame = |&(function, module): &(&str, &str)| Frame {
            function: Some(function.to_owned()),
            module: Some(module.to_owned()),
            file: None,
            line: None,
            address: 1,
        };
        Stack {
            id: StackId(1),
            quality: Quality::Complete,
            truncation: None,
            language,
            frames: frames.iter().map(frame).collect(),
            culprit: Some(culprit),
            callers: Vec::new(),
        }
    }

    #[test]
    fn what_is_hidden_is_counted_and_named() {
        let frames = [
            ("internal/poll.(*FD).Write", "/srv/shop"),
            ("github.com/lib/pq.(*conn).send", "/srv/shop"),
            ("database/sql.(*Tx).QueryRow", "/srv/shop"),
            ("main.pay", "/srv/shop"),
            ("runtime.goexit", "/srv/shop"),
        ];
        let told_of = told(&stack(Language::Go, &frames, 3), 3, &[]).unwrap();
        assert_eq!(
            told_of,
            "(4 frames of database/sql, lib/pq, internal/poll hidden: --frames all)"
        );
        let frames =
            [("send", "/lib/libc.so.6"), ("PQexec", "/lib/libpq.so.5.15"), ("pay", "/srv/shop.py")];
        let told_of = told(&stack(Language::Python, &frames, 2), 2, &[]).unwrap();
        assert_eq!(told_of, "(2 frames of libpq, libc hidden: --frames all)");
        assert_eq!(told(&stack(Language::Python, &frames[2..], 0), 0, &[]), None);
    }
}
