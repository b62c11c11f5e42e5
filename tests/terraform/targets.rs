//! The targets that Terraform writes into the dispatcher's configuration are what the launchers take.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use spillway_cost::Capacity;
use spillway_launchers::LauncherSpec;

/// Nothing to do for a module that starts no runners.
pub fn understand(outputs: &Value) -> Result<()> {
    let Some(config) = outputs.get("dispatcher_config") else { return Ok(()) };
    let config = &config["value"];
    let targets = config["targets"].as_array().context("no targets")?;
    ensure!(!targets.is_empty(), "no target");
    for target in targets {
        let said = |key: &str| target[key].as_str().map(str::to_owned).with_context(|| format!("no {key}: {target}"));
        let spec = LauncherSpec {
            launcher: said("launcher")?,
            name: said("name")?,
            stack: config["stack"].as_str().context("no stack")?.to_owned(),
            capacity: match said("capacity")?.as_str() {
                "on-demand" => Capacity::OnDemand,
                "spot" => Capacity::Spot,
                other => bail!("no capacity is called {other}"),
            },
            options: target["options"].clone(),
        };
        spillway_launchers::check(&spec).with_context(|| target.to_string())?;
    }
    Ok(())
}
