//! What is built once is not built again: a dependency that has more features in tests than in programs is another
//! dependency to cargo, and so is everything above it.

use std::collections::BTreeSet;
use std::process::Command;

/// Packages with their features, as cargo would build them for the whole workspace.
fn built(edges: &str) -> BTreeSet<String> {
    let out = Command::new(env!("CARGO"))
        .args(["tree", "--workspace", "--offline", "--prefix", "none", "--no-dedupe", "--format", "{p}|{f}"])
        .args(["--edges", edges])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .expect("cargo tree runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).lines().map(str::to_owned).collect()
}

/// `cargo demo` builds programs; `cargo verify` builds tests too, and starts the same programs.
#[test]
fn verify_goes_on_with_what_demo_has_built() {
    let (programs, all) = (built("normal,build"), built("normal,build,dev"));
    assert!(programs.len() > 100, "cargo tree lists what there is");
    let again: Vec<_> = programs.difference(&all).collect();
    assert!(again.is_empty(), "built twice, as tests switch more on; switch it on in tests/Cargo.toml too: {again:?}");
}
