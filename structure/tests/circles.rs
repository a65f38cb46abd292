//! In no crate of the product do files use each other in a circle.

use std::path::Path;

use structure::Modules;

/// Each crate with its least number of files, so that none goes unread.
const CRATES: [(&str, usize); 4] =
    [("leak-common", 6), ("leak-ebpf", 25), ("leak-stacks", 60), ("leak-user", 170)];

#[test]
fn no_files_use_each_other_in_a_circle() {
    for (name, files) in CRATES {
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name).join("src");
        // Beside a library, `main.rs` is a crate of its own, in one file.
        let except: &[&str] = if src.join("lib.rs").exists() { &["main"] } else { &[] };
        let modules = Modules::read(&src, except).expect("the crate's own code");
        assert!(modules.names().count() >= files, "{name}: {}", modules.names().count());
        let circles = modules.circles();
        assert!(circles.is_empty(), "{name}: {circles:#?}");
    }
}
