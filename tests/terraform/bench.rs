//! A copy of the tree, with providers that know their schemas and some of their vendors' ways (`standin/`): terraform writes
//! beside what it reads.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, Mutex, PoisonError};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;
use spillway_tests::assets::cache;
use tempfile::TempDir;

use crate::{CheckResult, executable, failed, targets, tree};

/// Package, provider, and the provider's version that the package describes.
const PROVIDERS: &[(&str, &str, &str)] = &[
    ("cdktf-provider-aws-21.22.1.tgz", "aws", "6.25.0"),
    ("cdktf-provider-google-16.12.1.tgz", "google", "6.50.0"),
    ("cdktf-provider-azurerm-14.23.1.tgz", "azurerm", "4.55.0"),
];

/// Of the provider `time`, whose only resource is written down in `standin/time.json`.
const TIME: &str = "0.13.1";

/// Resources that nothing here makes any more, and that a rule speaks of.
const ONLY_IN_RULES: &[&str] = &["resource/google_compute_firewall"];

/// The stand-ins' programs, and what they know of each vendor.
const STANDIN: &[(&str, &str)] = &[
    ("schema.py", include_str!("standin/schema.py")),
    ("provider.py", include_str!("standin/provider.py")),
    ("cloud.py", include_str!("standin/cloud.py")),
    ("account.py", include_str!("standin/account.py")),
    ("selfcheck.py", include_str!("standin/selfcheck.py")),
    ("cases.json", include_str!("standin/cases.json")),
    ("schemas/time.json", include_str!("standin/time.json")),
    ("rules/aws.json", include_str!("standin/rules/aws.json")),
    ("rules/azurerm.json", include_str!("standin/rules/azurerm.json")),
    ("rules/google.json", include_str!("standin/rules/google.json")),
    ("rules/time.json", include_str!("standin/rules/time.json")),
];

pub struct TerraformModule {
    pub name: String,
    /// Below `terraform/`.
    pub path: PathBuf,
    pub has_tests: bool,
}

/// Every module and every root.
pub fn modules() -> Result<Vec<TerraformModule>> {
    let mut modules = vec![];
    for (above, prefix) in [("modules", "modules::"), (".", "roots::")] {
        for entry in std::fs::read_dir(tree().join(above)).context("read the tree")? {
            let entry = entry?;
            if entry.path().join("versions.tf").is_file() {
                let path = Path::new(above).join(entry.file_name());
                let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
                modules.push(TerraformModule { name, path, has_tests: entry.path().join("tests").is_dir() });
            }
        }
    }
    ensure!(modules.len() >= 2, "no modules below {}", tree().display());
    modules.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(modules)
}

pub fn format() -> CheckResult {
    let mut command = terraform();
    command.args(["fmt", "-check", "-diff", "-recursive"]).arg(tree());
    run(&mut command).map(drop).map_err(|error| failed(&error))
}

pub fn validate(module: &Path) -> CheckResult {
    in_bench(module, |folder| {
        run(with(folder)?.args(["validate", "-no-color"]))?;
        Ok(())
    })
}

/// Its own tests, and what its outputs were in each of them: the launchers must understand the targets.
pub fn test(module: &Path) -> CheckResult {
    in_bench(module, |folder| {
        let mut command = with(folder)?;
        let out = command.args(["test", "-json", "-verbose"]).output().context("start terraform")?;
        let events = String::from_utf8_lossy(&out.stdout);
        let events = events.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned()));
        let events: Vec<Value> = events.collect::<Result<_>>()?;
        let said = |event: &Value| event["@message"].as_str().unwrap_or_default().to_owned();
        let summary = events.iter().find(|event| event["type"] == "test_summary");
        let passed = summary.and_then(|event| event["test_summary"]["passed"].as_u64()).unwrap_or_default();
        // A folder of tests in which nothing is tested would succeed too.
        if !out.status.success() || passed == 0 {
            let wrong = |event: &&Value| event["@level"] != "info" || event["test_run"]["status"] == "fail";
            let mut texts: Vec<String> = events.iter().filter(wrong).map(describe).collect();
            texts.extend(summary.map(said));
            bail!("{}\n{}", texts.join("\n"), String::from_utf8_lossy(&out.stderr));
        }
        for event in events.iter().filter(|event| event["type"] == "test_state") {
            let test = event["@testrun"].as_str().unwrap_or_default();
            targets::understand(&event["test_state"]["outputs"]).with_context(|| format!("in {test}"))?;
        }
        Ok(())
    })
}

