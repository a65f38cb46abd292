//! What the program is made of, by the Software Package Data Exchange specification 2.3.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::CStr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::TARGET;
use crate::{build, process::output};

/// The packages whose code is in the program, by name and version.
pub(crate) struct Packages {
    all: BTreeMap<(String, String), Package>,
    version: String,
}

/// One of them.
#[derive(Clone, Deserialize)]
pub(crate) struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
    manifest_path: PathBuf,
    targets: Vec<Target>,
}

#[derive(Clone, Deserialize)]
struct Target {
    kind: Vec<String>,
}

/// What `cargo metadata` says, as far as it is looked at.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Deserialize)]
struct DependencyKind {
    /// None: of the program itself, not of its build or its tests.
    kind: Option<String>,
}

impl Packages {
    /// Those of the program and of the kernel programs that it embeds.
    pub(crate) fn of_program(workspace: &Path) -> Result<Self> {
        let text = output(build::cargo(workspace).args([
            "metadata",
            "--locked",
            "--format-version=1",
            "--filter-platform",
            TARGET,
        ]))?;
        let metadata: Metadata = serde_json::from_str(&text).context("cargo metadata")?;
        Self::select(&metadata)
    }

    fn select(metadata: &Metadata) -> Result<Self> {
        let by_id: BTreeMap<&str, &Package> =
            metadata.packages.iter().map(|package| (package.id.as_str(), package)).collect();
        let nodes: BTreeMap<&str, &Node> =
            metadata.resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
        let roots = ["leak-user", "leak-ebpf"];
        let is_root = |package: &&&Package| roots.contains(&package.name.as_str());
        let mut wanted: Vec<&Package> = by_id.values().filter(is_root).copied().collect();
        let version = wanted.first().context("leak-user is no package here")?.version.clone();
        let mut seen = BTreeSet::new();
        let mut all = BTreeMap::new();
        while let Some(package) = wanted.pop() {
            if !seen.insert(&package.id) || package.is_macro() {
                continue;
            }
            all.insert((package.name.clone(), package.version.clone()), package.clone());
            let dependencies = nodes.get(package.id.as_str()).into_iter().flat_map(|n| &n.deps);
            let linked = dependencies.filter(|one| one.dep_kinds.iter().any(|k| k.kind.is_none()));
            wanted.extend(linked.filter_map(|one| by_id.get(one.pkg.as_str())));
        }
        Ok(Self { all, version })
    }

    /// The program's version.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// Those that others have written.
    pub(crate) fn foreign(&self) -> impl Iterator<Item = &Package> {
        self.all.values().filter(|package| package.source.is_some())
    }

    /// The document. `epoch` is when it counts as written.
    pub(crate) fn to_spdx(&self, epoch: u64) -> Result<String> {
        let created = Timestamp::from_second(i64::try_from(epoch)?)?.to_string();
        let mut packages: Vec<Value> = self.all.values().map(Package::to_spdx).collect();
        packages.push(libc());
        let main = id("leak-user", &self.version);
        let mut relationships = vec![relationship("SPDXRef-DOCUMENT", "DESCRIBES", &main)];
        for package in &packages {
            let other = package["SPDXID"].as_str().unwrap_or_default();
            if other != main {
                relationships.push(relationship(&main, "CONTAINS", other));
            }
        }
        let name = format!("pgsocktrace-{}", self.version);
        let document = json!({
            "spdxVersion": "SPDX-2.3",
            "dataLicense": "CC0-1.0",
            "SPDXID": "SPDXRef-DOCUMENT",
            "name": name,
            "documentNamespace": format!("https://spdx.org/spdxdocs/{name}-{epoch}"),
            "creationInfo": {"created": created, "creators": ["Tool: cargo-xtask-dist"]},
            "packages": packages,
            "relationships": relationships,
        });
        Ok(format!("{document:#}\n"))
    }
}

impl Package {
    /// `NAME-VERSION`.
    pub(crate) fn label(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }

