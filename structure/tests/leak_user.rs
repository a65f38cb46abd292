//! The rooms of the collector, and which of them may use which: see the page of the crate.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use structure::{Modules, room};

/// Each room, and the rooms that it may use besides itself. A command may use all.
const ROOMS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("clock", &["model"]),
    ("background", &[]),
    ("error", &[]),
    ("nearest", &[]),
    ("engine", &["model"]),
    ("sources", &["model", "clock", "background", "error"]),
    ("outputs", &["model", "engine", "clock", "background", "error"]),
    (
        "trace",
        &["model", "engine", "sources", "outputs", "clock", "background", "error", "nearest"],
    ),
    ("replay", &["model", "engine", "outputs", "trace"]),
];

/// What goes back to a source has its name in `trace/feedback`, and nobody else calls these.
const WAYS_BACK: &[&str] =
    &[".set_profile(", ".set_stack_bytes(", ".forget_process(", ".forget_connection(", ".want("];

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../leak-user/src")
}

static MODULES: LazyLock<Modules> =
    LazyLock::new(|| Modules::read(&src(), &["main"]).expect("the crate's own code"));

fn text(module: &str) -> String {
    let path = src().join(module.replace("::", "/"));
    let text = fs::read_to_string(path.with_extension("rs")).expect("the crate's own code");
    text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().to_owned()
}

#[test]
fn no_import_climbs() {
    let climbing = MODULES.forbidden(|from, to| {
        let room = ROOMS.iter().find(|(name, _)| *name == from);
        room.is_none_or(|(_, allowed)| allowed.contains(&to))
    });
    assert!(climbing.is_empty(), "{climbing:#?}");
}

#[test]
fn only_the_command_line_knows_clap_and_nobody_knows_anyhow() {
    let modules = &*MODULES;
    let others: Vec<_> =
        modules.users_of_crate("clap").into_iter().filter(|user| room(user) != "cli").collect();
    assert!(others.is_empty(), "{others:?}");
    assert!(modules.users_of_crate("anyhow").is_empty());
}

#[test]
fn the_model_does_no_input_and_no_output_and_reads_no_clock() {
    let modules = &*MODULES;
    for module in modules.names().filter(|module| room(module) == "model") {
        let text = text(module);
        for word in ["std::fs", "std::io", "std::process", "Instant", "::now()", "leak_common"] {
            assert!(!text.contains(word), "{module}: {word}");
        }
    }
}

#[test]
fn what_goes_back_goes_through_feedback() {
    let modules = &*MODULES;
    let trace = modules.names().filter(|module| room(module) == "trace");
    for module in trace.filter(|module| *module != "trace::feedback") {
        let text = text(module);
        for call in WAYS_BACK {
            assert!(!text.contains(call), "{module}: {call}");
        }
    }
}
