//! The names that a file uses.

use std::collections::{BTreeMap, BTreeSet};

use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, ItemUse, UseTree, Visibility};

/// What a file says of other files and crates.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// Paths of this crate that it uses, from the root.
    pub(crate) paths: BTreeSet<Vec<String>>,
    /// Names that it exports and that are defined elsewhere in this crate.
    pub(crate) re_exports: BTreeMap<String, Vec<String>>,
    /// Other crates that it names.
    pub(crate) crates: BTreeSet<String>,
    /// Modules that exist for tests only.
    pub(crate) test_modules: Vec<String>,
}

impl Names {
    pub(crate) fn of(file: &syn::File, module: &str) -> Self {
        let module: Vec<String> =
            module.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect();
        let is_mod = |item: &Item| match item {
            Item::Mod(item) if item.content.is_none() => Some(item.ident.to_string()),
            _ => None,
        };
        let children = file.items.iter().filter_map(is_mod).collect();
        let mut reader = Reader { names: Self::default(), module, children };
        reader.visit_file(file);
        reader.names
    }
}

struct Reader {
    names: Names,
    module: Vec<String>,
    /// Modules in files of their own that this file declares.
    children: BTreeSet<String>,
}

impl Reader {
    /// A path from the root of this crate; `None` when it leads to another crate or stays in the
    /// file.
    fn resolve(&self, path: &[String]) -> Option<Vec<String>> {
        let mut base = self.module.clone();
        let rest = match path.first()?.as_str() {
            "crate" => {
                base.clear();
                &path[1..]
            }
            "self" => &path[1..],
            "super" => {
                let ups = path.iter().take_while(|part| *part == "super").count();
                base.truncate(base.len().saturating_sub(ups));
                &path[ups..]
            }
            first if self.children.contains(first) => path,
            _ => return None,
        };
        base.extend(rest.iter().cloned());
        Some(base)
    }

    fn take(&mut self, path: &[String]) {
        if let Some(path) = self.resolve(path) {
            self.names.paths.insert(path);
        } else if let [first, _, ..] = path {
            self.names.crates.insert(first.clone());
        }
    }

    fn take_use(&mut self, tree: &UseTree, mut path: Vec<String>, exported: bool) {
        let mut leaf = |mut path: Vec<String>, name: &syn::Ident, shown: &syn::Ident| {
            if name != "self" {
                path.push(name.to_string());
            }
            match self.resolve(&path) {
                Some(target) if exported => {
                    self.names.re_exports.insert(shown.to_string(), target);
                }
                _ => self.take(&path),
            }
        };
        match tree {
            UseTree::Path(part) => {
                path.push(part.ident.to_string());
                self.take_use(&part.tree, path, exported);
            }
            UseTree::Name(name) => leaf(path, &name.ident, &name.ident),
            UseTree::Rename(name) => leaf(path, &name.ident, &name.rename),
            UseTree::Glob(_) => self.take(&path),
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.take_use(tree, path.clone(), exported);
                }
            }
        }
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_for_tests(attributes(item)) {
            visit::visit_item(self, item);
        } else if let Item::Mod(item) = item {
            let mut path = self.module.clone();
            path.push(item.ident.to_string());
            self.names.test_modules.push(path.join("::"));
        }
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        // What is nested in a file belongs to the file; `super` there is the file itself.
        if let Some((_, items)) = &item.content {
            self.module.push(item.ident.to_string());
            items.iter().for_each(|item| self.visit_item(item));
            self.module.pop();
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let exported = !matches!(item.vis, Visibility::Inherited);
        self.take_use(&item.tree, Vec::new(), exported);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<String> = path.segments.iter().map(|part| part.ident.to_string()).collect();
        if parts.len() > 1 {
            self.take(&parts);
        }
        visit::visit_path(self, path);
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if let Ok(list) = attribute.meta.require_list()
            && attribute.path().is_ident("derive")
        {
            let paths = list.parse_args_with(
                syn::punctuated::Punctuated::<syn::Path, syn::Token![,]>::parse_terminated,
            );
            paths.iter().flatten().for_each(|path| self.visit_path(path));
        }
        visit::visit_attribute(self, attribute);
    }
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let list = attribute.path().is_ident("cfg").then(|| attribute.meta.require_list().ok());
        list.flatten().is_some_and(|list| {
            list.tokens.to_string().split(|c: char| !c.is_alphanumeric()).any(|word| word == "test")
        })
    })
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}
