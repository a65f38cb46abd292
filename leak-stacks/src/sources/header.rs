//! What a brace begins, by what stands before it.

/// What lasts until the brace is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Block {
    /// A function, with its name if it has one.
    Function(Option<String>),
    Class(String),
    Other,
}

/// Words that are followed by brackets and a block, and are no functions.
const KEYWORDS: [&str; 12] = [
    "if", "for", "while", "switch", "catch", "with", "foreach", "elseif", "match", "return",
    "await", "declare",
];

/// What begins at a brace after `header`, which is code without literals and comments. In some
/// languages methods need a keyword.
pub(crate) fn block(header: &str, methods_have_keyword: bool) -> Block {
    let header = header.trim_end();
    if let Some(head) = header.strip_suffix("=>") {
        return Block::Function(arrow_name(head));
    }
    // `): array`
    let head = match header.rfind(')') {
        Some(at) if is_type(header.get(at + 1..).unwrap_or_default()) => header.get(..=at),
        _ => None,
    };
    if let Some(before) = head.and_then(before_brackets) {
        return function(before, methods_have_keyword);
    }
    class_name(header).map_or(Block::Other, Block::Class)
}

/// The name of a function `NAME = (…) => ` or `NAME: async x => `.
pub(crate) fn arrow_name(head: &str) -> Option<String> {
    let head = head.trim_end();
    let before = before_brackets(head).unwrap_or_else(|| head.trim_end_matches(in_name));
    let before = before.trim_end();
    assigned(before.strip_suffix("async").unwrap_or(before))
}

/// The function whose parameters come after `before`.
fn function(before: &str, methods_have_keyword: bool) -> Block {
    let before = before.trim_end();
    let name = last_name(before);
    let rest = before.get(..before.len() - name.len()).unwrap_or_default();
    let has_keyword = rest.trim_end().trim_end_matches(['*', '&']).trim_end().ends_with("function");
    match name {
        "function" => Block::Function(assigned(rest)),
        // The variables that a closure takes with it.
        "use" => Block::Function(None),
        "" => Block::Other,
        name if KEYWORDS.contains(&name) => Block::Other,
        name if has_keyword || !methods_have_keyword => Block::Function(Some(name.to_owned())),
        _ => Block::Other,
    }
}

/// The name that is given to what comes next: `NAME =`, `NAME:`.
fn assigned(before: &str) -> Option<String> {
    let name = before.trim_end().strip_suffix(['=', ':'])?.trim_end();
    let name = last_name(name);
    (!name.is_empty()).then(|| name.to_owned())
}

fn last_name(text: &str) -> &str {
    let start = text.rfind(|c| !in_name(c)).map_or(0, |at| {
        at + text.get(at..).and_then(|rest| rest.chars().next()).map_or(1, char::len_utf8)
    });
    text.get(start..).unwrap_or_default()
}

/// What comes before the brackets that `text` ends with.
fn before_brackets(text: &str) -> Option<&str> {
    let mut depth = 0_usize;
    for (at, character) in text.char_indices().rev() {
        match character {
            ')' => depth += 1,
            '(' if depth <= 1 => return text.get(..at).filter(|_| depth == 1),
            '(' => depth -= 1,
            _ if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

/// Whether this is nothing, or the type that a function returns.
fn is_type(text: &str) -> bool {
    let text = text.trim();
    let is_part = |c: char| in_name(c) || " ?|\\<>[].,".contains(c);
    text.is_empty() || text.strip_prefix(':').is_some_and(|kind| kind.chars().all(is_part))
}

fn class_name(header: &str) -> Option<String> {
    let words: Vec<_> = header.split_whitespace().collect();
    let at = words.iter().rposition(|word| matches!(*word, "class" | "trait"))?;
    let name = words.get(at + 1)?.trim_end_matches(|c| !in_name(c));
    // Further back it belongs to another statement.
    let is_near = words.len() - at <= 8;
    (is_near && !name.is_empty() && name.chars().all(in_name)).then(|| name.to_owned())
}

fn in_name(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '$' | '#')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_classes_and_others() {
        let named = |name: &str| Block::Function(Some(name.to_owned()));
        for (header, expected) in [
            ("async function pay(a, b = f(1))", named("pay")),
            ("const pay = async (client) =>", named("pay")),
            ("let x = 1\nconst pay = client =>", named("pay")),
            ("pay: function ()", named("pay")),
            ("pool.connect(async (client) =>", Block::Function(None)),
            ("  async pay(id)", named("pay")),
            ("pay(id): Promise<void>", named("pay")),
            ("if (a && (b))", Block::Other),
            ("} else", Block::Other),
            ("const x =", Block::Other),
            ("export class Store extends Base", Block::Class("Store".into())),
            ("", Block::Other),
            (")", Block::Other),
            ("((", Block::Other),
        ] {
            assert_eq!(block(header, false), expected, "{header}");
        }
        assert_eq!(block("public function pay(int $id): ?array", true), named("pay"));
        assert_eq!(block("function () use ($db)", true), Block::Function(None));
        assert_eq!(block("pay($x)", true), Block::Other);
    }
}
