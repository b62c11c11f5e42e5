use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use spillway_commands::{Given, bench as measurements};

use crate::cache::Cache;
use crate::images::{self, Containers};
use crate::need::{self, Needs, Ready};
use crate::step;

/// What a recording needs: the rest of the workspace is left alone.
const PROGRAMS: &[&str] = &["spillway-dispatcher", "spillway-runner", "spillway-media"];

/// Beginnings of the variables that cargo sets for the one package it runs.
const PER_PACKAGE: [&str; 4] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_NAME", "CARGO_BIN_NAME"];

/// A real livekit-server, three publishers, a room composite and a track: files to look at.
pub fn demo(given: &Given) -> Result<()> {
    let ready = need::install(Needs::default())?;
    let mut build = cargo(&ready.cache);
    build.args(["build", "--workspace"]).args(only(&["spillway-demo"]));
    step::run("build Spillway (minutes the first time)", &mut build, &ready.cache.at("logs"))?;
    let program = ready.cache.target().join("debug/spillway-demo");
    step::show("demo", equip(Command::new(program).args(&given.arguments), &ready))
}

/// Everything that CI checks, in the order of what fails fastest.
pub fn verify(given: &Given) -> Result<()> {
    are_test_programs(given)?;
    let ready = need::install(need::TESTS)?;
    let containers = images::containers(&ready.cache)?;
    if let Containers::LeftOut(reason) = &containers {
        eprintln!("\nwhat is recorded in containers is left out, and counted as skipped: {reason}");
    }
    step::show("format", cargo(&ready.cache).args(["fmt", "--all", "--check"]))?;
    step::show("rules", cargo(&ready.cache).args(["test", "--quiet", "--workspace", "--test", "rules"]))?;
    step::show(
        "clippy",
        cargo(&ready.cache).args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    )?;
    // The end-to-end tests start the programs that this builds.
    step::show("build", cargo(&ready.cache).args(["build", "--quiet", "--workspace", "--all-targets"]))?;
    if containers == Containers::Usable {
        images::for_tests(&ready.cache)?;
    }
    step::show("tests", equip(cargo(&ready.cache).args(["test", "--workspace"]).args(&given.arguments), &ready))?;
    if let Containers::LeftOut(reason) = &containers {
        eprintln!("\nskipped: what is recorded in containers: {reason}");
    }
    Ok(())
}

/// Figures, never a verdict.
pub fn bench(given: &Given) -> Result<()> {
    let only_those = given.value("--only").unwrap_or_default();
    let runs = |name: &str| measurements::is_selected(name, only_those);
    let needs = Needs {
        stores: measurements::ON_STORES.iter().any(|name| runs(name)),
        browser: measurements::IN_A_BROWSER.iter().any(|name| runs(name)),
        streams: measurements::STREAMING.iter().any(|name| runs(name)),
        tests: false,
    };
    let ready = need::install(needs)?;
    let mut build = cargo(&ready.cache);
    build.args(["build", "--release", "--workspace"]).args(only(&["spillway-bench", "spillway-replay"]));
    step::run("build Spillway for release (minutes the first time)", &mut build, &ready.cache.at("logs"))?;
    let program = ready.cache.target().join("release/spillway-bench");
    step::show("bench", equip(Command::new(program).args(&given.arguments), &ready))
}

/// `--workspace` with `--bin`: the features are those that `cargo verify` builds with, so that neither builds anew what
/// the other has built.
fn only<'a>(programs: &[&'a str]) -> Vec<&'a str> {
    PROGRAMS.iter().chain(programs).flat_map(|program| ["--bin", *program]).collect()
}

/// `cargo test` would find out after everything has been installed.
fn are_test_programs(given: &Given) -> Result<()> {
    let asked: Vec<&str> = given.values("--test").collect();
    if asked.is_empty() {
        return Ok(());
    }
    let cache = Cache::open()?;
    let out = cargo(&cache).args(["metadata", "--no-deps", "--format-version", "1"]).output().context("ask cargo")?;
    ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let known = test_programs(&String::from_utf8_lossy(&out.stdout));
    match asked.iter().find(|name| !known.iter().any(|known| known == *name)) {
        Some(name) => bail!("there is no test program `{name}`; there are {}", known.join(", ")),
        None => Ok(()),
    }
}

/// From `cargo metadata`, whose targets begin with their kind.
fn test_programs(metadata: &str) -> Vec<String> {
    let after = metadata.split(r#"{"kind":["test"],"#).skip(1);
    let name = |target: &str| target.split_once(r#""name":""#)?.1.split_once('"').map(|(name, _)| name.to_owned());
    after.filter_map(name).collect()
}

pub fn cargo(cache: &Cache) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from));
    cargo.env("CARGO_TARGET_DIR", cache.target());
    // Set by the cargo that started us. `ring`'s build script tracks some: with them every `cargo verify` after a plain
    // `cargo test` would build it and the 30 crates above it anew, and the other way round.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| PER_PACKAGE.iter().any(|prefix| name.starts_with(prefix))) {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// Tells the harness where the parts are.
fn equip<'a>(command: &'a mut Command, ready: &Ready) -> &'a mut Command {
    command.env("SPILLWAY_CACHE", ready.cache.root()).env("LIVEKIT_SERVER", &ready.livekit_server);
    if let Some(python) = &ready.python {
        command.env("SPILLWAY_PUBLISHER_PYTHON", python.join("bin/python"));
    }
    if let Some(browser) = &ready.browser {
        command.env("SPILLWAY_NPM", browser);
    }
    if let Some(terraform) = &ready.terraform {
        command.env("TERRAFORM", terraform);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_programs_are_found_in_what_cargo_says() {
        let out = Command::new(env!("CARGO"))
            .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        let found = test_programs(&String::from_utf8_lossy(&out.stdout));
        for name in ["e2e", "rules", "bus"] {
            assert!(found.iter().any(|found| found == name), "no {name} in {found:?}");
        }
        assert!(!found.iter().any(|name| name.starts_with("spillway-")), "{found:?}");
    }
}
