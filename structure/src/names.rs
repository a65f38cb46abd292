//! The names that a file uses.

use std::collections::{BTreeMap, BTreeSet};

use syn::buffer::{Cursor, TokenBuffer};
use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};
use syn::{Attribute, ImplItemFn, Item, ItemMod, ItemUse, Macro, Meta, Token, UseTree, Visibility};

/// What a file says of other files and crates.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// Paths of this crate that its code names, from the root.
    pub(crate) paths: BTreeSet<Vec<String>>,
    /// Paths of this crate that it imports, by the names that they have in the file.
    pub(crate) imports: BTreeMap<String, Vec<String>>,
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
        let mut reader =
            Reader { names: Self::default(), by_name: BTreeSet::new(), module, children };
        reader.visit_file(file);
        reader.follow_imports()
    }
}

struct Reader {
    names: Names,
    /// Paths that begin with a name of the file or with that of another crate.
    by_name: BTreeSet<Vec<String>>,
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

    fn take(&mut self, path: Vec<String>) {
        if let [only] = path.as_slice()
            && matches!(only.as_str(), "crate" | "self" | "super")
        {
            return;
        }
        if let Some(path) = self.resolve(&path) {
            self.names.paths.insert(path);
        } else {
            self.by_name.insert(path);
        }
    }

    /// Resolves what begins with an imported name, once all imports are known. A name that is
    /// exported counts as used only where the file's own code names it, too. An import that no code
    /// names is for an attribute's text, or for documentation.
    fn follow_imports(mut self) -> Names {
        let Names { paths, imports, re_exports, crates, test_modules: _ } = &mut self.names;
        let is_named = |name: &String| self.by_name.iter().any(|path| path.first() == Some(name));
        paths.extend(imports.iter().filter(|(name, _)| !is_named(name)).map(|(_, to)| to.clone()));
        for path in &self.by_name {
            let Some((first, rest)) = path.split_first() else { continue };
            if let Some(base) = imports.get(first).or_else(|| re_exports.get(first)) {
                paths.insert(base.iter().chain(rest).cloned().collect());
            } else if !rest.is_empty() {
                crates.insert(first.clone());
            }
        }
        self.names
    }

    fn take_use(&mut self, tree: &UseTree, mut path: Vec<String>, exported: bool) {
        let mut leaf = |mut path: Vec<String>, name: &syn::Ident, shown: String| {
            if name != "self" {
                path.push(name.to_string());
            }
            match self.resolve(&path) {
                Some(target) if exported => {
                    self.names.re_exports.insert(shown, target);
                }
                // A trait is used without being named.
                Some(target) if shown == "_" => {
                    self.names.paths.insert(target);
                }
                Some(target) => {
                    self.names.imports.insert(shown, target);
                }
                None => self.take(path),
            }
        };
        match tree {
            UseTree::Path(part) => {
                path.push(part.ident.to_string());
                self.take_use(&part.tree, path, exported);
            }
            UseTree::Name(name) => {
                let shown = if name.ident == "self" { path.last().cloned() } else { None };
                leaf(path, &name.ident, shown.unwrap_or_else(|| name.ident.to_string()));
            }
            UseTree::Rename(name) => leaf(path, &name.ident, name.rename.to_string()),
            UseTree::Glob(_) => self.take(path),
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.take_use(tree, path.clone(), exported);
                }
            }
        }
    }

    /// Takes the paths in a macro's tokens, which may be in any language.
    fn take_tokens(&mut self, mut at: Cursor<'_>) {
        let (mut path, mut separator) = (Vec::new(), String::new());
        while !at.eof() {
            if let Some((punctuation, next)) = at.punct() {
                separator.push(punctuation.as_char());
                at = next;
                continue;
            }
            if separator != "::" {
                self.take_from_tokens(&mut path);
            }
            if let Some((ident, next)) = at.ident() {
                // What follows a dot is a field or a method.
                if separator != "." {
                    path.push(ident.to_string());
                }
                at = next;
            } else if let Some((inner, _, _, next)) = at.any_group() {
                self.take_tokens(inner);
                at = next;
            } else if let Some((_, next)) = at.token_tree() {
                at = next;
            }
            separator.clear();
        }
        self.take_from_tokens(&mut path);
    }

    fn take_from_tokens(&mut self, path: &mut Vec<String>) {
        if !path.is_empty() {
            self.take(std::mem::take(path));
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
        self.take(parts);
        visit::visit_path(self, path);
    }

    // Who may see a thing is no use of it.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    fn visit_macro(&mut self, called: &'ast Macro) {
        self.take_tokens(TokenBuffer::new2(called.tokens.clone()).begin());
        visit::visit_macro(self, called);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        if !is_for_tests(&function.attrs) {
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if let Ok(list) = attribute.meta.require_list()
            && attribute.path().is_ident("derive")
        {
            let paths = list.parse_args_with(Punctuated::<syn::Path, Token![,]>::parse_terminated);
            paths.iter().flatten().for_each(|path| self.visit_path(path));
        }
        visit::visit_attribute(self, attribute);
    }
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    let mut conditions = attributes.iter().filter(|attribute| attribute.path().is_ident("cfg"));
    conditions.any(|condition| condition.parse_args().is_ok_and(|condition| needs_test(&condition)))
}

/// Whether a condition holds in tests only.
fn needs_test(condition: &Meta) -> bool {
    let Meta::List(list) = condition else { return condition.path().is_ident("test") };
    let parts = list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated);
    let parts = parts.unwrap_or_default();
    match list.path.get_ident().map(ToString::to_string).as_deref() {
        Some("all") => parts.iter().any(needs_test),
        Some("any") => parts.iter().all(needs_test),
        _ => false,
    }
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
