//! The machine's Docker; where none runs, a daemon of our own for as long as we need one.

use std::fmt::Write;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::cache::Cache;
use crate::step;

const START_TIMEOUT: Duration = Duration::from_secs(60);
const BASE: &str = "debian:trixie-slim";
const SUITE: &str = "trixie";
/// An image of one program that every Debian has, and that does nothing.
const PROBE: &str = "spillway-probe";
const PROBED: &str = "/bin/true";

pub struct Docker {
    /// Of our own daemon.
    host: Option<String>,
    daemon: Option<Child>,
}

impl Docker {
    /// The machine's, else one of our own.
    pub fn reach(cache: &Cache) -> Result<Self> {
        let there = Self { host: None, daemon: None };
        if there.answers() { Ok(there) } else { Self::own(cache).context("no Docker answers") }
    }

    /// One that no other process uses, for as long as this is kept.
    pub fn own(cache: &Cache) -> Result<Self> {
        ensure!(is_root(), "only root may start a Docker daemon");
        let folder = cache.at("docker");
        std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        let at = |name: &str| folder.join(name);
        let log = File::create(cache.at("logs").join("dockerd.log")).context("create the daemon's log")?;
        let host = format!("unix://{}", at("docker.sock").display());
        let mut daemon = Command::new("/usr/sbin/dockerd");
        daemon.args(["--host", &host, "--bridge=none", "--iptables=false", "--ip6tables=false", "--log-level=warn"]);
        // What it made is there for the next time.
        daemon.arg("--data-root").arg(at("data")).arg("--exec-root").arg(at("exec"));
        daemon.arg("--pidfile").arg(at("docker.pid"));
        daemon.stdin(Stdio::null()).stdout(log.try_clone().context("share the log")?).stderr(log);
        let daemon = daemon.spawn().context("start dockerd (package docker.io)")?;
        let mut own = Self { host: Some(host), daemon: Some(daemon) };
        let begun = Instant::now();
        while !own.answers() {
            let over = own.daemon.as_mut().map(Child::try_wait).transpose().context("watch dockerd")?.flatten();
            if over.is_some() || begun.elapsed() > START_TIMEOUT {
                bail!("a Docker daemon does not start here: see {}", cache.at("logs").join("dockerd.log").display());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(own)
    }

    pub fn command(&self) -> Command {
        let mut docker = Command::new("docker");
        if let Some(host) = &self.host {
            docker.args(["--host", host]);
        }
        docker
    }

    fn answers(&self) -> bool {
        // A context of the user's own would win over the socket.
        self.command()
            .args(["version", "--format", "{{.Server.Version}}"])
            .output()
            .is_ok_and(|out| out.status.success())
    }

    pub fn said(&self, arguments: &[&str]) -> Result<String> {
        let out = self.command().args(arguments).output().context("start docker")?;
        ensure!(
            out.status.success(),
            "docker {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&out.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
    }

    /// Debian as its registry has it; where no registry can be reached, made of Debian's packages under the same name.
    pub fn base(&self, cache: &Cache) -> Result<()> {
        if self.said(&["image", "inspect", BASE]).is_ok() || self.said(&["pull", "--quiet", BASE]).is_ok() {
            return Ok(());
        }
        let root = cache.at("docker").join(SUITE);
        if root.exists() {
            std::fs::remove_dir_all(&root).context("remove what an earlier attempt left")?;
        }
        let mut make = Command::new("debootstrap");
        make.args(["--variant=minbase", SUITE]).arg(&root);
        step::run(&format!("make {BASE}, which no registry gives (2 minutes, once)"), &mut make, &cache.at("logs"))?;
        let sources = root.join("etc/apt/sources.list");
        let main = std::fs::read_to_string(&sources).context("read where the packages come from")?;
        std::fs::write(&sources, with_updates(&main)).context("write where the updates come from")?;
        self.import(&root, BASE)?;
        std::fs::remove_dir_all(&root).context("remove what the base image was made of")
    }

    /// Whether it can do what making an image takes: import one, and run a program in it. In a container or a chroot a
    /// daemon may answer and be able to do neither.
    pub fn probe(&self, cache: &Cache) -> Result<()> {
        let root = cache.at("docker").join("probe");
        if root.exists() {
            std::fs::remove_dir_all(&root).context("remove what an earlier attempt left")?;
        }
        lay_out(PROBED, &root)?;
        self.import(&root, PROBE).context("Docker answers and cannot import an image")?;
        std::fs::remove_dir_all(&root).context("remove what the image was made of")?;
        let run = self.said(&["run", "--rm", "--network", "host", PROBE, PROBED]);
        self.said(&["image", "rm", "--force", PROBE])?;
        run.map(|_| ()).context("Docker answers and cannot run a container")
    }

    fn import(&self, root: &Path, name: &str) -> Result<()> {
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(root).args(["--exclude=./var/cache/apt/archives/*", "--exclude=./dev/*", "-c", "."]);
        let mut tar = tar.stdout(Stdio::piped()).spawn().context("start tar")?;
        let packed = tar.stdout.take().context("tar has an output")?;
        let out = self.command().args(["import", "-", name]).stdin(packed).output().context("start docker import")?;
        let packed = tar.wait().context("wait for tar")?;
        ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr).trim());
        ensure!(packed.success(), "tar: {packed}");
        Ok(())
    }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// A program of this machine and what it is linked with, below `root` at the paths they have here.
fn lay_out(program: &str, root: &Path) -> Result<()> {
    let linked = Command::new("ldd").arg(program).output().context("ask what a program is linked with")?;
    let linked = String::from_utf8_lossy(&linked.stdout).into_owned();
    for file in linked.split_whitespace().filter(|field| field.starts_with('/')).chain([program]) {
        let to = root.join(file.trim_start_matches('/'));
        std::fs::create_dir_all(to.parent().context("a file lies in a folder")?).context("make a folder")?;
        std::fs::copy(file, &to).with_context(|| format!("copy {file}"))?;
    }
    Ok(())
}

/// Debian's own image has the updates too; `debootstrap` names the release alone.
fn with_updates(main: &str) -> String {
    let mut sources = String::new();
    for line in main.lines() {
        let _ = writeln!(sources, "{line}");
        if let Some((mirror, parts)) = line.split_once(&format!("/debian {SUITE} ")) {
            let _ = writeln!(sources, "{mirror}/debian {SUITE}-updates {parts}");
            let _ = writeln!(sources, "{mirror}/debian-security {SUITE}-security {parts}");
        }
    }
    sources
}

impl Drop for Docker {
    fn drop(&mut self) {
        let Some(daemon) = &mut self.daemon else { return };
        // Asked, it ends its containerd, which a kill would leave behind.
        let asked = Command::new("kill").arg(daemon.id().to_string()).status();
        if !asked.is_ok_and(|status| status.success()) {
            let _ = daemon.kill();
        }
        let _ = daemon.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn updates_come_from_where_the_release_came_from() {
        let both = with_updates("# made\ndeb http://mirror/debian trixie main\n");
        assert_eq!(
            both,
            "# made\ndeb http://mirror/debian trixie main\ndeb http://mirror/debian trixie-updates main\n\
             deb http://mirror/debian-security trixie-security main\n"
        );
    }
}
