//! What the program is made of, by the Software Package Data Exchange specification 2.3.
//!
//! Not by cargo-sbom or cargo-cyclonedx, which would have to be installed first and do not know the
//! kernel programs and the C library inside.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::CStr,
    path::Path,
};

use anyhow::{Context as _, Result};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId, TargetKind};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::build::TARGET;

/// The packages whose code is in the program, by name and version.
pub(crate) struct Packages {
    all: BTreeMap<(String, String), Package>,
    version: String,
}

impl Packages {
    /// Those of the program and of the kernel programs that it embeds.
    pub(crate) fn of_program(workspace: &Path) -> Result<Self> {
        let options = ["--locked", "--filter-platform", TARGET].map(str::to_owned);
        let mut command = MetadataCommand::new();
        let metadata = command.current_dir(workspace).other_options(options).exec()?;
        Self::select(&metadata)
    }

    fn select(metadata: &Metadata) -> Result<Self> {
        let by_id: BTreeMap<&PackageId, &Package> =
            metadata.packages.iter().map(|package| (&package.id, package)).collect();
        let resolve = metadata.resolve.as_ref().context("cargo resolves no dependencies")?;
        let nodes: BTreeMap<_, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
        let roots = ["leak-user", "leak-ebpf"];
        let is_root = |package: &&&Package| roots.contains(&package.name.as_str());
        let mut wanted: Vec<&Package> = by_id.values().filter(is_root).copied().collect();
        let version = wanted.first().context("leak-user is no package here")?.version.to_string();
        let mut seen = BTreeSet::new();
        let mut all = BTreeMap::new();
        while let Some(package) = wanted.pop() {
            if !seen.insert(&package.id) || is_macro(package) {
                continue;
            }
            all.insert((package.name.to_string(), package.version.to_string()), package.clone());
            let dependencies = nodes.get(&package.id).into_iter().flat_map(|node| &node.deps);
            // Not those of the build or of tests.
            let linked = dependencies.filter(|dependency| {
                dependency.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal)
            });
            wanted.extend(linked.filter_map(|dependency| by_id.get(&dependency.pkg)));
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
        let mut packages: Vec<Value> = self.all.values().map(to_spdx).collect();
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

/// `NAME-VERSION`.
pub(super) fn label(package: &Package) -> String {
    format!("{}-{}", package.name, package.version)
}

/// Macros run in the compiler, and their own code stays there.
fn is_macro(package: &Package) -> bool {
    package.targets.iter().any(|target| target.kind.contains(&TargetKind::ProcMacro))
}

fn to_spdx(package: &Package) -> Value {
    let (name, version) = (package.name.as_str(), package.version.to_string());
    // The old way to write a choice.
    let license = package.license.as_ref().map(|license| license.replace('/', " OR "));
    let mut value = json!({
        "SPDXID": id(name, &version),
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": license.unwrap_or_else(|| "NOASSERTION".to_owned()),
    });
    if package.source.is_some() {
        let locator = format!("pkg:cargo/{name}@{version}");
        value["externalRefs"] = json!([{"referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl", "referenceLocator": locator}]);
    }
    value
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
            json!({"id": name, "name": name, "version": "1.0.0+a-b", "license": "MIT/Apache-2.0",
                "source": source, "manifest_path": "/src/Cargo.toml", "dependencies": [],
                "features": {},
                "targets": [{"kind": [kind], "crate_types": [kind], "name": name, "src_path": ""}]})
        };
        let needs = |name: &str, kind: Option<&str>| json!({"name": name, "pkg": name, "dep_kinds": [{"kind": kind, "target": null}]});
        let node = |name: &str, deps: &[Value]| json!({"id": name, "dependencies": [], "deps": deps, "features": []});
        let registry = Some("registry");
        let text = json!({
            "packages": [
                package("leak-user", "lib", None),
                package("linked", "lib", registry),
                package("macro", "proc-macro", registry),
                package("of-the-macro", "lib", registry),
                package("built-with", "lib", registry),
                package("tested-with", "lib", registry),
            ],
            "resolve": {"root": null, "nodes": [
                node("leak-user", &[needs("linked", None), needs("macro", None),
                    needs("built-with", Some("build")), needs("tested-with", Some("dev"))]),
                node("linked", &[needs("leak-user", None)]),
                node("macro", &[needs("of-the-macro", None)]),
            ]},
            "workspace_members": [], "workspace_root": "", "target_directory": "", "version": 1,
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
        assert_eq!(linked["externalRefs"][0]["referenceLocator"], "pkg:cargo/linked@1.0.0+a-b");
        // The program, what is linked, the C library.
        assert_eq!(document["packages"].as_array().unwrap().len(), 3);
        assert_eq!(document["relationships"].as_array().unwrap().len(), 3);
    }
}
