//! `cargo images`: the images of runner, dispatcher and Lambda, made of what cargo builds on this machine.

mod docker;
mod plate;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use spillway_commands::Given;

use crate::cache::{Cache, checkout};
use crate::debian;
use crate::job::cargo;
use crate::need;
use crate::step;
use docker::Docker;

/// Cargo's profile of what is shipped.
const SHIPPED: &str = "ship";
/// A file with the reason why tests cannot use containers here, beside the image that they would record in.
const LEFT_OUT: &str = "left-out";

struct Image {
    name: &'static str,
    dockerfile: &'static str,
    /// Of the Dockerfile's last stages.
    target: &'static str,
    /// Its stage with packages, which is kept.
    tools: &'static str,
    packages: &'static [&'static str],
    programs: &'static [&'static str],
    /// Source that names GStreamer elements.
    elements_of: Option<&'static str>,
    /// The built-in template of room composites lies in it.
    has_template: bool,
}

const IMAGES: &[Image] = &[
    Image {
        name: "spillway-runner",
        dockerfile: "Dockerfile.runner",
        target: "native",
        tools: "tools",
        packages: &["spillway-runner", "spillway-media"],
        programs: &["spillway-runner", "spillway-media"],
        elements_of: Some("runner/media/src"),
        has_template: false,
    },
    Image {
        name: "spillway-runner-page",
        dockerfile: "Dockerfile.runner",
        target: "page",
        tools: "browser",
        packages: &["spillway-runner", "spillway-media"],
        programs: &["spillway-runner", "spillway-media"],
        elements_of: Some("runner/media/src"),
        has_template: true,
    },
    Image {
        name: "spillway-dispatcher",
        dockerfile: "dispatcher/Dockerfile",
        target: "dispatcher",
        tools: "tools",
        packages: &["spillway-dispatcher"],
        programs: &["spillway-dispatcher", "spillway"],
        elements_of: None,
        has_template: false,
    },
    Image {
        name: "spillway-settle",
        dockerfile: "dispatcher/Dockerfile",
        target: "settle",
        tools: "tools",
        packages: &["spillway-dispatcher"],
        programs: &["spillway-lambda"],
        elements_of: None,
        has_template: false,
    },
];

pub fn images(given: &Given) -> Result<()> {
    let dev = given.has("--dev");
    let cache = Cache::open()?;
    let logs = cache.at("logs");
    let mut packages = [need::BUILD, need::CONTAINERS].concat();
    if debian::which("npm").is_none() {
        packages.push("npm");
    }
    debian::install(&packages, &logs)?;

    let root = checkout()?;
    let mut build = cargo(&cache);
    if dev {
        // As the tests build them: with fewer packages at once they would be other programs.
        build.args(["build", "--workspace", "--all-targets"]);
    } else {
        build.args(["build", "--profile", SHIPPED]);
        for package in IMAGES.iter().flat_map(|image| image.packages) {
            build.args(["--package", package]);
        }
    }
    step::run("build the programs (minutes the first time)", build.current_dir(&root), &logs)?;
    let docker = Docker::reach(&cache)?;
    if dev {
        println!("spillway-runner: {}", runner_of_tests(&docker, &cache)?.display());
        return Ok(());
    }
    let built = cache.target().join(SHIPPED);
    docker.base(&cache)?;
    let out = cache.at("images");
    let mut lines = Vec::new();
    for image in IMAGES {
        make(&docker, image, &root, &built, &out, &cache)?;
        lines.push(stored(&docker, image.name, &out)?);
    }
    println!("{}", lines.join("\n"));
    Ok(())
}

/// Whether this machine can build images and run containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Containers {
    Usable,
    /// Why not; every test case that needs them is counted as skipped.
    LeftOut(String),
}

/// Seconds. Asked of a daemon of our own, as each test that needs containers starts one too. The answer is left where the
/// tests look for it.
pub fn containers(cache: &Cache) -> Result<Containers> {
    let found = match Docker::own(cache).and_then(|docker| docker.probe(cache)) {
        Ok(()) => Containers::Usable,
        Err(error) => Containers::LeftOut(format!("{error:#}")),
    };
    leave_note(&found, &cache.at("images").join("dev"))?;
    Ok(found)
}

fn leave_note(found: &Containers, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let (reason, archive) = (folder.join(LEFT_OUT), folder.join(format!("{}.tar", IMAGES[0].name)));
    let stale = match found {
        Containers::Usable => reason,
        Containers::LeftOut(why) => {
            std::fs::write(&reason, why).with_context(|| format!("write {}", reason.display()))?;
            // Of older sources: tests must not take it for today's.
            archive
        }
    };
    match std::fs::remove_file(&stale) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", stale.display()))
        }
        _ => Ok(()),
    }
}

