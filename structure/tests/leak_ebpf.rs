//! The rooms of the kernel programs, and which of them may import which: see the page of the crate.

use std::path::Path;
use std::sync::LazyLock;

use structure::Modules;

/// Each room imports only from those below it.
const ROOMS: [&str; 8] =
    ["probes", "emit", "stacks", "connections", "postgres", "kernel", "maps", "verifier"];

static MODULES: LazyLock<Modules> = LazyLock::new(|| {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("../leak-ebpf/src");
    Modules::read(&src, &[]).expect("the crate's own code")
});

fn place(room: &str) -> Option<usize> {
    ROOMS.iter().position(|name| *name == room)
}

#[test]
fn every_room_has_its_place() {
    let rooms = MODULES.names().map(structure::room).filter(|room| !room.is_empty());
    let homeless: Vec<_> = rooms.filter(|room| place(room).is_none()).collect();
    assert!(homeless.is_empty(), "{homeless:?}");
}

#[test]
fn imports_go_down() {
    let climbing = MODULES.forbidden(|from, to| place(to).is_some_and(|to| Some(to) > place(from)));
    assert!(climbing.is_empty(), "{climbing:#?}");
}
