use std::fs;

use crate::*;

fn read(files: &[(&str, &str)]) -> Modules {
    read_except(files, &[])
}

fn read_except(files: &[(&str, &str)], except: &[&str]) -> Modules {
    let directory = std::env::temp_dir().join(format!(
        "structure-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    for (path, text) in files {
        let path = directory.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let modules = Modules::read(&directory, except).unwrap();
    fs::remove_dir_all(directory).unwrap();
    modules
}

#[test]
fn a_circle_is_found_and_a_re_export_is_none() {
    let modules = read(&[
        ("lib.rs", "mod a;\nmod b;\npub use a::A;"),
        ("a.rs", "mod part;\npub use part::A;"),
        ("a/part.rs", "use crate::b::B;\npub struct A(B);"),
        ("b.rs", "pub struct B;\nfn f() -> crate::A { todo!() }"),
    ]);
    assert_eq!(modules.circles(), [["a::part", "b"]]);
    assert!(modules.uses()[""].is_empty());
}

#[test]
fn tests_do_not_count_and_other_crates_do() {
    let files = [
        ("lib.rs", "mod a;\nmod b;"),
        ("a.rs", "#[cfg(test)]\nmod tests;\n#[derive(clap::Parser)]\nstruct A;"),
        ("a/tests.rs", "use crate::b::B;\nuse other::Thing;"),
        ("b.rs", "use crate::a::A;\npub struct B;\n#[cfg(test)]\nmod tests { use other::Thing; }"),
        ("main.rs", "this is not Rust"),
    ];
    let modules = read_except(&files, &["main"]);
    assert!(modules.circles().is_empty());
    assert_eq!(modules.users_of_crate("clap"), ["a"]);
    assert!(modules.users_of_crate("other").is_empty());
    assert_eq!(modules.names().collect::<Vec<_>>(), ["", "a", "b"]);
}

#[test]
fn a_page_uses_what_its_own_code_names() {
    let page = |code: &str| {
        let modules = read(&[
            ("lib.rs", "mod a;"),
            ("a.rs", &format!("mod part;\npub use part::A;\npub struct B;\n{code}")),
            ("a/part.rs", "pub(in crate::a) struct A(super::B);"),
        ]);
        modules.circles().len()
    };
    assert_eq!(page(""), 0);
    assert_eq!(page("fn f(a: A) {}"), 1);
    assert_eq!(page("fn f() { g!(x.y, Some(A::new())) }"), 1);
    assert_eq!(page("fn f() { g!(x.A, other::A) }"), 0);
}

#[test]
fn what_is_named_through_an_imported_module_is_used_and_not_the_module() {
    let modules = read(&[
        ("lib.rs", "mod a;\nmod b;"),
        ("a.rs", "mod part;\npub use part::f;\nfn g() { crate::b::h() }"),
        ("a/part.rs", "pub fn f() {}"),
        ("b.rs", "use crate::a::{self};\npub fn h() { a::f() }"),
    ]);
    assert!(modules.circles().is_empty());
    assert_eq!(modules.uses()["b"], ["a::part"].into());
    assert_eq!(modules.forbidden(|_, _| false), ["a -> b", "b -> a::part"]);
    assert!(modules.forbidden(|_, _| true).is_empty());
    let attribute = "use crate::b;\n#[serde(with = \"b\")]\nstruct A;";
    let modules = read(&[("lib.rs", "mod a;\nmod b;"), ("a.rs", attribute), ("b.rs", "")]);
    assert_eq!(modules.uses()["a"], ["b"].into());
}

#[test]
fn only_what_is_for_tests_alone_is_left_out() {
    let modules = read(&[
        ("main.rs", "mod a;\nmod b;"),
        ("a.rs", "#[cfg(any(test, feature = \"fuzzing\"))]\nuse crate::b::B;"),
        ("b.rs", "#[cfg(all(test, unix))]\nuse crate::a::A;\n#[cfg(not(test))]\nuse crate::C;"),
    ]);
    assert_eq!(modules.uses()["a"], ["b"].into());
    assert_eq!(modules.uses()["b"], [""].into());
}
