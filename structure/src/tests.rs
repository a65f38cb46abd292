use std::fs;

use crate::*;

fn read(files: &[(&str, &str)]) -> Modules {
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
    let modules = Modules::read(&directory, &["main"]).unwrap();
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
    let modules = read(&[
        ("lib.rs", "mod a;\nmod b;"),
        ("a.rs", "#[cfg(test)]\nmod tests;\n#[derive(clap::Parser)]\nstruct A;"),
        ("a/tests.rs", "use crate::b::B;\nuse other::Thing;"),
        ("b.rs", "use crate::a::A;\npub struct B;\n#[cfg(test)]\nmod tests { use other::Thing; }"),
        ("main.rs", "this is not Rust"),
    ]);
    assert!(modules.circles().is_empty());
    assert_eq!(modules.users_of_crate("clap"), ["a"]);
    assert!(modules.users_of_crate("other").is_empty());
    assert_eq!(modules.names().collect::<Vec<_>>(), ["", "a", "b"]);
}
