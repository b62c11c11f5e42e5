//! What checks the Terraform code offline: terraform itself, what stand-in providers are made of, checkov.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cache::Cache;
use crate::debian::which;
use crate::step;
use crate::tools::{go, is_stamped, python};

const TERRAFORM: &str = "1.11.4";
/// The oldest that knows values it writes and forgets (`secret_string_wo`).
const AT_LEAST: (u32, u32) = (1, 11);

/// Clients of the stores of remote state: most of terraform's size, and nothing that a check asks for.
const REMOTE_STATE: &[&str] = &["azure", "consul", "cos", "gcs", "kubernetes", "oss", "pg", "s3"];

/// The plugin protocol, a reader of HCL.
const STAND_IN_PYTHON: &[&str] = &["tf==1.2.0", "python-hcl2==8.1.4"];
/// Descriptions of the providers' resources; read as they are packed.
const STAND_IN_NODE: &[&str] =
    &["@cdktf/provider-aws@21.22.1", "@cdktf/provider-google@16.12.1", "@cdktf/provider-azurerm@14.23.1"];
const CHECKOV: &[&str] = &["checkov==3.3.30"];

/// Answers the terraform to use; the tests find the rest by its names in the cache.
pub fn install(cache: &Cache) -> Result<PathBuf> {
    python(cache, "terraform", "install what stand-in providers are made of (PyPI)", STAND_IN_PYTHON)?;
    packages(cache)?;
    python(cache, "checkov", "install checkov (PyPI)", CHECKOV)?;
    terraform(cache)
}

/// A binary named by the environment wins, then a recent one on PATH, then ours: built once, kept in the cache.
fn terraform(cache: &Cache) -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("TERRAFORM") {
        let named = PathBuf::from(named);
        if !named.is_file() {
            bail!("TERRAFORM names {}, which is no file", named.display());
        }
        return Ok(named);
    }
    let ours = cache.at("bin").join("terraform");
    let stamp = cache.at("bin").join("terraform.installed");
    if is_stamped(&stamp, TERRAFORM) && ours.is_file() {
        return Ok(ours);
    }
    if let Some(found) = which("terraform")
        && version(&found).is_some_and(|version| version >= AT_LEAST)
    {
        return Ok(found);
    }
    build(cache, &ours)?;
    std::fs::write(&stamp, TERRAFORM).context("note what is installed")?;
    Ok(ours)
}

/// `go install` refuses a module that replaces its parts by folders, as terraform does with its stores of remote state.
/// So a module of ours requires it, with empty modules in their places.
fn build(cache: &Cache, to: &Path) -> Result<()> {
    let folder = cache.at("build-terraform");
    let write = |path: &str, text: String| -> Result<()> {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().context("a folder")?).context("create a folder")?;
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    };
    let mut module = format!(
        "module spillway.invalid/terraform\n\ngo 1.23.3\n\nrequire github.com/hashicorp/terraform v{TERRAFORM}\n\n"
    );
    for store in REMOTE_STATE {
        let path = format!("github.com/hashicorp/terraform/internal/backend/remote-state/{store}");
        module += &format!("replace {path} => ./{store}\n");
        write(&format!("{store}/go.mod"), format!("module {path}\n\ngo 1.23.3\n"))?;
        write(
            &format!("{store}/new.go"),
            format!(
                "package {store}\n\nimport \"github.com/hashicorp/terraform/internal/backend\"\n\n\
                 func New() backend.Backend {{ panic(\"built without remote state\") }}\n"
            ),
        )?;
    }
    write("go.mod", module)?;
    let mut command = Command::new(go(cache)?);
    command.args(["build", "-trimpath", "-ldflags", "-s -w -X github.com/hashicorp/terraform/version.dev=no", "-o"]);
    command.arg(to).arg("github.com/hashicorp/terraform").current_dir(&folder).env("GOFLAGS", "-mod=mod");
    step::run(&format!("build terraform {TERRAFORM} (3 minutes, once)"), &mut command, &cache.at("logs"))?;
    std::fs::remove_dir_all(&folder).context("remove what terraform was built from")
}

/// Unpacked they are a million small files, so they stay packed.
fn packages(cache: &Cache) -> Result<()> {
    let folder = cache.at("npm-terraform");
    let stamp = folder.join("installed");
    let wanted = STAND_IN_NODE.join("\n");
    if is_stamped(&stamp, &wanted) {
        return Ok(());
    }
    if folder.is_dir() {
        std::fs::remove_dir_all(&folder).context("remove older descriptions")?;
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let mut npm = Command::new("npm");
    npm.args(["pack", "--ignore-scripts", "--pack-destination"]).arg(&folder).args(STAND_IN_NODE);
    step::run("fetch descriptions of the clouds' Terraform providers (npm)", &mut npm, &cache.at("logs"))?;
    std::fs::write(&stamp, wanted).context("note what is installed")
}

fn version(terraform: &Path) -> Option<(u32, u32)> {
    let out = Command::new(terraform).arg("version").env("CHECKPOINT_DISABLE", "1").output().ok()?;
    parse_version(&String::from_utf8_lossy(&out.stdout))
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.strip_prefix("Terraform v")?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terraform_version_is_read_from_its_output() {
        assert_eq!(parse_version("Terraform v1.11.4\non linux_amd64\n"), Some((1, 11)));
        assert_eq!(parse_version("Terraform v1.9.0-dev\n"), Some((1, 9)));
        assert_eq!(parse_version("OpenTofu v1.10.0\n"), None);
    }
}
