//! The first weeks of an empty account, as `terraform/README.md` tells people to spend them, over stand-ins that change an account:
//! prepared, applied in two steps, planned again, by others and a year later, a second region beside it, a secret rotated, destroyed,
//! and begun anew. What the vendors refuse, read back otherwise or do later is in `standin/rules`.

use std::cell::Cell;
use std::path::PathBuf;
use std::process::{Command, Output};

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::Trial;
use serde_json::Value;
use tempfile::TempDir;

use crate::bench::{copy, from_registry, run, standin, with};
use crate::{failed, tree};

/// In no state, whatever is done.
const SECRETS: &str =
    r#"{"livekit-api-key":"canary-key","livekit-api-secret":"canary-secret","ticket-key":"canary-ticket"}"#;
const IMAGES: [&str; 3] = ["dispatcher", "runner", "page"];
const DIGEST: &str = "sha256:6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b";
const MISSING: &str = "so TF_VAR_secrets must have its value";

/// What differs between the vendors.
struct Vendor {
    root: &'static str,
    /// What is done by hand before: commands of `standin/account.py`.
    prepared: &'static [&'static [&'static str]],
    /// Made alone at first, because images must be there before the rest.
    registry: &'static str,
    /// What stands in the registry's name before and after an image's own, by tag.
    image: (&'static str, &'static str),
    /// In `terraform.tfvars.example`, and in another region.
    regions: [&'static str; 2],
    /// Further keys of `spillway` in this test.
    keys: &'static str,
    /// Argument of a secret that says which version was written, and the resource's type.
    version: (&'static str, &'static str),
    /// What the vendor keeps after `destroy`, and gives back by itself.
    kept: &'static [&'static str],
}

const VENDORS: [Vendor; 3] = [
    Vendor {
        root: "aws",
        prepared: &[],
        registry: "module.spillway.aws_ecr_repository.this",
        image: (":", ""),
        regions: ["eu-central-1", "us-east-1"],
        keys: "",
        version: ("aws_secretsmanager_secret_version", "secret_string_wo_version"),
        kept: &[],
    },
    Vendor {
        root: "gcp",
        prepared: &[&["enable", "cloudresourcemanager", "serviceusage", "pubsub"], &["agent", "pubsub"]],
        registry: "module.spillway.google_artifact_registry_repository.this",
        image: ("/", ":latest"),
        regions: ["europe-west3", "us-central1"],
        keys: "",
        version: ("google_secret_manager_secret_version", "secret_data_wo_version"),
        kept: &[],
    },
    Vendor {
        root: "azure",
        prepared: &[],
        registry: "module.spillway.azurerm_container_registry.this",
        image: ("/", ":latest"),
        regions: ["westeurope", "eastus"],
        keys: "  vault_writers = [\"first\", \"second\"]\n",
        version: ("azurerm_key_vault_secret", "value_wo_version"),
        kept: &["azurerm_key_vault"],
    },
];

pub fn cases() -> Vec<Trial> {
    let case = |vendor: Vendor| {
        let trial = Trial::test(format!("applied::{}", vendor.root), move || {
            first_weeks(&vendor).map_err(|error| failed(&error))
        });
        // Providers of the registry would ask the vendor.
        trial.with_ignored_flag(from_registry())
    };
    VENDORS.into_iter().map(case).collect()
}

fn first_weeks(vendor: &Vendor) -> Result<()> {
    let account = Account::empty()?;
    for command in vendor.prepared {
        account.tell(command)?;
    }
    let first = Root::new(vendor, &account, vendor.regions[0], without_network)?;
    first.set_up(vendor, &account)?;
    first.changes_nothing("the second plan")?;
    account.tell(&["later"])?;
    first.as_person("second").changes_nothing("the plan of another person, a year later")?;
    first.as_person("first");

    // With the network and the Redis that the example names.
    let second = Root::new(vendor, &account, vendor.regions[1], str::to_owned)?;
    second.set_up(vendor, &account).context("another region of the same account")?;

    rotate(vendor, &first)?;
    upgrade(vendor, &first, &account)?;
    let state = String::from_utf8(first.terraform(&["state", "pull"], false)?.stdout).context("a state is text")?;
    ensure!(!state.contains("canary-"), "a secret's value is in the state");

    if vendor.root == "azure" {
        account.tell(&["leave", "spillway-dev-westeurope-runners", "eg-still-running"])?;
    }
    for root in [&first, &second] {
        root.apply(&["destroy", "-auto-approve"], false).context("destroy")?;
    }
    let left: Vec<String> =
        account.tell(&["list"])?.lines().map(str::to_owned).filter(|line| !line.is_empty()).collect();
    let expected = |line: &String| vendor.kept.iter().any(|kind| line.starts_with(&format!("kept: {kind} ")));
    ensure!(left.iter().all(expected), "left after destroy: {left:#?}");
    first.set_up(vendor, &account).context("begun anew")?;
    first.changes_nothing("the plan after all was begun anew")
}

/// A version that grows needs values in that run, and only its own.
fn rotate(vendor: &Vendor, root: &Root) -> Result<()> {
    root.edit(|text| text.replacen("spillway = {\n", "spillway = {\n  secrets_version = 2\n", 1))?;
    let refused = root.terraform(&["apply", "-auto-approve", "-input=false", "-no-color"], false);
    let said = refused.err().context("a secret was rotated without a value")?.to_string();
    // Terraform breaks the lines of what it says.
    let said: Vec<&str> = said.split_whitespace().filter(|word| *word != "│").collect();
    ensure!(said.join(" ").contains(MISSING), "a value was missing, and it said {}", said.join(" "));
    root.apply(&["apply", "-auto-approve"], true).context("rotate LiveKit's key")?;
    root.changes_nothing("the plan after a rotation")?;
    let (kind, argument) = vendor.version;
    for (name, version) in [("livekit-api-key", 2), ("livekit-api-secret", 2), ("ticket-key", 1)] {
        let written = root.attribute(kind, name, argument)?;
        ensure!(written == version, "{name} has version {written}, not {version}");
    }
    Ok(())
}

/// Images by their digests are of the same registry, which stays.
fn upgrade(vendor: &Vendor, root: &Root, account: &Account) -> Result<()> {
    let repository = root.terraform(&["output", "-raw", "repository"], false)?.stdout;
    let repository = String::from_utf8(repository).context("a registry's name is text")?;
    for image in IMAGES {
        let name = if vendor.image.1.is_empty() { String::new() } else { format!("/{image}") };
        account.tell(&["push", &format!("{}{name}@{DIGEST}", repository.trim())])?;
    }
    let images = IMAGES.map(|image| format!("{image} = \"{DIGEST}\""));
    let images = format!("spillway = {{\n  images = {{ {} }}\n", images.join(", "));
    root.edit(|text| text.replacen("spillway = {\n", &images, 1))?;
    root.apply(&["apply", "-auto-approve"], false).context("upgrade to a digest")?;
    root.changes_nothing("the plan after an upgrade")?;
    let after = root.terraform(&["output", "-raw", "repository"], false)?.stdout;
    ensure!(repository.as_bytes() == after, "the registry is another one: {}", String::from_utf8_lossy(&after));
    Ok(())
}

/// The file that stand-ins change.
struct Account {
    folder: TempDir,
}

impl Account {
    fn empty() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("spillway-account-").tempdir().context("make a folder")?;
        Ok(Self { folder })
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("account.json")
    }

