use std::path::PathBuf;

use anyhow::Result;

use crate::cache::Cache;
use crate::{debian, template, terraform, tools};

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

/// Listens for SRT streams. It has no service.
const STREAMS: &[&str] = &["srt-tools"];

/// A foreign publisher, what recordings are looked at in, and, with its X server, what pages are recorded from.
const BROWSER: &[&str] = &["chromium", "xvfb"];

/// Knows no more of a page's sound server than its protocol.
const PLAYER: &[&str] = &["pulseaudio-utils"];

/// Networks of their own, in which tests see what a page reaches.
const NETWORKS: &[&str] = &["iproute2"];

/// A daemon for the docker launcher's tests and for making images, and what their base is made with.
pub const CONTAINERS: &[&str] = &["docker.io", "debootstrap"];

/// Starts `dispatcher/compose.yaml`. Debian's is a program beside Docker, not its plugin.
const COMPOSE: &[&str] = &["docker-compose"];

/// What is needed beside the servers and what a recording runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Emulators of the clouds' stores.
    pub stores: bool,
    /// Chromium and Xvfb, to record pages, look at recordings and publish from; scripts of pages, and the built-in template.
    pub browser: bool,
    /// Servers of streams: nginx, srt-tools.
    pub streams: bool,
    /// What only tests use: Docker, foreign publishers, terraform, a player of sound.
    pub tests: bool,
}

pub const TESTS: Needs = Needs { stores: true, browser: true, streams: true, tests: true };

pub struct Ready {
    pub cache: Cache,
    pub livekit_server: PathBuf,
    pub python: Option<PathBuf>,
    pub browser: Option<PathBuf>,
    pub terraform: Option<PathBuf>,
}

/// Installs what is missing; seconds when nothing is.
pub fn install(needs: Needs) -> Result<Ready> {
    let cache = Cache::open()?;
    let logs = cache.at("logs");
    let mut packages: Vec<&str> = [BUILD, RUN, SHOW].concat();
    if needs.browser {
        packages.extend(BROWSER);
    }
    if needs.tests {
        packages.extend(CONTAINERS);
        packages.extend(PLAYER);
        packages.extend(NETWORKS);
        packages.extend(COMPOSE);
    }
    if needs.streams {
        packages.extend(STREAMS);
    }
    if (needs.stores || needs.browser) && debian::which("npm").is_none() {
        packages.push("npm");
    }
    debian::install(&packages, &logs)?;
    let livekit_server = tools::livekit_server(&cache)?;
    let mut ready = Ready { cache, livekit_server, python: None, browser: None, terraform: None };
    if needs.stores {
        tools::emulators(&ready.cache)?;
    }
    if needs.browser {
        ready.browser = Some(tools::browser_scripts(&ready.cache)?);
        template::build(&ready.cache)?;
    }
    if needs.tests {
        ready.python = Some(tools::python_publisher(&ready.cache)?);
        tools::go_publisher(&ready.cache)?;
        ready.terraform = Some(terraform::install(&ready.cache)?);
    }
    if needs.streams {
        tools::nginx(&ready.cache)?;
    }
    Ok(ready)
}
