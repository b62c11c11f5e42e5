//! The rules of the tree: which crate may use which (here), which module (`modules`), which names (`vocabulary`), and that
//! every command builds the same features (`features`). Changing a rule is a design decision: change the table in the same
//! commit.

mod features;
mod modules;
mod sources;
mod vocabulary;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// A crate and the workspace crates it may name in `[dependencies]`. Every member must have a row.
const ALLOWED_DEPENDENCIES: &[(&str, &[&str])] = &[
    ("spillway-protocol", &[]),
    ("spillway-process", &[]),
    ("spillway-guard", &[]),
    ("spillway-model", &["spillway-protocol"]),
    ("spillway-plan", &["spillway-protocol"]),
    ("spillway-cost", &["spillway-model", "spillway-plan"]),
    ("spillway-bus", &["spillway-protocol", "spillway-process", "spillway-model"]),
    ("spillway-storage", &["spillway-plan", "spillway-process", "spillway-guard"]),
    ("spillway-launchers", &["spillway-protocol", "spillway-process", "spillway-model", "spillway-cost"]),
    (
        "spillway-dispatcher",
        &[
            "spillway-protocol",
            "spillway-process",
            "spillway-guard",
            "spillway-plan",
            "spillway-cost",
            "spillway-bus",
            "spillway-launchers",
        ],
    ),
    ("spillway-ipc", &["spillway-plan", "spillway-process", "spillway-guard"]),
    (
        "spillway-runner",
        &[
            "spillway-protocol",
            "spillway-process",
            "spillway-guard",
            "spillway-plan",
            "spillway-bus",
            "spillway-storage",
            "spillway-ipc",
        ],
    ),
    ("spillway-media", &["spillway-plan", "spillway-process", "spillway-guard", "spillway-ipc"]),
    ("spillway-commands", &[]),
    ("spillway-setup", &["spillway-commands"]),
];

/// The harness uses every crate and no crate uses it.
const HARNESS: &str = "spillway-tests";

/// A crate and prefixes of packages that may appear nowhere below it.
const BANNED_BELOW: &[(&str, &[&str])] = &[
    ("spillway-protocol", &["tokio", "redis", "reqwest"]),
    ("spillway-model", &["tokio", "redis", "reqwest", "rand"]),
    ("spillway-plan", &["tokio", "redis", "reqwest"]),
    ("spillway-cost", &["tokio", "redis", "reqwest"]),
    ("spillway-guard", &["redis", "reqwest", "gstreamer", "aws-"]),
    (
        "spillway-dispatcher",
        &["gstreamer", "str0m", "livekit-ffi", "libwebrtc", "webrtc-sys", "chromiumoxide", "spillway-storage"],
    ),
    ("spillway-storage", &["gstreamer", "redis", "aws-sdk-ecs", "google-cloud-run", "spillway-launchers"]),
    (
        "spillway-runner",
        &[
            "gstreamer",
            "str0m",
            "chromiumoxide",
            "aws-sdk-ecs",
            "google-cloud-run",
            "spillway-launchers",
            "lambda_runtime",
        ],
    ),
    ("spillway-media", &["redis", "aws-sdk", "google-cloud", "azure", "spillway-bus", "spillway-storage"]),
    ("spillway-setup", &["gstreamer", "tokio", "reqwest"]),
];

/// What ships: normal dependencies, by package id.
struct DependencyGraph {
    name: BTreeMap<String, String>,
    below: BTreeMap<String, Vec<String>>,
    members: BTreeMap<String, String>,
}

/// What other platforms would need is not on this machine, and cannot be asked for offline.
fn host() -> String {
    let out = Command::new("rustc").arg("-vV").output().expect("rustc runs");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    text.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc names its host").to_owned()
}

fn dependency_graph() -> DependencyGraph {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline", "--all-features", "--filter-platform", &host()])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .expect("cargo metadata runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&out.stdout).expect("metadata is json");
    let list = |value: &serde_json::Value| value.as_array().expect("a list").clone();
    let text = |value: &serde_json::Value| value.as_str().expect("a string").to_owned();

    let name: BTreeMap<_, _> =
        list(&metadata["packages"]).iter().map(|package| (text(&package["id"]), text(&package["name"]))).collect();
    let members = list(&metadata["workspace_members"]).iter().map(|id| (name[&text(id)].clone(), text(id))).collect();
    let below = list(&metadata["resolve"]["nodes"])
        .iter()
        .map(|node| {
            // A null kind is a normal dependency; dev and build dependencies do not ship.
            let ships = |dep: &&serde_json::Value| list(&dep["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
            (text(&node["id"]), list(&node["deps"]).iter().filter(ships).map(|dep| text(&dep["pkg"])).collect())
        })
        .collect();
    DependencyGraph { name, below, members }
}

#[test]
fn every_member_has_its_allowed_dependencies_listed() {
    let known: BTreeSet<&str> = ALLOWED_DEPENDENCIES.iter().map(|(member, _)| *member).chain([HARNESS]).collect();
    let members = dependency_graph().members;
    let found: BTreeSet<&str> = members.keys().map(String::as_str).collect();
    assert_eq!(found, known);
}

#[test]
fn dependencies_point_only_downward() {
    let dependency_graph = dependency_graph();
    for (member, allowed) in ALLOWED_DEPENDENCIES {
        for below in &dependency_graph.below[&dependency_graph.members[*member]] {
            let below = dependency_graph.name[below].as_str();
            if dependency_graph.members.contains_key(below) {
                assert!(allowed.contains(&below), "{member} may not use {below}");
            }
        }
    }
}

#[test]
fn heavy_packages_stay_below_their_crates() {
    let dependency_graph = dependency_graph();
    for (member, banned) in BANNED_BELOW {
        let (mut seen, mut to_visit) = (BTreeSet::new(), vec![dependency_graph.members[*member].clone()]);
        while let Some(id) = to_visit.pop() {
            if !seen.insert(id.clone()) {
                continue;
            }
            let name = &dependency_graph.name[&id];
            for prefix in *banned {
                assert!(!name.starts_with(prefix), "{member} pulls in {name}");
            }
            to_visit.extend(dependency_graph.below[&id].iter().cloned());
        }
    }
}