    /// Where its sources are.
    pub(crate) fn directory(&self) -> &Path {
        self.manifest_path.parent().unwrap_or(&self.manifest_path)
    }

    /// Macros run in the compiler, and their own code stays there.
    fn is_macro(&self) -> bool {
        self.targets.iter().any(|target| target.kind.iter().any(|kind| kind == "proc-macro"))
    }

    fn to_spdx(&self) -> Value {
        // The old way to write a choice.
        let license = self.license.as_ref().map(|license| license.replace('/', " OR "));
        let mut package = json!({
            "SPDXID": id(&self.name, &self.version),
            "name": self.name,
            "versionInfo": self.version,
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": false,
            "licenseConcluded": "NOASSERTION",
            "licenseDeclared": license.unwrap_or_else(|| "NOASSERTION".to_owned()),
        });
        if self.source.is_some() {
            let locator = format!("pkg:cargo/{}@{}", self.name, self.version);
            package["externalRefs"] = json!([{"referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl", "referenceLocator": locator}]);
        }
        package
    }
}

/// The C library, which the program has inside.
fn libc() -> Value {
    // SAFETY: it takes nothing and returns a string that lives for ever.
    let version = unsafe { CStr::from_ptr(libc::gnu_get_libc_version()) }.to_string_lossy();
    json!({
        "SPDXID": id("glibc", &version),
        "name": "glibc",
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "LGPL-2.1-or-later",
    })
}

/// Only letters, digits, `.` and `-` may stand there.
fn id(name: &str, version: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    format!("SPDXRef-{name}-{version}").chars().map(allowed).collect()
}

fn relationship(from: &str, kind: &str, to: &str) -> Value {
    json!({"spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata() -> Metadata {
        let package = |name: &str, kind: &str, source: Option<&str>| {
            json!({"id": name, "name": name, "version": "1.0.0+a_b", "license": "MIT/Apache-2.0",
                "source": source, "manifest_path": "/src/Cargo.toml", "targets": [{"kind": [kind]}]})
        };
        let needs =
            |name: &str, kind: Option<&str>| json!({"pkg": name, "dep_kinds": [{"kind": kind}]});
        let text = json!({
            "packages": [
                package("leak-user", "lib", None),
                package("linked", "lib", Some("registry")),
                package("macro", "proc-macro", Some("registry")),
                package("of-the-macro", "lib", Some("registry")),
                package("built-with", "lib", Some("registry")),
                package("tested-with", "lib", Some("registry")),
            ],
            "resolve": {"nodes": [
                {"id": "leak-user", "deps": [needs("linked", None), needs("macro", None),
                    needs("built-with", Some("build")), needs("tested-with", Some("dev"))]},
                {"id": "linked", "deps": [needs("leak-user", None)]},
                {"id": "macro", "deps": [needs("of-the-macro", None)]},
            ]},
        });
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn what_is_linked_is_listed_and_nothing_else() {
        let packages = Packages::select(&metadata()).unwrap();
        let names: Vec<_> = packages.all.keys().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["leak-user", "linked"]);
        assert_eq!(packages.foreign().count(), 1);
    }

    #[test]
    fn the_document_is_complete_and_always_the_same() {
        let packages = Packages::select(&metadata()).unwrap();
        let text = packages.to_spdx(1_700_000_000).unwrap();
        assert_eq!(text, packages.to_spdx(1_700_000_000).unwrap());
        let document: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["creationInfo"]["created"], "2023-11-14T22:13:20Z");
        let linked = &document["packages"][1];
        assert_eq!(linked["SPDXID"], "SPDXRef-linked-1.0.0-a-b");
        assert_eq!(linked["licenseDeclared"], "MIT OR Apache-2.0");
        assert_eq!(linked["externalRefs"][0]["referenceLocator"], "pkg:cargo/linked@1.0.0+a_b");
        // The program, what is linked, the C library.
        assert_eq!(document["packages"].as_array().unwrap().len(), 3);
        assert_eq!(document["relationships"].as_array().unwrap().len(), 3);
    }
}
