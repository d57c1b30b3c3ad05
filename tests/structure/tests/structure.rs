//! Data flows one way through the modules of `delouse/src`: each layer uses only those before it in [`LAYERS`], and no two
//! files use one another, directly or through others.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

/// The layers, from the one that uses no other to the program's side. CONTRIBUTING.md says what each is for.
const LAYERS: &[&[&str]] = &[
    // For tests only.
    &["isolation"],
    &["host"],
    &["snapshot"],
    &["debuginfo"],
    &["threads"],
    &["tasks"],
    &["waits"],
    &["finding_change"],
    &["report"],
    &["targets"],
    &["own_threads", "registry"],
    &["inspector"],
    &["offline"],
    &["config", "dispatch", "dump_error", "duration", "finding_event", "started"],
    &["settings", "log", "shutdown", "stderr_dump", "signal_listener", "panic_hook"],
    &["watch"],
    &["server", "no_server"],
    &["runtime", "dump", "disabled"],
    &["test_run"],
    &["cli", "bin"],
    // The root re-exports; nothing is defined there.
    &[""],
];

/// A module: the names from the crate's root to it.
type Module = Vec<String>;

/// What is read of one file.
#[derive(Default)]
struct File {
    module: Module,
    /// Absolute paths that the file names, with the last name for messages.
    names: Vec<Module>,
    /// Names that it re-exports, and what they stand for.
    exports: Vec<(Module, Module)>,
}

impl File {
    fn read(module: Module, text: &str) -> Self {
        let mut file = Self { module, ..Self::default() };
        let parsed = syn::parse_file(text).unwrap_or_else(|error| panic!("{:?}: {error}", file.module));
        file.visit_file(&parsed);
        file
    }

    /// The path from the root, of one that begins with `crate`, `super` or `self`.
    fn absolute(&self, path: &[String]) -> Option<Module> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => Some(rest.to_vec()),
            "self" => Some([&self.module, rest].concat()),
            "super" => {
                let supers = path.iter().take_while(|name| *name == "super").count();
                let parent = self.module.get(..self.module.len().checked_sub(supers)?)?;
                Some([parent, &path[supers..]].concat())
            }
            _ => None,
        }
    }

    fn take_use(&mut self, prefix: &[String], tree: &syn::UseTree, is_export: bool) {
        let named = |name: &syn::Ident| [prefix, &[name.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.take_use(&named(&path.ident), &path.tree, is_export),
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.take_use(prefix, tree, is_export));
            }
            syn::UseTree::Name(name) if name.ident == "self" => self.take_path(prefix, None, is_export),
            syn::UseTree::Name(name) => {
                self.take_path(&named(&name.ident), Some(name.ident.to_string()), is_export);
            }
            syn::UseTree::Rename(rename) => {
                self.take_path(&named(&rename.ident), Some(rename.rename.to_string()), is_export);
            }
            syn::UseTree::Glob(_) => self.take_path(prefix, None, is_export),
        }
    }

    /// `exported`: the name under which a re-export makes the path known.
    fn take_path(&mut self, path: &[String], exported: Option<String>, is_export: bool) {
        let absolute = match self.absolute(path) {
            // `pub use child::Item`
            None if is_export => Some([self.module.as_slice(), path].concat()),
            absolute => absolute,
        };
        match (absolute, exported) {
            (Some(absolute), Some(name)) if is_export => {
                self.exports.push(([self.module.as_slice(), &[name]].concat(), absolute));
            }
            (Some(absolute), _) => self.names.push(absolute),
            (None, _) => {}
        }
    }

    /// Paths among tokens: macros are not parsed further.
    fn take_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Ident(ident) if colons == 2 && !path.is_empty() => {
                    path.push(ident.to_string());
                    colons = 0;
                }
                other => {
                    self.take_path(&std::mem::take(&mut path), None, false);
                    colons = 0;
                    match other {
                        TokenTree::Ident(ident) => path.push(ident.to_string()),
                        TokenTree::Group(group) => self.take_tokens(group.stream()),
                        _ => {}
                    }
                }
            }
        }
        self.take_path(&path, None, false);
    }
}

/// Whether an item is there in tests only.
fn is_of_tests(attributes: &[syn::Attribute]) -> bool {
    let is_test = |attribute: &syn::Attribute| {
        let syn::Meta::List(list) = &attribute.meta else { return attribute.path().is_ident("test") };
        let words = list.tokens.to_string();
        attribute.path().is_ident("cfg") && (words == "test" || words.starts_with("all (test"))
    };
    attributes.iter().any(is_test)
}

