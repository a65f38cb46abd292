//! Who sends a statement, by the places of a program that have its text.

use leak_stacks::{Frame, TextUse, TextUser};

/// Shortest statement that is believed where it is not known whether the text goes on.
const SHORTEST_BEGINNING: usize = 24;

/// The code that has each of `statements`; none where anybody may send it, or where the only texts
/// may be longer and several functions have them.
pub(super) fn code_of(statements: &[String], uses: &[TextUse]) -> Vec<Vec<Frame>> {
    let of = |(wanted, statement): (usize, &String)| {
        let its = || uses.iter().filter(move |one| one.wanted == wanted);
        let whole: Vec<_> = its().filter(|one| one.is_whole).collect();
        let is_certain = !whole.is_empty();
        let places = if is_certain { whole } else { its().collect() };
        // A library, and what takes the text from a table, serve any caller.
        let is_anybodys = places.iter().any(|place| place.user != TextUser::Application);
        let code: Vec<_> = places.iter().map(|place| place.frame.clone()).collect();
        let is_one = code.iter().all(|frame| {
            code.first().is_some_and(|first| {
                (&frame.function, &frame.file) == (&first.function, &first.file)
            })
        });
        let is_likely = is_one && statement.len() >= SHORTEST_BEGINNING;
        if is_anybodys || !(is_certain || is_likely) { Vec::new() } else { code }
    };
    statements.iter().enumerate().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATEMENT: &str = "SELECT stock FROM items WHERE id = ?";

    fn used(function: &str, is_whole: bool, user: TextUser) -> TextUse {
        let frame = Frame {
            function: Some(function.into()),
            module: None,
            file: Some("store.go".into()),
            line: Some(1),
            address: 1,
        };
        TextUse { wanted: 0, is_whole, user, frame }
    }

    #[track_caller]
    fn assert_code(statement: &str, uses: &[TextUse], expected: &[&str]) {
        let code = code_of(&[statement.to_owned()], uses);
        let names: Vec<_> = code[0].iter().filter_map(|frame| frame.function.as_deref()).collect();
        assert_eq!(names, expected);
    }

    #[test]
    fn whole_texts_come_first() {
        let app = TextUser::Application;
        let both = [used("longer", false, app), used("pay", true, app)];
        assert_code(STATEMENT, &both, &["pay"]);
        assert_code("BEGIN", &both, &["pay"]);
        assert_code(
            STATEMENT,
            &[used("pay", true, app), used("refund", true, app)],
            &["pay", "refund"],
        );
        assert_code(STATEMENT, &[], &[]);
    }

    #[test]
    fn a_beginning_counts_where_there_is_one() {
        let app = TextUser::Application;
        assert_code(STATEMENT, &[used("pay", false, app)], &["pay"]);
        assert_code("BEGIN", &[used("pay", false, app)], &[]);
        assert_code(STATEMENT, &[used("pay", false, app), used("refund", false, app)], &[]);
    }

    #[test]
    fn what_anybody_may_send_is_nobodys() {
        let app = used("pay", true, TextUser::Application);
        for user in [TextUser::Library, TextUser::Initialiser] {
            assert_code(STATEMENT, &[app.clone(), used("lib", true, user)], &[]);
        }
    }
}
