//! Every Rust source of the workspace, parsed. The other rules look at what is in here.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders of the crates that ship, from the bottom up. The harness in `tests` is looked at for its names only.
pub const SHIPPED: &[&str] = &[
    "infra/protocol",
    "infra/process",
    "infra/guard",
    "infra/model",
    "infra/plan",
    "infra/cost",
    "infra/bus",
    "infra/storage",
    "infra/launchers",
    "dispatcher",
    "runner/ipc",
    "runner",
    "runner/media",
];

/// One file of `src/` of a crate that ships.
pub struct Source {
    /// Relative to the repository.
    pub path: String,
    /// Module path below the crate's root; empty for `lib.rs`.
    pub module: Vec<String>,
    pub syntax: syn::File,
}

pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The library of one crate: no binaries, no tests.
pub fn library(folder: &str) -> Vec<Source> {
    let root = repository().join(folder).join("src");
    let mut sources = Vec::new();
    for file in rust_files(&root) {
        let relative = file.strip_prefix(&root).expect("below the root").with_extension("");
        let mut module: Vec<String> =
            relative.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
        let is_test = |name: &String| name == "tests" || name.ends_with("_tests");
        if module.iter().any(is_test) || module.first().is_some_and(|first| first == "main" || first == "bin") {
            continue;
        }
        if module.last().is_some_and(|last| last == "mod" || (module.len() == 1 && last == "lib")) {
            module.pop();
        }
        sources.push(Source { path: format!("{folder}/src/{}", relative.display()), module, syntax: parse(&file) });
    }
    sources
}

/// Every Rust file of the repository with its text.
pub fn texts() -> Vec<(String, String)> {
    let root = repository();
    ["infra", "dispatcher", "runner", "tests"]
        .iter()
        .flat_map(|folder| rust_files(&root.join(folder)))
        .map(|file| {
            let text = fs::read_to_string(&file).expect("a source is text");
            (file.strip_prefix(&root).expect("below the root").display().to_string(), text)
        })
        .collect()
}

/// Whether an item is compiled for tests alone.
pub fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|condition| condition.is_ident("test"))
    })
}

fn parse(file: &Path) -> syn::File {
    let text = fs::read_to_string(file).expect("a source is text");
    syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn rust_files(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.insert(path);
        }
    }
    found
}