fn describe(event: &Value) -> String {
    let texts = |key: &str| event["diagnostic"][key].as_str().unwrap_or_default().to_owned();
    let module = event["diagnostic"]["range"]["filename"].as_str().unwrap_or_default();
    let line = &event["diagnostic"]["range"]["start"]["line"];
    match event["type"].as_str() {
        Some("diagnostic") => format!("    {module}:{line}: {} {}", texts("summary"), texts("detail")),
        _ => event["@message"].as_str().unwrap_or_default().to_owned(),
    }
}

/// What a module without a provider answers to these variables.
pub fn outputs(module: &str, variables: &Value) -> Result<Value> {
    let copied = tempfile::tempdir().context("make a folder")?;
    copy(&tree().join(module), copied.path())?;
    std::fs::write(copied.path().join("terraform.tfvars.json"), variables.to_string()).context("write variables")?;
    run(with(copied.path())?.args(["init", "-input=false", "-no-color"]))?;
    run(with(copied.path())?.args(["apply", "-auto-approve", "-input=false", "-no-color"]))?;
    let said = run(with(copied.path())?.args(["output", "-json"]))?;
    serde_json::from_str(&said).context("read the outputs")
}

static INIT: Mutex<()> = Mutex::new(());

fn in_bench(module: &Path, work: impl FnOnce(&Path) -> Result<()>) -> CheckResult {
    let inner = || {
        let folder = bench()?.path().join("terraform").join(module);
        // Two cases may look at one module.
        let alone = INIT.lock().unwrap_or_else(PoisonError::into_inner);
        if !folder.join(".terraform.lock.hcl").exists() && !folder.join(".terraform").exists() {
            run(with(&folder)?.args(["init", "-backend=false", "-input=false", "-no-color"]))?;
        }
        drop(alone);
        work(&folder)
    };
    inner().map_err(|error| failed(&error))
}

fn terraform() -> Command {
    let program = std::env::var_os("TERRAFORM").map(PathBuf::from).unwrap_or_else(|| {
        let ours = cache().join("bin/terraform");
        if ours.is_file() { ours } else { PathBuf::from("terraform") }
    });
    let mut command = Command::new(program);
    command.env("CHECKPOINT_DISABLE", "1").env("TF_IN_AUTOMATION", "1").env("TF_INPUT", "0");
    command
}

/// Whether providers come from Terraform's public registry instead: `validate` and `test` need no account with them either.
pub fn from_registry() -> bool {
    std::env::var_os("SPILLWAY_TERRAFORM_REGISTRY").is_some_and(|value| value == "1")
}

/// terraform in a folder, with stand-ins unless the registry's providers are asked for.
pub fn with(folder: &Path) -> Result<Command> {
    let mut command = terraform();
    command.current_dir(folder);
    if !from_registry() {
        command.env("TF_CLI_CONFIG_FILE", bench()?.path().join("terraform.rc"));
    }
    Ok(command)
}

/// One of the stand-ins' programs.
pub fn standin(program: &str) -> Result<Command> {
    let mut command = Command::new(installed("venv-terraform/bin/python")?);
    command.current_dir(bench()?.path()).arg(program);
    Ok(command)
}

/// Each rule finds the mistake that it is for.
pub fn rules() -> CheckResult {
    let checked = standin("selfcheck.py").and_then(|mut command| run(command.args(["schemas", "rules", "cases.json"])));
    checked.map(drop).map_err(|error| failed(&error))
}

/// What it said. Otherwise all of it is the error.
pub fn run(command: &mut Command) -> Result<String> {
    let out = command.output().with_context(|| format!("start {}", command.get_program().display()))?;
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    if !out.status.success() {
        let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
        bail!("{} {} ({}):\n{said}", command.get_program().display(), arguments.join(" "), out.status);
    }
    Ok(said)
}

pub fn installed(name: &str) -> Result<PathBuf> {
    let path = cache().join(name);
    ensure!(path.exists(), "no {}: `cargo verify` installs it", path.display());
    Ok(path)
}

fn bench() -> Result<&'static TempDir> {
    static BENCH: LazyLock<Result<TempDir>> = LazyLock::new(set_up);
    BENCH.as_ref().map_err(|error| anyhow!("{error:#}"))
}

