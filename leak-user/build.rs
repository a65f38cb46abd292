//! Puts the kernel programs where the collector embeds them: `$OUT_DIR/leak-ebpf`.
//!
//! Without the BPF toolchain the file is empty and a warning says so, so that `cargo check`,
//! clippy and rust-analyzer work everywhere; a binary built so explains itself when it is run.

use std::{env, error::Error, fs, path::Path};

use support::{
    toolchain::Toolchain,
    workspace::{target_directory, tools_directory},
};

fn main() -> Result<(), Box<dyn Error>> {
    let manifest = env::var("CARGO_MANIFEST_DIR")?;
    let workspace = Path::new(&manifest).parent().ok_or("leak-user lies outside its workspace")?;
    let target = target_directory(workspace);
    for path in [
        "Cargo.lock",
        "Cargo.toml",
        "leak-common/Cargo.toml",
        "leak-common/src",
        "leak-ebpf/Cargo.toml",
        "leak-ebpf/src",
    ] {
        println!("cargo::rerun-if-changed={}", workspace.join(path).display());
    }
    // `cargo xtask setup` leaves its mark there when it has installed something.
    println!("cargo::rerun-if-changed={}", tools_directory(&target)?.display());

    let embedded = Path::new(&env::var("OUT_DIR")?).join("leak-ebpf");
    match Toolchain::find(&target) {
        Ok(toolchain) => {
            fs::copy(toolchain.build(workspace, &target)?, embedded)?;
        }
        Err(missing) => {
            println!(
                "cargo::warning={missing} The kernel programs are left out, and this build of \
                 pgsocktrace cannot trace; `cargo xtask setup` installs what is missing."
            );
            fs::write(embedded, [])?;
        }
    }
    Ok(())
}