/// The runner's image out of what was just built for the tests, saved where they look.
pub fn for_tests(cache: &Cache) -> Result<()> {
    runner_of_tests(&Docker::own(cache)?, cache).map(|_| ())
}

fn runner_of_tests(docker: &Docker, cache: &Cache) -> Result<PathBuf> {
    docker.base(cache)?;
    let (image, out) = (&IMAGES[0], cache.at("images").join("dev"));
    make(docker, image, &checkout()?, &cache.target().join("debug"), &out, cache)?;
    let archive = out.join(format!("{}.tar", image.name));
    // A process that loads it meanwhile has the one before.
    let growing = archive.with_extension("growing");
    docker.said(&["save", "--output", &growing.to_string_lossy(), &format!("{}:latest", image.name)])?;
    std::fs::rename(&growing, &archive).context("put the archive in its place")?;
    Ok(archive)
}

fn make(docker: &Docker, image: &Image, root: &Path, built: &Path, out: &Path, cache: &Cache) -> Result<()> {
    std::fs::create_dir_all(out).with_context(|| format!("create {}", out.display()))?;
    let plate = out.join(format!("{}.plate", image.name));
    plate::lay(&plate, image, root, built, cache)?;
    // Packages are fetched once: what has a name is not cleared away below.
    let tools = format!("{}-tools", image.name);
    for (target, tag) in [(image.tools, tools.as_str()), (image.target, image.name)] {
        let mut build = docker.command();
        // The host's network: a daemon of our own has no other, and packages come by it.
        build.args(["build", "--network", "host", "--target", target, "--tag", tag, "--file"]);
        build.arg(root.join(image.dockerfile)).arg(&plate);
        // The builder of old daemons can do all we ask, and is there without a plugin.
        build.env("DOCKER_BUILDKIT", "0");
        step::run(&format!("make the image {tag}"), &mut build, &cache.at("logs"))?;
    }
    std::fs::remove_dir_all(&plate).context("remove what the image was made of")?;
    // Ours that lost their name, and the stage it was gathered in.
    docker
        .said(&["image", "prune", "--force", "--filter", "label=org.opencontainers.image.vendor=spillway"])
        .map(|_| ())
}

/// The image as a file beside its list of contents, and how large it is.
fn stored(docker: &Docker, image: &str, out: &Path) -> Result<String> {
    let archive = out.join(format!("{image}.tar.gz"));
    // A process that loads it meanwhile has the one before.
    let growing = archive.with_extension("growing");
    let mut save = docker
        .command()
        .arg("save")
        .arg(format!("{image}:latest"))
        .stdout(Stdio::piped())
        .spawn()
        .context("start docker save")?;
    let saved = save.stdout.take().context("docker save has an output")?;
    let file = File::create(&growing).with_context(|| format!("create {}", growing.display()))?;
    let packed = Command::new("gzip").arg("-6").stdin(saved).stdout(file).status().context("start gzip")?;
    ensure!(save.wait()?.success() && packed.success(), "the image {image} could not be saved");
    std::fs::rename(&growing, &archive).context("put the archive in its place")?;

    let container = docker.said(&["create", image])?;
    let contents = out.join(format!("{image}.cdx.json"));
    let copied = docker
        .command()
        .args(["cp", &format!("{container}:/usr/share/spillway/sbom.cdx.json")])
        .arg(&contents)
        .output()
        .context("start docker cp")?;
    docker.said(&["rm", &container])?;
    ensure!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));

    let bytes: u64 = docker.said(&["image", "inspect", "--format", "{{.Size}}", image])?.parse().context("a size")?;
    let compressed = std::fs::metadata(&archive).context("look at the archive")?.len();
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    Ok(format!(
        "{image}: {:.1} MB, {:.1} MB compressed: {}; contents: {}",
        megabytes(bytes),
        megabytes(compressed),
        archive.display(),
        contents.display()
    ))
}

/// Where the Dockerfiles are: this program's own folder is two below.
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_image_is_not_there_where_containers_are_left_out() {
        let folder = std::env::temp_dir().join(format!("spillway-setup-{}", std::process::id()));
        let (archive, reason) = (folder.join("spillway-runner.tar"), folder.join(LEFT_OUT));
        leave_note(&Containers::Usable, &folder).unwrap();
        std::fs::write(&archive, "of yesterday").unwrap();
        leave_note(&Containers::LeftOut("in a chroot".to_owned()), &folder).unwrap();
        assert!(!archive.exists());
        assert_eq!(std::fs::read_to_string(&reason).unwrap(), "in a chroot");
        std::fs::write(&archive, "of today").unwrap();
        leave_note(&Containers::Usable, &folder).unwrap();
        assert!(archive.exists() && !reason.exists());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
