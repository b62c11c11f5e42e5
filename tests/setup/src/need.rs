use std::path::PathBuf;

use anyhow::Result;

use crate::cache::Cache;
use crate::{debian, terraform, tools};

/// What the workspace links, and what the linker and native build scripts want.
pub const BUILD: &[&str] =
    &["build-essential", "cmake", "libgstreamer-plugins-base1.0-dev", "libgstreamer1.0-dev", "pkg-config"];

/// What a recording runs on.
const RUN: &[&str] = &[
    "gstreamer1.0-libav",
    "gstreamer1.0-plugins-bad",
    "gstreamer1.0-plugins-base",
    "gstreamer1.0-plugins-good",
    "gstreamer1.0-plugins-ugly",
];

/// What shows that it works: the servers and the judges.
const SHOW: &[&str] = &["ffmpeg", "fonts-dejavu-core", "python3", "python3-venv", "redis-server"];

/// Foreign publishers of the tests.
const FOREIGN: &[&str] = &["chromium"];

/// A daemon for the docker launcher's tests and for making images, and what their base is made with.
pub const CONTAINERS: &[&str] = &["docker.io", "debootstrap"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Demo,
    Test,
}

pub struct Ready {
    pub cache: Cache,
    pub livekit_server: PathBuf,
    pub python: Option<PathBuf>,
    pub browser: Option<PathBuf>,
    pub terraform: Option<PathBuf>,
}

/// Installs what is missing for the purpose; seconds when nothing is.
pub fn install(purpose: Purpose) -> Result<Ready> {
    let cache = Cache::open()?;
    let logs = cache.at("logs");
    let mut packages: Vec<&str> = [BUILD, RUN, SHOW].concat();
    if purpose == Purpose::Test {
        packages.extend(FOREIGN);
        packages.extend(CONTAINERS);
        if debian::which("npm").is_none() {
            packages.push("npm");
        }
    }
    debian::install(&packages, &logs)?;
    let livekit_server = tools::livekit_server(&cache)?;
    let mut ready = Ready { cache, livekit_server, python: None, browser: None, terraform: None };
    if purpose == Purpose::Test {
        tools::emulators(&ready.cache)?;
        ready.python = Some(tools::python_publisher(&ready.cache)?);
        ready.browser = Some(tools::browser_publisher(&ready.cache)?);
        ready.terraform = Some(terraform::install(&ready.cache)?);
    }
    Ok(ready)
}
