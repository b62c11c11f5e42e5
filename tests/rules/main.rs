//! The building code: which room may open a door to which. Changing a rule is a design decision: change the table in
//! the same commit.

mod features;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// A crate and the workspace crates it may name in `[dependencies]`. Every member must have a row.
const DOORS: &[(&str, &[&str])] = &[
    ("spillway-protocol", &[]),
    ("spillway-process", &[]),
    ("spillway-plan", &["spillway-protocol"]),
    ("spillway-cost", &["spillway-plan"]),
    ("spillway-bus", &["spillway-protocol", "spillway-process"]),
    ("spillway-storage", &["spillway-plan", "spillway-process"]),
    ("spillway-launchers", &["spillway-protocol", "spillway-process", "spillway-cost"]),
    (
        "spillway-dispatcher",
        &[
            "spillway-protocol",
            "spillway-process",
            "spillway-plan",
            "spillway-cost",
            "spillway-bus",
            "spillway-launchers",
        ],
    ),
    ("spillway-spool", &["spillway-plan", "spillway-process"]),
    (
        "spillway-runner",
        &[
            "spillway-protocol",
            "spillway-process",
            "spillway-plan",
            "spillway-bus",
            "spillway-storage",
            "spillway-spool",
        ],
    ),
    ("spillway-media", &["spillway-plan", "spillway-process", "spillway-spool"]),
    ("spillway-commands", &[]),
    ("spillway-setup", &["spillway-commands"]),
];

/// The stage looks at everything and nothing looks at it.
const STAGE: &str = "spillway-tests";

/// A crate and prefixes of packages that may appear nowhere below it.
const BANNED_BELOW: &[(&str, &[&str])] = &[
    ("spillway-protocol", &["tokio", "redis", "reqwest"]),
    ("spillway-plan", &["tokio", "redis", "reqwest"]),
    ("spillway-cost", &["tokio", "redis", "reqwest"]),
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
struct Building {
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

fn building() -> Building {
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
    Building { name, below, members }
}

#[test]
fn every_member_has_its_doors_written_down() {
    let known: BTreeSet<&str> = DOORS.iter().map(|(room, _)| *room).chain([STAGE]).collect();
    let members = building().members;
    let found: BTreeSet<&str> = members.keys().map(String::as_str).collect();
    assert_eq!(found, known);
}

#[test]
fn doors_open_only_downward() {
    let building = building();
    for (room, allowed) in DOORS {
        for below in &building.below[&building.members[*room]] {
            let below = building.name[below].as_str();
            if building.members.contains_key(below) {
                assert!(allowed.contains(&below), "{room} may not use {below}");
            }
        }
    }
}

#[test]
fn heavy_machines_stay_in_their_building() {
    let building = building();
    for (room, banned) in BANNED_BELOW {
        let (mut seen, mut to_visit) = (BTreeSet::new(), vec![building.members[*room].clone()]);
        while let Some(id) = to_visit.pop() {
            if !seen.insert(id.clone()) {
                continue;
            }
            let name = &building.name[&id];
            for prefix in *banned {
                assert!(!name.starts_with(prefix), "{room} pulls in {name}");
            }
            to_visit.extend(building.below[&id].iter().cloned());
        }
    }
}
