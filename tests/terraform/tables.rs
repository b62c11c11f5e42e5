//! Each module's README has tables of its variables and outputs, made of them. What has no type or description has none.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::bench::{self, installed, run};
use crate::{CheckResult, failed, tree};

const TABLES: &str = include_str!("tables.py");
const BEGIN: &str = "<!-- tables:begin -->\n";
const END: &str = "<!-- tables:end -->";

pub fn compare() -> CheckResult {
    check().map_err(|error| failed(&error))
}

fn check() -> Result<()> {
    let folder = tempfile::tempdir().context("make a folder")?;
    let script = folder.path().join("tables.py");
    std::fs::write(&script, TABLES).context("write the script")?;
    let python = installed("venv-terraform/bin/python")?;
    for module in bench::modules()? {
        let module = tree().join(&module.path);
        let tables = run(Command::new(&python).arg(&script).arg(&module))?;
        hold(&module.join("README.md"), &tables)?;
    }
    Ok(())
}

fn hold(path: &Path, tables: &str) -> Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let (before, rest) =
        text.split_once(BEGIN).with_context(|| format!("{} has no place for tables", path.display()))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("{}: tables do not end", path.display()))?;
    let wanted = format!("{before}{BEGIN}{tables}{END}{after}");
    if std::env::var_os("SPILLWAY_WRITE_REFERENCE").is_some() {
        return std::fs::write(path, wanted).with_context(|| format!("write {}", path.display()));
    }
    ensure!(
        text == wanted,
        "{} is not up to date: SPILLWAY_WRITE_REFERENCE=1 cargo test --test terraform tables",
        path.display()
    );
    Ok(())
}
