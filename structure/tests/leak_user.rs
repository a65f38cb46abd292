//! The rooms of the collector, and which of them may use which: see the page of the crate.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use structure::Modules;

/// Each room, and the rooms that it may use besides itself. A command may use all.
const ROOMS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("clock", &["model"]),
    ("background", &[]),
    ("error", &[]),
    ("engine", &["model"]),
    ("sources", &["model", "clock", "background", "error"]),
    ("outputs", &["model", "engine", "clock", "background", "error"]),
    ("trace", &["model", "engine", "sources", "outputs", "clock", "background", "error"]),
    ("replay", &["model", "engine", "outputs", "trace"]),
];

/// What goes back to a source has its name in `trace/feedback`, and nobody else calls these.
const WAYS_BACK: &[&str] =
    &[".set_profile(", ".set_stack_bytes(", ".forget_process(", ".forget_connection(", ".want("];

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../leak-user/src")
}

static MODULES: LazyLock<Modules> =
    LazyLock::new(|| Modules::read(&src(), &["main", "fuzzing"]).expect("the crate's own code"));

fn room(module: &str) -> &str {
    module.split("::").next().unwrap_or_default()
}

fn text(module: &str) -> String {
    let path = src().join(module.replace("::", "/"));
    let text = fs::read_to_string(path.with_extension("rs")).expect("the crate's own code");
    text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().to_owned()
}

#[test]
fn no_import_climbs() {
    let modules = &*MODULES;
    let mut climbing = Vec::new();
    for (module, used) in modules.uses() {
        let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room(module)) else {
            continue;
        };
        let climbs = |other: &&str| room(other) != room(module) && !allowed.contains(&room(other));
        climbing
            .extend(used.into_iter().filter(climbs).map(|other| format!("{module} -> {other}")));
    }
    assert!(climbing.is_empty(), "{climbing:#?}");
}

/// In the engine, a detector and the page that lists all detectors name each other, as do a
/// connection and the tables that it is in.
#[test]
fn outside_the_engine_no_files_use_each_other_in_a_circle() {
    let modules = &*MODULES;
    let circles = modules.circles().into_iter();
    let outside = |circle: &Vec<&str>| circle.iter().any(|module| room(module) != "engine");
    let circles: Vec<_> = circles.filter(outside).collect();
    assert!(circles.is_empty(), "{circles:#?}");
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