impl<'ast> Visit<'ast> for File {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes: &[syn::Attribute] = match item {
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Static(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            _ => &[],
        };
        match item {
            _ if is_of_tests(attributes) => {}
            // An inline module: its names count as the file's.
            syn::Item::Mod(inline) if inline.content.is_some() => {
                self.module.push(inline.ident.to_string());
                visit::visit_item(self, item);
                self.module.pop();
            }
            syn::Item::Use(item) => {
                let is_export = !matches!(item.vis, syn::Visibility::Inherited);
                self.take_use(&[], &item.tree, is_export);
            }
            other => visit::visit_item(self, other),
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if !is_of_tests(&function.attrs) {
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.take_path(&names, None, false);
        visit::visit_path(self, path);
    }

    /// `pub(super)` uses nothing.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_macro(&mut self, of: &'ast syn::Macro) {
        self.take_tokens(of.tokens.clone());
    }
}

/// The modules that each module uses, with the names that lead there.
type Uses = BTreeMap<Module, BTreeMap<Module, BTreeSet<String>>>;

fn uses(files: &[File]) -> Uses {
    let modules: BTreeSet<&Module> = files.iter().map(|file| &file.module).collect();
    let exports: BTreeMap<&Module, &Module> =
        files.iter().flat_map(|file| file.exports.iter().map(|(name, of)| (name, of))).collect();
    let home = |path: &Module| {
        let mut path = path.clone();
        for _ in 0..8 {
            // An export may stand anywhere in the path: `report::TasksAnswer::new`.
            let found = (1..=path.len()).rev().find_map(|length| {
                let of = exports.get(&path[..length].to_vec())?;
                Some([of.as_slice(), &path[length..]].concat())
            });
            let Some(found) = found else { break };
            path = found;
        }
        (0..=path.len()).rev().map(|length| path[..length].to_vec()).find(|prefix| modules.contains(prefix))
    };
    let mut uses: Uses = files.iter().map(|file| (file.module.clone(), BTreeMap::new())).collect();
    for file in files {
        let Some(used) = uses.get_mut(&file.module) else { continue };
        for path in &file.names {
            let Some(home) = home(path).filter(|home| *home != file.module && !home.is_empty()) else {
                continue;
            };
            used.entry(home).or_default().extend(path.last().cloned());
        }
    }
    uses
}

fn layer(module: &Module) -> Option<usize> {
    let name = module.first().map_or("", String::as_str);
    LAYERS.iter().position(|layer| layer.contains(&name))
}

/// Uses of a layer by one before it.
fn upward(uses: &Uses) -> Vec<String> {
    let mut found = Vec::new();
    for (from, used) in uses {
        let Some(own) = layer(from) else {
            found.push(format!("{} is in no layer", from.join("/")));
            continue;
        };
        for (to, names) in used.iter().filter(|(to, _)| layer(to).is_some_and(|layer| layer > own)) {
            found.push(format!("{} uses {}: {names:?}", from.join("/"), to.join("/")));
        }
    }
    found
}

/// Files that use one another: each circle once, as the modules on a way round.
fn circles(uses: &Uses) -> Vec<String> {
    /// Whether `to` can be reached from `from`, and through which modules.
    fn way(uses: &Uses, from: &Module, to: &Module, seen: &mut BTreeSet<Module>) -> Option<Vec<Module>> {
        for next in uses.get(from)?.keys() {
            if next == to {
                return Some(vec![from.clone()]);
            }
            if seen.insert(next.clone())
                && let Some(mut rest) = way(uses, next, to, seen)
            {
                rest.push(from.clone());
                return Some(rest);
            }
        }
        None
    }
    let mut found = Vec::new();
    let mut in_circles: BTreeSet<Module> = BTreeSet::new();
    for module in uses.keys() {
        if in_circles.contains(module) {
            continue;
        }
        if let Some(mut round) = way(uses, module, module, &mut BTreeSet::new()) {
            round.reverse();
            in_circles.extend(round.iter().cloned());
            found.push(round.iter().map(|module| module.join("/")).collect::<Vec<_>>().join(" -> "));
        }
    }
    found
}

/// The files below `directory` that are no tests.
fn read(directory: &Path, module: &Module, files: &mut Vec<File>) {
    const TESTS: &[&str] = &["tests", "test", "fuzz", "bench", "fixtures", "made_up"];
    let mut entries: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if TESTS.contains(&name.as_str()) {
            continue;
        }
        let inner = if ["mod", "lib"].contains(&name.as_str()) {
            module.clone()
        } else {
            [module.as_slice(), &[name]].concat()
        };
        if path.is_dir() {
            read(&path, &inner, files);
        } else {
            files.push(File::read(inner, &fs::read_to_string(&path).unwrap()));
        }
    }
}

fn sources() -> Vec<File> {
    let mut files = Vec::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../delouse/src"), &Module::new(), &mut files);
    assert!(files.len() > 150, "{} files", files.len());
    files
}

fn module(path: &str) -> Module {
    path.split('/').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[test]
fn layers_use_only_those_before_them() {
    assert_eq!(upward(&uses(&sources())), Vec::<String>::new());
}

#[test]
fn no_files_use_one_another() {
    assert_eq!(circles(&uses(&sources())), Vec::<String>::new());
}

#[test]
fn an_upward_use_is_found_however_it_is_written() {
    let mut files = sources();
    let before = upward(&uses(&files)).len();
    let written = [
        "use crate::report::TasksAnswer;",
        "use super::super::report::{TasksAnswer as Answer};",
        "fn f() -> crate::report::TasksAnswer { todo() }",
        "fn f() { println!(\"{}\", crate::report::tasks::TasksAnswer::new()) }",
    ];
    for text in written {
        files.push(File::read(module("debuginfo/added"), text));
        let found = upward(&uses(&files));
        assert_eq!(found.len(), before + 1, "{text}: {found:?}");
        files.pop();
    }
    for text in
        ["#[cfg(test)]\nmod tests { use crate::report::TasksAnswer; }", "// use crate::report::TasksAnswer;"]
    {
        files.push(File::read(module("debuginfo/added"), text));
        assert_eq!(upward(&uses(&files)).len(), before, "{text}");
        files.pop();
    }
}

#[test]
fn a_circle_is_found_through_others_and_through_re_exports() {
    let file = |name: &str, text: &str| File::read(module(name), text);
    let files = [
        file("tasks", "pub(crate) use one::One;"),
        file("tasks/one", "use super::two::Two;"),
        file("tasks/two", "use crate::tasks::three;"),
        file("tasks/three", "fn f(_: crate::tasks::One) {}"),
        file("tasks/four", "use super::One;"),
    ];
    assert_eq!(circles(&uses(&files)), ["tasks/one -> tasks/two -> tasks/three"]);
}
