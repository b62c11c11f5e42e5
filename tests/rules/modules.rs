//! Which module of a crate uses which: arrows go one way, so no module may use itself through others.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

use crate::sources::{self, SHIPPED, Source};

type Module = Vec<String>;

#[test]
fn no_module_uses_itself_through_others() {
    let mut wrong = Vec::new();
    for folder in SHIPPED {
        let graph = Graph::of(&sources::library(folder));
        for cycle in graph.cycles() {
            wrong.push(format!("{folder}: {}", graph.describe(&cycle)));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// `lib.rs` lists a crate's modules from the top down: the list is the table of allowed edges.
#[test]
fn a_module_uses_only_what_is_listed_below_it() {
    let mut wrong = Vec::new();
    for folder in SHIPPED {
        let library = sources::library(folder);
        let listed: Vec<String> =
            library.iter().filter(|source| source.module.is_empty()).flat_map(|lib| modules(&lib.syntax)).collect();
        assert!(!listed.is_empty(), "{folder}: no lib.rs with modules");
        let place = |module: &Module| module.first().and_then(|top| listed.iter().position(|name| name == top));
        for (from, to, names) in Graph::of(&library).edges() {
            if let (Some(user), Some(used)) = (place(from), place(to))
                && user > used
            {
                let names = names.iter().cloned().collect::<Vec<_>>().join(", ");
                wrong.push(format!("{folder}: {} uses {names} of {} above it", spelled(from), spelled(to)));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn modules(lib: &syn::File) -> Vec<String> {
    let modules = lib.items.iter().filter_map(|item| match item {
        syn::Item::Mod(item) if !sources::is_for_tests(&item.attrs) => Some(item.ident.to_string()),
        _ => None,
    });
    modules.collect()
}

/// What each module uses of which other module.
struct Graph {
    uses: BTreeMap<Module, BTreeMap<Module, BTreeSet<String>>>,
}

impl Graph {
    fn of(sources: &[Source]) -> Self {
        let known: BTreeSet<Module> = sources.iter().map(|source| source.module.clone()).collect();
        let mut exports: BTreeMap<Module, BTreeMap<String, Module>> = BTreeMap::new();
        let mut paths: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
        for source in sources {
            let mut names = Names { known: &known, module: source.module.clone(), exports: vec![], paths: vec![] };
            names.visit_file(&source.syntax);
            exports.entry(source.module.clone()).or_default().extend(names.exports);
            paths.entry(source.module.clone()).or_default().extend(names.paths);
        }
        let mut uses: BTreeMap<Module, BTreeMap<Module, BTreeSet<String>>> = BTreeMap::new();
        for (module, paths) in paths {
            let edges = uses.entry(module.clone()).or_default();
            for path in paths {
                let target = owner(&path, &known, &exports);
                if target != module {
                    edges.entry(target).or_default().insert(path.last().cloned().unwrap_or_default());
                }
            }
        }
        Self { uses }
    }

    fn edges(&self) -> impl Iterator<Item = (&Module, &Module, &BTreeSet<String>)> {
        self.uses.iter().flat_map(|(from, edges)| edges.iter().map(move |(to, names)| (from, to, names)))
    }

    fn reachable(&self, from: &Module) -> BTreeSet<Module> {
        let (mut seen, mut to_visit) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(module) = to_visit.pop() {
            for next in self.uses.get(&module).into_iter().flat_map(BTreeMap::keys) {
                if seen.insert(next.clone()) {
                    to_visit.push(next.clone());
                }
            }
        }
        seen
    }

    /// Sets of modules that reach one another.
    fn cycles(&self) -> BTreeSet<BTreeSet<Module>> {
        let reach: BTreeMap<&Module, BTreeSet<Module>> =
            self.uses.keys().map(|module| (module, self.reachable(module))).collect();
        reach
            .iter()
            .filter(|(module, reached)| reached.contains(**module))
            .map(|(module, reached)| {
                let back = |other: &&Module| reach.get(*other).is_some_and(|others| others.contains(*module));
                reached.iter().filter(back).cloned().collect()
            })
            .collect()
    }

    fn describe(&self, cycle: &BTreeSet<Module>) -> String {
        let inside =
            |(from, to, _): &(&Module, &Module, &BTreeSet<String>)| cycle.contains(*from) && cycle.contains(*to);
        let edges = self.edges().filter(inside).map(|(from, to, names)| {
            format!(
                "    {} uses {} of {}",
                spelled(from),
                names.iter().cloned().collect::<Vec<_>>().join(", "),
                spelled(to)
            )
        });
        format!("{} modules\n{}", cycle.len(), edges.collect::<Vec<_>>().join("\n"))
    }
}

fn spelled(module: &Module) -> String {
    if module.is_empty() { "lib".to_owned() } else { module.join("::") }
}

/// The module whose file defines what a path names: the longest prefix that is a module, through re-exports.
fn owner(path: &Module, known: &BTreeSet<Module>, exports: &BTreeMap<Module, BTreeMap<String, Module>>) -> Module {
    let mut path = path.clone();
    // A chain of re-exports is short; the bound is against one that goes round.
    for _ in 0..8 {
        let length = (0..=path.len()).rev().find(|length| known.contains(&path[..*length])).unwrap_or(0);
        let module = path[..length].to_vec();
        let exported = path.get(length).and_then(|name| exports.get(&module)?.get(name));
        match exported {
            Some(target) if *target != path => path = target.iter().chain(&path[length + 1..]).cloned().collect(),
            _ => return module,
        }
    }
    path
}

/// Paths into the crate that a file names, and what it re-exports.
struct Names<'a> {
    known: &'a BTreeSet<Module>,
    module: Module,
    exports: Vec<(String, Module)>,
    paths: Vec<Module>,
}

impl Names<'_> {
    /// From the crate's root; `None` for another crate's path or a local name.
    fn absolute(&self, path: &[String]) -> Option<Module> {
        let mut from = self.module.clone();
        let mut rest = path;
        match path.first()?.as_str() {
            "crate" => return Some(path[1..].to_vec()),
            "self" => rest = &path[1..],
            "super" => {
                while rest.first().is_some_and(|first| first == "super") {
                    from.pop();
                    rest = &rest[1..];
                }
            }
            first => {
                let child: Module = self.module.iter().cloned().chain([first.to_owned()]).collect();
                if !self.known.contains(&child) {
                    return None;
                }
            }
        }
        from.extend(rest.iter().cloned());
        Some(from)
    }

    fn tree(&mut self, tree: &syn::UseTree, before: &mut Vec<String>, exported: bool) {
        match tree {
            syn::UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.tree(&path.tree, before, exported);
                before.pop();
            }
            syn::UseTree::Name(name) => self.leaf(before, &name.ident.to_string(), None, exported),
            syn::UseTree::Rename(rename) => {
                self.leaf(before, &rename.ident.to_string(), Some(rename.rename.to_string()), exported);
            }
            syn::UseTree::Glob(_) => {
                let (path, module) = (before.join("::"), spelled(&self.module));
                assert!(!exported, "{module}: `pub use {path}::*` hides which module a name belongs to: name them");
                self.paths.extend(self.absolute(before));
            }
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.tree(tree, before, exported)),
        }
    }

    fn leaf(&mut self, before: &[String], name: &str, alias: Option<String>, exported: bool) {
        let path: Vec<String> = before.iter().cloned().chain((name != "self").then(|| name.to_owned())).collect();
        let Some(path) = self.absolute(&path) else { return };
        if exported {
            self.exports.push((alias.unwrap_or_else(|| name.to_owned()), path));
        } else {
            self.paths.push(path);
        }
    }

    fn path(&mut self, segments: &[String]) {
        if segments.len() > 1
            && let Some(path) = self.absolute(segments)
        {
            self.paths.push(path);
        }
    }

    /// Paths inside of a macro's arguments.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut segments: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(identifier) => {
                    if colons != 2 {
                        self.path(&segments);
                        segments.clear();
                    }
                    segments.push(identifier.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                other => {
                    self.path(&segments);
                    segments.clear();
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.tokens(group.stream());
                    }
                }
            }
        }
        self.path(&segments);
    }
}

impl<'ast> Visit<'ast> for Names<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if sources::is_for_tests(&item.attrs) {
            return;
        }
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let exported = !matches!(item.vis, syn::Visibility::Inherited);
        self.tree(&item.tree, &mut Vec::new(), exported);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.path(&segments);
        visit::visit_path(self, path);
    }

    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        visit::visit_macro(self, item);
        self.tokens(item.tokens.clone());
    }
}