    fn tell(&self, command: &[&str]) -> Result<String> {
        run(standin("account.py")?.arg(self.file()).args(command))
    }
}

/// A copy of the tree in which one root is applied, with the variables of its example.
struct Root {
    tree: TempDir,
    name: &'static str,
    account: PathBuf,
    person: Cell<&'static str>,
}

impl Root {
    fn new(vendor: &Vendor, account: &Account, region: &str, edit: impl Fn(&str) -> String) -> Result<Self> {
        let copied = tempfile::Builder::new().prefix("spillway-root-").tempdir().context("make a folder")?;
        copy(&tree(), copied.path())?;
        let root = Self { tree: copied, name: vendor.root, account: account.file(), person: Cell::new("first") };
        let example = root.folder().join("terraform.tfvars.example");
        let text = std::fs::read_to_string(&example).with_context(|| format!("read {}", example.display()))?;
        ensure!(text.contains(vendor.regions[0]), "{} names another region", example.display());
        let text = edit(&text).replace(vendor.regions[0], region);
        let text = text.replacen("spillway = {\n", &format!("spillway = {{\n{}", vendor.keys), 1);
        std::fs::write(root.folder().join("terraform.tfvars"), text).context("write the variables")?;
        root.apply(&["init"], false)?;
        Ok(root)
    }

