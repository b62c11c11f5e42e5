//! A Docker daemon of our own, with its own socket, data and processes and without a network to the outside.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::mount::{UnmountFlags, unmount};
use tempfile::TempDir;

use crate::assets::containers_left_out;
use crate::process::Process;

const PROGRAM: &str = "/usr/sbin/dockerd";
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// The daemon. When dropped, its containers are removed and it is stopped.
pub struct Dockerd {
    // Dropped in this order.
    process: Process,
    folder: TempDir,
}

impl Dockerd {
    /// Why none can run here, whatever is installed; cases that need one are skipped then.
    pub fn left_out() -> Option<String> {
        if !rustix::process::geteuid().is_root() {
            return Some("only root may start a Docker daemon".to_owned());
        }
        containers_left_out()
    }

    /// Starts a daemon without images.
    ///
    /// # Errors
    ///
    /// It is not installed, or does not start. A retry helps on a machine that was too busy.
    pub fn start() -> Result<Self> {
        let program = Path::new(PROGRAM);
        ensure!(program.is_file(), "no {PROGRAM}: `cargo verify` installs it (package docker.io)");
        let folder = tempfile::Builder::new().prefix("spillway-dockerd-").tempdir().context("make a folder")?;
        let at = |name: &str| folder.path().join(name);
        let mut process = Process::start("dockerd", program, folder.path(), "dockerd", |command| {
            command.arg("--host").arg(format!("unix://{}", at("docker.sock").display()));
            command.arg("--data-root").arg(at("data")).arg("--exec-root").arg(at("exec"));
            command.arg("--pidfile").arg(at("docker.pid"));
            command.args(["--bridge=none", "--iptables=false", "--ip6tables=false", "--log-level=warn"]);
        })?;
        let socket = at("docker.sock");
        process.wait_until(START_TIMEOUT, || std::os::unix::net::UnixStream::connect(&socket).is_ok())?;
        Ok(Self { process, folder })
    }

    /// Path of its socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("docker.sock")
    }

    /// Creates an image with these programs of this machine, their libraries and these files (path, content;
    /// executable), started with `command`.
    pub fn image(&self, name: &str, programs: &[&str], files: &[(&str, &str)], command: &str) -> Result<()> {
        let root = self.folder.path().join("root");
        for program in programs {
            copy(Path::new(program), &root)?;
            let linked = Command::new("ldd").arg(program).output().context("ask what a program is linked with")?;
            let linked = String::from_utf8_lossy(&linked.stdout).into_owned();
            for library in linked.split_whitespace().filter(|token| token.starts_with('/')) {
                copy(Path::new(library), &root)?;
            }
        }
        for (path, text) in files {
            let file = root.join(path.trim_start_matches('/'));
            std::fs::create_dir_all(file.parent().context("a file lies in a folder")?)?;
            std::fs::write(&file, text)?;
            let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(&file, executable)?;
        }
        let mut tar = Command::new("tar").arg("-C").arg(&root).args(["-c", "."]).stdout(Stdio::piped()).spawn()?;
        let packed = tar.stdout.take().context("tar has an output")?;
        let imported = self
            .docker()
            .args(["import", "--change", &format!("CMD [\"{command}\"]"), "-", name])
            .stdin(packed)
            .output()?;
        ensure!(tar.wait()?.success() && imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
        std::fs::remove_dir_all(&root).context("remove what the image was made of")
    }

    /// Loads an archive of `docker save`.
    pub fn load(&self, archive: &Path) -> Result<()> {
        let out = self.docker().arg("load").arg("--input").arg(archive).output().context("start docker load")?;
        ensure!(out.status.success(), "docker load: {}", String::from_utf8_lossy(&out.stderr));
        Ok(())
    }

    /// The client, connected to this daemon.
    pub fn docker(&self) -> Command {
        let mut docker = Command::new("docker");
        docker.arg("--host").arg(format!("unix://{}", self.socket().display()));
        docker
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        let all = self.docker().args(["ps", "-aq"]).output();
        let all = all.map(|all| String::from_utf8_lossy(&all.stdout).into_owned()).unwrap_or_default();
        if !all.trim().is_empty() {
            let _ = self.docker().args(["rm", "-f"]).args(all.split_whitespace()).output();
        }
        // It ends its containerd, which a kill would leave behind.
        let _ = self.process.stop(Duration::from_secs(10));
        // It leaves the network namespace of the host mounted (`exec/netns/default`), and a folder with a mount in it cannot
        // be removed. In use elsewhere or not: it goes with its last user.
        for mounted in mounted_below(self.folder.path()) {
            let _ = unmount(&mounted, UnmountFlags::DETACH);
        }
    }
}

/// Mount points in a folder, what was mounted last first.
fn mounted_below(folder: &Path) -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // The fifth field (proc_pid_mountinfo(5)).
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    let mut below: Vec<PathBuf> = points.filter(|point| point.starts_with(folder)).collect();
    below.reverse();
    below
}

fn copy(file: &Path, root: &Path) -> Result<()> {
    let to = root.join(file.strip_prefix("/").unwrap_or(file));
    std::fs::create_dir_all(to.parent().context("a file lies in a folder")?)?;
    std::fs::copy(file, &to).map(|_| ()).with_context(|| format!("copy {}", file.display()))
}
