use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::step;

/// Installs the packages that are missing, once `apt-get update` has been run.
pub fn install(packages: &[&str], logs: &Path) -> Result<()> {
    let missing = missing(packages)?;
    if missing.is_empty() {
        return Ok(());
    }
    let by_hand = format!("apt-get update && apt-get install --no-install-recommends {}", missing.join(" "));
    if which("apt-get").is_none() {
        bail!("this set-up knows Debian; install the equivalents of these packages by hand: {}", missing.join(" "));
    }
    if !is_root() && which("sudo").is_none() {
        bail!("not root and no sudo here; as root: {by_hand}");
    }
    eprintln!("{} Debian packages are missing: {}", missing.len(), missing.join(" "));
    step::run("read Debian's package lists", &mut apt(&["update"]), logs)?;
    let mut install = apt(&["install", "--yes", "--no-install-recommends"]);
    install.args(&missing);
    step::run("install Debian packages", &mut install, logs).with_context(|| format!("by hand, as root: {by_hand}"))
}

/// Unpacks packages into a folder: none of their services is started, and nothing on the machine changes. What they depend on
/// is not looked at.
pub fn unpack(packages: &[&str], into: &Path, logs: &Path) -> Result<()> {
    std::fs::create_dir_all(into).with_context(|| format!("create {}", into.display()))?;
    let title = format!("download Debian packages: {}", packages.join(" "));
    let mut download = Command::new("apt-get");
    download.arg("download").args(packages).current_dir(into);
    if step::run(&title, &mut download, logs).is_err() {
        // Lists that are old, or were never read.
        step::run("read Debian's package lists", &mut apt(&["update"]), logs)?;
        step::run(&title, &mut download, logs)?;
    }
    for entry in std::fs::read_dir(into).with_context(|| format!("list {}", into.display()))? {
        let path = entry.context("list the packages")?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            let mut unpack = Command::new("dpkg-deb");
            step::run("unpack a Debian package", unpack.arg("-x").arg(&path).arg(into), logs)?;
            std::fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    Ok(())
}

fn apt(arguments: &[&str]) -> Command {
    let root = is_root();
    let mut command = Command::new(if root { "apt-get" } else { "sudo" });
    if !root {
        command.args(["--preserve-env=DEBIAN_FRONTEND", "apt-get"]);
    }
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    command
}

pub fn missing<'a>(packages: &[&'a str]) -> Result<Vec<&'a str>> {
    let Ok(out) =
        Command::new("dpkg-query").args(["-W", "-f=${Package} ${db:Status-Status}\n"]).args(packages).output()
    else {
        return Ok(packages.to_vec());
    };
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let installed: BTreeSet<&str> = text.lines().filter_map(|line| line.strip_suffix(" installed")).collect();
    Ok(packages.iter().copied().filter(|package| !installed.contains(package)).collect())
}

pub fn which(program: &str) -> Option<std::path::PathBuf> {
    let paths = std::env::var_os("PATH")?;
    std::env::split_paths(&paths).map(|folder| folder.join(program)).find(|path| path.is_file())
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|out| out.stdout.trim_ascii() == b"0")
}
