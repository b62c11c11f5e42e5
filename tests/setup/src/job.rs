use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::cache::Cache;
use crate::images;
use crate::need::{self, Purpose, Ready};
use crate::step;

/// A real livekit-server, three publishers, a room composite and a track: files to look at.
pub fn demo(arguments: &[String]) -> Result<()> {
    let ready = need::install(Purpose::Demo)?;
    step::run(
        "build Spillway (minutes the first time)",
        cargo(&ready.cache).args(["build", "--workspace"]),
        &ready.cache.at("logs"),
    )?;
    let program = ready.cache.target().join("debug/spillway-demo");
    step::show("demo", equip(Command::new(program).args(arguments), &ready))
}

/// Everything that CI checks, in the order of what fails fastest.
pub fn verify(arguments: &[String]) -> Result<()> {
    let ready = need::install(Purpose::Test)?;
    step::show("format", cargo(&ready.cache).args(["fmt", "--all", "--check"]))?;
    step::show("rules", cargo(&ready.cache).args(["test", "--quiet", "--workspace", "--test", "rules"]))?;
    step::show(
        "clippy",
        cargo(&ready.cache).args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    )?;
    // The end-to-end tests start the programs that this builds.
    step::show("build", cargo(&ready.cache).args(["build", "--quiet", "--workspace", "--all-targets"]))?;
    if images::for_tests(&ready.cache)?.is_none() {
        eprintln!("no Docker answers and only root may start one: nothing is recorded inside the image");
    }
    step::show("tests", equip(cargo(&ready.cache).args(["test", "--workspace"]).args(arguments), &ready))
}

/// Figures, never a verdict.
pub fn bench(arguments: &[String]) -> Result<()> {
    let ready = need::install(Purpose::Demo)?;
    let build = ["build", "--workspace", "--release"];
    step::run(
        "build Spillway for release (minutes the first time)",
        cargo(&ready.cache).args(build),
        &ready.cache.at("logs"),
    )?;
    let program = ready.cache.target().join("release/spillway-bench");
    step::show("bench", equip(Command::new(program).args(arguments), &ready))
}

pub fn cargo(cache: &Cache) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from));
    cargo.env("CARGO_TARGET_DIR", cache.target());
    // Set by the cargo that started us; a nested one must find its own.
    for name in ["CARGO_MANIFEST_DIR", "CARGO_PKG_NAME", "CARGO_PKG_VERSION", "CARGO_CRATE_NAME", "CARGO_BIN_NAME"] {
        cargo.env_remove(name);
    }
    cargo
}

/// Tells the stage where the parts are.
fn equip<'a>(command: &'a mut Command, ready: &Ready) -> &'a mut Command {
    command.env("SPILLWAY_CACHE", ready.cache.root()).env("LIVEKIT_SERVER", &ready.livekit_server);
    if let Some(python) = &ready.python {
        command.env("SPILLWAY_PUBLISHER_PYTHON", python.join("bin/python"));
    }
    if let Some(browser) = &ready.browser {
        command.env("SPILLWAY_PUBLISHER_NPM", browser);
    }
    if let Some(terraform) = &ready.terraform {
        command.env("TERRAFORM", terraform);
    }
    command
}
