//! The built-in template of room composites (`runner/template`), checked and bundled in the cache by tools that its
//! `package-lock.json` names: `site` is what a runner serves, `sdk` a package for npm, `tests` and `pages` are for the tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::cache::{Cache, checkout};
use crate::step;
use crate::tools::is_stamped;

/// Of a developer's own tools, or made by them.
const NOT_OURS: [&str; 2] = ["node_modules", "dist"];
const MADE: [&str; 5] = ["source", "site", "sdk", "tests", "pages"];
/// What `@livekit/egress-sdk` is in each build of the page in `tests/pages`.
const SDKS: [(&str, &[&str]); 2] =
    [("livekit", &[]), ("spillway", &["--alias:@livekit/egress-sdk=./sdk/src/index.ts"])];

/// Gives the folder that a runner serves. Seconds when the sources have changed, a moment when they have not.
pub fn build(cache: &Cache) -> Result<PathBuf> {
    let (folder, logs) = (cache.at("template"), cache.at("logs"));
    let (site, stamp) = (folder.join("site"), folder.join("built"));
    let mut sources = BTreeMap::new();
    read(&checkout()?.join("runner/template"), Path::new(""), &mut sources)?;
    let wanted: String =
        sources.iter().map(|(path, text)| format!("{} {}\n{text}", path.display(), text.len())).collect();
    if is_stamped(&stamp, &wanted) && site.join("index.html").is_file() {
        return Ok(site);
    }
    clear(&folder, &stamp)?;
    for (path, text) in &sources {
        write(&folder.join("source").join(path), text)?;
    }
    packages(&folder, &sources, &logs)?;

    let tool = |name: &str| {
        let mut command = Command::new(folder.join("node_modules/.bin").join(name));
        command.current_dir(folder.join("source"));
        command
    };
    let check = |title: &str, project: &str| step::run(title, tool("tsc").args(["--project", project]), &logs);
    check("check the built-in template (TypeScript)", ".")?;
    check("check the tests of the built-in template", "tests")?;
    let mut sdk = tool("tsc");
    sdk.args(["--project", "sdk", "--outDir"]).arg(folder.join("sdk/dist"));
    step::run("build the SDK of templates", &mut sdk, &logs)?;
    let bundle = |title: &str, arguments: &[&str], out: PathBuf| {
        let out = format!("--outfile={}", out.display());
        step::run(title, tool("esbuild").args(["--bundle", "--log-level=warning"]).args(arguments).arg(out), &logs)
    };
    let page = ["--minify", "--format=iife", "--target=chrome120", "--legal-comments=linked"];
    let main = [&["src/main.ts"][..], &page[..]].concat();
    bundle("bundle the built-in template", &main, site.join("template.js"))?;
    for (name, alias) in SDKS {
        let arguments = [&["tests/pages/sdk.ts"][..], &page[..], alias].concat();
        let title = format!("bundle a template on the SDK of {name}");
        bundle(&title, &arguments, folder.join("pages").join(name).join("template.js"))?;
    }
    for test in sources.keys().filter_map(|path| path.to_str()?.strip_suffix(".test.ts")) {
        let file = format!("{test}.test.ts");
        let arguments = [&file[..], "--platform=node", "--format=esm", "--target=node18", "--loader:.jsonl=text"];
        bundle(&format!("bundle {file}"), &arguments, folder.join(format!("{test}.test.mjs")))?;
    }
    for (path, text) in &sources {
        let copy = match path.to_str() {
            Some("sdk/package.json" | "sdk/README.md") => folder.join(path),
            Some("tests/pages/index.html") => {
                for (name, _) in SDKS {
                    write(&folder.join("pages").join(name).join("index.html"), text)?;
                }
                continue;
            }
            _ if path.starts_with("site") => folder.join(path),
            _ => continue,
        };
        write(&copy, text)?;
    }
    std::fs::write(&stamp, wanted).context("note what is built")?;
    Ok(site)
}

/// All files below a folder, by their paths from it.
fn read(folder: &Path, below: &Path, into: &mut BTreeMap<PathBuf, String>) -> Result<()> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("read {}", folder.display()))?;
        let (path, name) = (entry.path(), below.join(entry.file_name()));
        if !path.is_dir() {
            let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            into.insert(name, text);
        } else if !NOT_OURS.iter().any(|other| path.ends_with(other)) {
            read(&path, &name, into)?;
        }
    }
    Ok(())
}

/// What was built before, and the note that it was.
fn clear(folder: &Path, stamp: &Path) -> Result<()> {
    let folders = MADE.map(|name| folder.join(name));
    if stamp.exists() {
        std::fs::remove_file(stamp).with_context(|| format!("remove {}", stamp.display()))?;
    }
    for old in folders.iter().filter(|old| old.exists()) {
        std::fs::remove_dir_all(old).with_context(|| format!("remove {}", old.display()))?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    let folder = path.parent().context("a file is in a folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

/// The compiler, the bundler and livekit-client, of exactly the contents that the lock file names. They lie above the
/// sources, where both look for them.
fn packages(folder: &Path, sources: &BTreeMap<PathBuf, String>, logs: &Path) -> Result<()> {
    let of = |name: &str| sources.get(Path::new(name)).with_context(|| format!("runner/template has no {name}"));
    let (list, lock) = (of("package.json")?, of("package-lock.json")?);
    let stamp = folder.join("installed");
    if is_stamped(&stamp, lock) {
        return Ok(());
    }
    write(&folder.join("package.json"), list)?;
    write(&folder.join("package-lock.json"), lock)?;
    let mut npm = Command::new("npm");
    npm.args(["ci", "--include=dev", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(folder);
    step::run("install what builds the template (npm)", &mut npm, logs)?;
    std::fs::write(&stamp, lock).context("note what is installed")
}
