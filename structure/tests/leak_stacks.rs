//! The rooms of leak-stacks, on floors: see the page of the crate.

use std::path::Path;
use std::sync::LazyLock;

use structure::Modules;

/// The floors from the ground up. A file may import from its own floor and from those below it.
const FLOORS: [&[&str]; 7] = [
    &["bytes", "guarded", "time"],
    &["process", "raw", "processor", "stack", "truncation", "counts", "texts"],
    &["binary", "culprit", "sources"],
    &["unwind"],
    &["languages"],
    &["resolver"],
    &["fuzzing"],
];

static MODULES: LazyLock<Modules> = LazyLock::new(|| {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("../leak-stacks/src");
    Modules::read(&src, &[]).expect("the crate's own code")
});

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&room))
}

#[test]
fn every_room_is_on_a_floor() {
    let rooms = MODULES.names().map(structure::room).filter(|room| !room.is_empty());
    let homeless: Vec<_> = rooms.filter(|room| floor(room).is_none()).collect();
    assert!(homeless.is_empty(), "{homeless:?}");
}

#[test]
fn imports_go_down() {
    let climbing =
        MODULES.forbidden(|from, to| floor(to).is_some_and(|to| Some(to) <= floor(from)));
    assert!(climbing.is_empty(), "{climbing:#?}");
}