fn set_up() -> Result<TempDir> {
    let bench = tempfile::Builder::new().prefix("spillway-terraform-").tempdir().context("make a folder")?;
    copy(&tree(), &bench.path().join("terraform"))?;
    let python = installed("venv-terraform/bin/python")?;
    for folder in ["schemas", "rules"] {
        std::fs::create_dir(bench.path().join(folder)).context("make a folder")?;
    }
    for (name, text) in STANDIN {
        std::fs::write(bench.path().join(name), text).with_context(|| format!("write {name}"))?;
    }
    let mirror = bench.path().join("mirror");
    let vendor = mirror.join(home(bench.path())?).join("hashicorp");
    let mut used = used(&tree())?;
    used.extend(ONLY_IN_RULES.iter().map(|&name| name.to_owned()));
    let schema = |provider: &str| bench.path().join("schemas").join(format!("{provider}.json"));
    for (package, provider, _) in PROVIDERS {
        let types: Vec<&String> = used.iter().filter(|name| name.contains(&format!("/{provider}_"))).collect();
        let mut command = Command::new(&python);
        command
            .arg(bench.path().join("schema.py"))
            .arg(installed("npm-terraform")?.join(package))
            .arg(schema(provider));
        run(command.args(&types))?;
    }
    let versions = PROVIDERS.iter().map(|(_, provider, version)| (*provider, *version)).chain([("time", TIME)]);
    for (provider, version) in versions {
        let folder = vendor.join(provider).join(version).join(platform());
        std::fs::create_dir_all(&folder).context("make the mirror")?;
        let script = format!(
            "#!/bin/sh\nexec '{}' '{}' '{}' '{}'\n",
            python.display(),
            bench.path().join("provider.py").display(),
            schema(provider).display(),
            bench.path().join("rules").join(format!("{provider}.json")).display()
        );
        executable(&folder.join(format!("terraform-provider-{provider}_v{version}")), &script)?;
    }
    let settings =
        format!("provider_installation {{\n  filesystem_mirror {{\n    path = \"{}\"\n  }}\n}}\n", mirror.display());
    std::fs::write(bench.path().join("terraform.rc"), settings).context("write terraform's settings")?;
    Ok(bench)
}

/// The host that terraform puts before `hashicorp/aws`, in its own words.
fn home(bench: &Path) -> Result<String> {
    let folder = bench.join("home");
    std::fs::create_dir(&folder).context("make a folder")?;
    let asking = "terraform {\n  required_providers {\n    aws = { source = \"hashicorp/aws\" }\n  }\n}\n";
    std::fs::write(folder.join("main.tf"), asking).context("write a question")?;
    let said = run(terraform().arg("providers").current_dir(&folder))?;
    let address = said.split("provider[").nth(1).and_then(|rest| rest.split("/hashicorp/aws").next());
    Ok(address.with_context(|| format!("no provider in: {said}"))?.to_owned())
}

fn platform() -> &'static str {
    if cfg!(target_arch = "aarch64") { "linux_arm64" } else { "linux_amd64" }
}

/// `resource/aws_sqs_queue`, `data/aws_region`: what the code names at the beginning of a line, as fmt has it.
fn used(folder: &Path) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for file in files(folder)? {
        if file.extension().is_none_or(|kind| kind != "tf") {
            continue;
        }
        let text = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        for line in text.lines() {
            let mut texts = line.split('"');
            if let (Some(kind @ ("resource " | "data ")), Some(name)) = (texts.next(), texts.next()) {
                found.insert(format!("{}/{name}", kind.trim()));
            }
        }
    }
    Ok(found)
}

/// Without what a user's own terraform left there.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = vec![];
    for entry in std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".terraform")) {
            continue;
        }
        if path.is_dir() { found.extend(files(&path)?) } else { found.push(path) }
    }
    Ok(found)
}

pub fn copy(from: &Path, to: &Path) -> Result<()> {
    for file in files(from)? {
        let target = to.join(file.strip_prefix(from).context("a file below its folder")?);
        std::fs::create_dir_all(target.parent().context("a file in a folder")?).context("create a folder")?;
        std::fs::copy(&file, &target).with_context(|| format!("copy {}", file.display()))?;
    }
    Ok(())
}