    /// The README's order: the registry, the images, everything.
    fn set_up(&self, vendor: &Vendor, account: &Account) -> Result<()> {
        self.apply(&["apply", "-auto-approve", &format!("-target={}", vendor.registry)], false)
            .context("make the registry")?;
        let repository = self.terraform(&["output", "-raw", "repository"], false).context("ask for the registry")?;
        let repository = String::from_utf8(repository.stdout).context("a registry's name is text")?;
        for image in IMAGES {
            let (before, after) = vendor.image;
            account.tell(&["push", &format!("{}{before}{image}{after}", repository.trim())])?;
        }
        self.apply(&["apply", "-auto-approve"], true).context("apply")
    }

    fn folder(&self) -> PathBuf {
        self.tree.path().join(self.name)
    }

    fn as_person(&self, person: &'static str) -> &Self {
        self.person.set(person);
        self
    }

    fn edit(&self, change: impl Fn(String) -> String) -> Result<()> {
        let path = self.folder().join("terraform.tfvars");
        let text = std::fs::read_to_string(&path).context("read the variables")?;
        std::fs::write(&path, change(text)).context("write the variables")
    }

    /// It needs no secret's value.
    fn changes_nothing(&self, what: &str) -> Result<()> {
        let out = self.command(&["plan", "-detailed-exitcode", "-input=false", "-no-color"], false)?.output()?;
        let said = || format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        ensure!(out.status.code() == Some(0), "{what} is {}:\n{}", out.status, said());
        Ok(())
    }

    fn apply(&self, arguments: &[&str], with_secrets: bool) -> Result<()> {
        self.terraform(&[arguments, &["-input=false", "-no-color"]].concat(), with_secrets).map(drop)
    }

    fn terraform(&self, arguments: &[&str], with_secrets: bool) -> Result<Output> {
        let out = self.command(arguments, with_secrets)?.output().context("start terraform")?;
        if !out.status.success() {
            let (out, err) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
            bail!("terraform {}:\n{out}{err}", arguments.join(" "));
        }
        Ok(out)
    }

    fn command(&self, arguments: &[&str], with_secrets: bool) -> Result<Command> {
        let mut command = with(&self.folder())?;
        command.args(arguments).env("SPILLWAY_STANDIN_ACCOUNT", &self.account);
        command.env("SPILLWAY_STANDIN_RUN", next_run()).env("SPILLWAY_STANDIN_PRINCIPAL", self.person.get());
        if with_secrets {
            command.env("TF_VAR_secrets", SECRETS);
        }
        Ok(command)
    }

    /// A number of the resource with this key, as the state has it.
    fn attribute(&self, kind: &str, key: &str, argument: &str) -> Result<u64> {
        let state: Value = serde_json::from_slice(&self.terraform(&["state", "pull"], false)?.stdout)?;
        let resources = state["resources"].as_array().context("a state has resources")?;
        let instances = resources.iter().filter(|it| it["type"] == kind).filter_map(|it| it["instances"].as_array());
        let found = instances.flatten().find(|it| it["index_key"] == key);
        found
            .and_then(|it| it["attributes"][argument].as_u64())
            .with_context(|| format!("no {kind} {key} with {argument}"))
    }
}

/// The example without what it brings along: network and Redis are made here, which is most of what can go wrong.
fn without_network(example: &str) -> String {
    let brings = |line: &&str| line.trim_start().starts_with("network ") || line.trim_start().starts_with("redis ");
    example.lines().filter(|line| !brings(line)).map(|line| format!("{line}\n")).collect()
}

/// A name for each command of terraform: what is made in one command must be made in order.
fn next_run() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static RUNS: AtomicU32 = AtomicU32::new(0);
    RUNS.fetch_add(1, Ordering::Relaxed).to_string()
}
