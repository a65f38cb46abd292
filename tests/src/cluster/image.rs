//! Unpacks the tracer's image as a container runtime does.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use support::command::output;

/// An unpacked image.
pub struct Image {
    /// Its root directory.
    pub root: PathBuf,
    /// The command of the image.
    pub entrypoint: Vec<String>,
    /// The environment variables of the image.
    pub environment: Vec<String>,
}

impl Image {
    /// The archive that `cargo xtask image` makes, in the OCI image format.
    #[must_use]
    pub fn path() -> PathBuf {
        let default = || crate::target().join("packages/pgsocktrace-image.tar");
        env::var_os("PGSOCKTRACE_IMAGE").map_or_else(default, PathBuf::from)
    }

    /// Unpacks the image into a new directory.
    pub fn unpack(root: &Path) -> Result<Self> {
        let layout = root.with_extension("layout");
        fs::create_dir(&layout)?;
        fs::create_dir(root)?;
        output(Command::new("tar").arg("-xf").arg(Self::path()).arg("-C").arg(&layout))?;
        let read = |path: &Path| -> Result<Value> {
            Ok(serde_json::from_slice(&fs::read(path).with_context(|| format!("{path:?}"))?)?)
        };
        let blob = |descriptor: &Value| -> Result<PathBuf> {
            let digest = descriptor["digest"].as_str().context("digest")?;
            Ok(layout.join("blobs").join(digest.replace(':', "/")))
        };
        let index = read(&layout.join("index.json"))?;
        let manifest = read(&blob(&index["manifests"][0])?)?;
        let config = read(&blob(&manifest["config"])?)?;
        for layer in manifest["layers"].as_array().context("layers")? {
            output(Command::new("tar").arg("-xf").arg(blob(layer)?).arg("-C").arg(root))?;
        }
        let texts = |name: &str| -> Vec<String> {
            let list = config["config"][name].as_array().cloned().unwrap_or_default();
            list.iter().filter_map(|one| one.as_str().map(str::to_owned)).collect()
        };
        let image = Self {
            root: root.to_owned(),
            entrypoint: texts("Entrypoint"),
            environment: texts("Env"),
        };
        ensure!(!image.entrypoint.is_empty(), "the image has no entrypoint");
        Ok(image)
    }
}
