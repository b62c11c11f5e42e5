//! The build context of an image: programs, what to gather for them, what they were built from.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::Image;
use crate::cache::Cache;
use crate::job::cargo;
use crate::{step, template};

pub fn lay(plate: &Path, image: &Image, root: &Path, built: &Path, cache: &Cache) -> Result<()> {
    if plate.exists() {
        std::fs::remove_dir_all(plate).context("clear the plate")?;
    }
    std::fs::create_dir_all(plate.join("bin")).context("make a plate")?;
    for script in ["gather", "contents"] {
        std::fs::copy(root.join("infra/images").join(script), plate.join(script)).context("lay a script")?;
    }
    if image.has_template {
        let (from, to) = (template::build(cache)?, plate.join("template"));
        std::fs::create_dir_all(&to).context("make a folder for the template")?;
        for entry in std::fs::read_dir(&from).with_context(|| format!("read {}", from.display()))? {
            let entry = entry.context("read the template")?;
            std::fs::copy(entry.path(), to.join(entry.file_name())).context("lay the template")?;
        }
    }
    for program in image.programs {
        // A panic says where without them.
        let mut strip = Command::new("strip");
        strip.arg("-o").arg(plate.join("bin").join(program)).arg(built.join(program));
        let out = strip.output().with_context(|| format!("start {}", step::spelled(&strip)))?;
        ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
    if let Some(folder) = image.elements_of {
        let mut named = Named::default();
        named.read(&root.join(folder))?;
        ensure!(!named.must.is_empty(), "{folder} makes no GStreamer element");
        for (file, names) in [("must", &named.must), ("names", &named.names)] {
            let text: String = names.iter().map(|name| format!("{name}\n")).collect();
            std::fs::write(plate.join(file), text).with_context(|| format!("write {file}"))?;
        }
    }
    let mut tree = cargo(cache);
    tree.args(["tree", "--locked", "--edges", "normal", "--prefix", "none", "--no-dedupe", "--format", "{p}|{l}"]);
    for package in image.packages {
        tree.args(["--package", package]);
    }
    let out = tree.current_dir(root).output().context("ask cargo what the programs are made of")?;
    ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let components = components(&String::from_utf8_lossy(&out.stdout));
    ensure!(!components.is_empty(), "cargo names nothing that the programs are made of");
    std::fs::write(plate.join("rust.json"), components).context("write rust.json")
}

/// String literals of the source: those that are surely elements, and those that may be.
#[derive(Default)]
struct Named {
    must: BTreeSet<String>,
    names: BTreeSet<String>,
}

impl Named {
    fn read(&mut self, folder: &Path) -> Result<()> {
        let entries = std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
        for entry in entries {
            let path = entry.context("read a folder")?.path();
            if path.is_dir() {
                if !path.ends_with("tests") {
                    self.read(&path)?;
                }
            } else {
                self.scan(&std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?);
            }
        }
        Ok(())
    }

    fn scan(&mut self, source: &str) {
        for line in source.lines() {
            let pieces: Vec<&str> = line.split('"').collect();
            // Between the first and second quote, the third and fourth, …
            for at in (1..pieces.len()).step_by(2) {
                let literal = pieces[at];
                let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
                if literal.len() < 3 || !literal.chars().all(plain) {
                    continue;
                }
                if pieces[at - 1].ends_with("make(") {
                    self.must.insert(literal.to_owned());
                } else {
                    self.names.insert(literal.to_owned());
                }
            }
        }
    }
}

/// Lines of `name v1.2.3 (where)|license` as CycloneDX components, parted by commas.
fn components(tree: &str) -> String {
    let mut parts = BTreeSet::new();
    for line in tree.lines() {
        let Some((package, license)) = line.split_once('|') else { continue };
        let mut fields = package.split_whitespace();
        let (Some(name), Some(version)) = (fields.next(), fields.next().and_then(|text| text.strip_prefix('v'))) else {
            continue;
        };
        let mut part = format!(r#"{{"type":"library","name":"{name}","version":"{version}""#);
        // What lies in a folder is ours and in no registry.
        if fields.next().is_none_or(|place| place == "(proc-macro)") {
            let _ = write!(part, r#","purl":"pkg:cargo/{name}@{version}""#);
        }
        if !license.is_empty() {
            // The older way to write a choice.
            let _ = write!(part, r#","licenses":[{{"expression":"{}"}}]"#, license.replace('/', " OR "));
        }
        part.push('}');
        parts.insert(part);
    }
    parts.into_iter().collect::<Vec<_>>().join(",\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_read_from_the_strings_of_the_source() {
        let mut named = Named::default();
        named.scan(
            "let d = if a { \"mulawdec\" } else { \"Not one\" };\nmake(\"queue\", |q| q.property(\"max\", \"a b\"))",
        );
        assert_eq!(named.must.into_iter().collect::<Vec<_>>(), ["queue"]);
        assert_eq!(named.names.into_iter().collect::<Vec<_>>(), ["max", "mulawdec"]);
    }

    #[test]
    fn what_a_program_is_made_of_is_told_once_each() {
        let tree = "spillway-x v0.1.0 (/a/b)|Apache-2.0\nserde v1.0.1|MIT/Apache-2.0\nserde v1.0.1|MIT/Apache-2.0\n";
        assert_eq!(
            components(tree),
            "{\"type\":\"library\",\"name\":\"serde\",\"version\":\"1.0.1\",\"purl\":\"pkg:cargo/serde@1.0.1\",\
             \"licenses\":[{\"expression\":\"MIT OR Apache-2.0\"}]},\n\
             {\"type\":\"library\",\"name\":\"spillway-x\",\"version\":\"0.1.0\",\"licenses\":[{\"expression\":\"Apache-2.0\"}]}"
        );
    }
}
