//! Builds and starts the corpus's programs, language by language.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

use anyhow::{Context as _, Result};

use super::manifest::{CORPUS, Program};
use support::{
    command::{check, output},
    corpus::Language,
    workspace::{cargo, node_path, target_directory},
};

/// Builds programs on first use.
pub(super) struct Builder {
    workspace: PathBuf,
    target: PathBuf,
    tools: Mutex<BTreeMap<Language, Result<(), String>>>,
    built: Mutex<BTreeMap<String, Result<Recipe, String>>>,
}

/// How a built program is started.
#[derive(Clone)]
struct Recipe {
    words: Vec<PathBuf>,
    env: Vec<(&'static str, String)>,
}

impl Recipe {
    fn of(words: &[&Path]) -> Self {
        Self { words: words.iter().map(|&word| word.to_owned()).collect(), env: Vec::new() }
    }
}

impl Builder {
    pub(super) fn new(workspace: &Path) -> Self {
        Self {
            workspace: workspace.to_owned(),
            target: target_directory(workspace).join("corpus"),
            tools: Mutex::default(),
            built: Mutex::default(),
        }
    }

    /// Where what is built and what programs say is put.
    pub(super) fn target(&self) -> &Path {
        &self.target
    }

    /// Makes sure that a language can be had here, or says why not.
    pub(super) fn equip(&self, language: Language) -> Result<(), String> {
        let mut tools = self.tools.lock().map_err(|_| "lock poisoned".to_owned())?;
        tools
            .entry(language)
            .or_insert_with(|| {
                let Some(need) = language.need() else { return Ok(()) };
                output(cargo(&self.workspace).args(["xtask", "setup", need]))
                    .map(drop)
                    .map_err(|error| format!("{error:#}"))
            })
            .clone()
    }

    /// The command that starts a program, built at the first time.
    pub(super) fn command(&self, program: &Program) -> Result<Command, String> {
        self.equip(program.language)?;
        let mut built = self.built.lock().map_err(|_| "lock poisoned".to_owned())?;
        let recipe = built
            .entry(program.source.clone())
            .or_insert_with(|| self.build(program).map_err(|error| format!("{error:#}")))
            .clone()?;
        let mut command = Command::new(&recipe.words[0]);
        command.args(&recipe.words[1..]).envs(recipe.env).envs(&program.env);
        Ok(command)
    }

    fn build(&self, program: &Program) -> Result<Recipe> {
        let source = self.workspace.join(CORPUS).join(&program.source);
        let name = program.source.replace('/', "-");
        let binary = self.target.join(name.trim_end_matches(".c"));
        fs::create_dir_all(&self.target)?;
        let recipe = match program.language {
            Language::Go => {
                check(
                    Command::new("go")
                        .arg("build")
                        .arg("-o")
                        .arg(&binary)
                        .arg(".")
                        .current_dir(&source)
                        // Debian's packages are sources in a GOPATH, and nothing is to be fetched.
                        .env("GO111MODULE", "off")
                        .env("GOPATH", "/usr/share/gocode")
                        .env("GOFLAGS", "")
                        .env("GOCACHE", self.target.join("go-cache")),
                )?;
                Recipe::of(&[&binary])
            }
            Language::C => {
                check(
                    Command::new("gcc")
                        .args(["-O2", "-g", "-Wall", "-pthread", "-I/usr/include/postgresql"])
                        .arg(&source)
                        .arg("-o")
                        .arg(&binary)
                        .arg("-lpq"),
                )?;
                Recipe::of(&[&binary])
            }
            Language::Java => self.java(&source, &binary)?,
            Language::Node => {
                let mut recipe = Recipe::of(&["node".as_ref(), &source]);
                recipe.env.push(("NODE_PATH", node_path(&self.workspace)));
                recipe
            }
            Language::Rust => {
                check(
                    cargo(&self.workspace)
                        .args(["build", "--release", "--locked", "--target-dir"])
                        .arg(self.target.join("rust"))
                        .current_dir(&source),
                )?;
                Recipe::of(&[&self.target.join("rust/release/corpus")])
            }
            // Debian's packages extend Debian's interpreters.
            Language::Python => Recipe::of(&["/usr/bin/python3".as_ref(), &source]),
            Language::Ruby => Recipe::of(&["/usr/bin/ruby".as_ref(), &source]),
            Language::Php => Recipe::of(&["/usr/bin/php".as_ref(), &source]),
            Language::Tools => Recipe::of(&["/bin/sh".as_ref(), &source]),
        };
        Ok(recipe)
    }

    fn java(&self, source: &Path, classes: &Path) -> Result<Recipe> {
        let class = source.file_stem().context("A Java program has no name.")?;
        let path = ["postgresql", "HikariCP", "slf4j-api", "slf4j-nop"]
            .map(|jar| format!("/usr/share/java/{jar}.jar"))
            .join(":");
        check(Command::new("javac").args(["-g", "-cp", &path, "-d"]).arg(classes).arg(source))?;
        let path = format!("{path}:{}", classes.display());
        Ok(Recipe::of(&[
            "java".as_ref(),
            // Enough for a shop, on a machine that runs several.
            "-Xmx128m".as_ref(),
            "-XX:+UseSerialGC".as_ref(),
            "-cp".as_ref(),
            path.as_ref(),
            class.as_ref(),
        ]))
    }
}
