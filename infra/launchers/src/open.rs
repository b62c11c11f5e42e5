//! Launchers of containers by kind and options, as the dispatcher's configuration has them. `check` is pure; `open` makes clients
//! and sends no order.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;
use spillway_cost::Capacity;
use spillway_process::Clock;
use spillway_protocol::hide_value;

use crate::launcher::{LaunchError, Launcher};

/// One target of a configuration.
#[derive(Clone, Debug)]
pub struct LauncherSpec {
    /// The kind: one of [`KINDS`].
    pub launcher: String,
    /// What `TaskRef`s say.
    pub name: String,
    /// Tells our tasks from those of other installations; must not be blank.
    pub stack: String,
    /// On demand or spot.
    pub capacity: Capacity,
    /// The kind's own keys; null: all defaults.
    pub options: Value,
}

/// Kinds of launchers of containers; each is also the cargo feature that builds it.
pub const KINDS: [&str; 4] = ["ecs", "cloud-run", "aci", "docker"];

/// Reads the options and makes nothing.
///
/// # Errors
/// `Misconfigured`: the kind is unknown or not in this build, or an option is missing, unknown or wrong.
pub fn check(spec: &LauncherSpec) -> Result<(), LaunchError> {
    match spec.launcher.as_str() {
        #[cfg(feature = "ecs")]
        "ecs" => ecs(spec).map(|_| ()),
        #[cfg(feature = "cloud-run")]
        "cloud-run" => cloud_run(spec).map(|_| ()),
        #[cfg(feature = "aci")]
        "aci" => aci(spec).map(|_| ()),
        #[cfg(feature = "docker")]
        "docker" => docker(spec).map(|_| ()),
        other => Err(not_here(other)),
    }
}

/// Makes the launcher of a target. `clock` is compared with the platform's time stamps.
///
/// # Errors
/// As for [`check`]; also `Misconfigured` where the process has no identity for the platform. A retry changes nothing.
pub async fn open(spec: &LauncherSpec, clock: &Clock) -> Result<Arc<dyn Launcher>, LaunchError> {
    match spec.launcher.as_str() {
        #[cfg(feature = "ecs")]
        "ecs" => Ok(Arc::new(crate::ecs::EcsLauncher::new(ecs(spec)?).await)),
        #[cfg(feature = "cloud-run")]
        "cloud-run" => Ok(Arc::new(crate::cloud_run::CloudRunLauncher::new(cloud_run(spec)?.on(clock))?)),
        #[cfg(feature = "aci")]
        "aci" => Ok(Arc::new(crate::aci::AciLauncher::new(aci(spec)?.on(clock))?)),
        #[cfg(feature = "docker")]
        "docker" => Ok(Arc::new(crate::docker::DockerLauncher::new(docker(spec)?))),
        other => Err(not_here(other)),
    }
}

fn not_here(kind: &str) -> LaunchError {
    let message = if KINDS.contains(&kind) {
        format!("this build has no launcher {kind}: build spillway-launchers with its feature `{kind}`")
    } else {
        format!("there is no launcher \"{kind}\"")
    };
    LaunchError::Misconfigured { message, source: None }
}

fn wrong(spec: &LauncherSpec, message: &str) -> LaunchError {
    LaunchError::Misconfigured { message: format!("options of {}: {message}", spec.name), source: None }
}

#[allow(dead_code, reason = "without a cloud there is nothing to read")]
fn read<T: DeserializeOwned + Default>(spec: &LauncherSpec, needed: &[&str]) -> Result<T, LaunchError> {
    // Without one, tasks of all installations that have none would be taken for ours.
    if spec.stack.trim().is_empty() {
        return Err(wrong(spec, "a `stack` is needed, which tells its tasks from those of other installations"));
    }
    let missing = |key: &&&str| match &spec.options[**key] {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(all) => all.is_empty(),
        _ => false,
    };
    if let Some(key) = needed.iter().find(missing) {
        return Err(wrong(spec, &format!("`{key}` is missing")));
    }
    if spec.options.is_null() {
        return Ok(T::default());
    }
    serde_json::from_value(spec.options.clone()).map_err(|error| wrong(spec, &hide_value(error).to_string()))
}

#[cfg(feature = "ecs")]
fn ecs(spec: &LauncherSpec) -> Result<crate::ecs::EcsOptions, LaunchError> {
    let options: crate::ecs::EcsOptions = read(spec, &["region", "cluster", "task_definition", "subnets"])?;
    Ok(crate::ecs::EcsOptions {
        name: spec.name.clone(),
        stack: spec.stack.clone(),
        capacity: spec.capacity,
        ..options
    })
}

#[cfg(any(feature = "cloud-run", feature = "aci", feature = "docker"))]
fn on_demand_only(spec: &LauncherSpec) -> Result<(), LaunchError> {
    match spec.capacity {
        Capacity::OnDemand => Ok(()),
        Capacity::Spot => Err(wrong(spec, "there is no spot capacity")),
    }
}

#[cfg(feature = "cloud-run")]
fn cloud_run(spec: &LauncherSpec) -> Result<crate::cloud_run::CloudRunOptions, LaunchError> {
    on_demand_only(spec)?;
    let options = read(spec, &["project", "location", "jobs"])?;
    Ok(crate::cloud_run::CloudRunOptions { name: spec.name.clone(), stack: spec.stack.clone(), ..options })
}

#[cfg(feature = "aci")]
fn aci(spec: &LauncherSpec) -> Result<crate::aci::AciOptions, LaunchError> {
    on_demand_only(spec)?;
    let options = read(spec, &["subscription", "resource_group", "location", "image"])?;
    Ok(crate::aci::AciOptions { name: spec.name.clone(), stack: spec.stack.clone(), ..options })
}

#[cfg(feature = "docker")]
fn docker(spec: &LauncherSpec) -> Result<crate::docker::DockerOptions, LaunchError> {
    on_demand_only(spec)?;
    let options = read(spec, &["image"])?;
    Ok(crate::docker::DockerOptions { name: spec.name.clone(), stack: spec.stack.clone(), ..options })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(launcher: &str, options: Value) -> LauncherSpec {
        LauncherSpec {
            launcher: launcher.to_owned(),
            name: "there".to_owned(),
            stack: "prod".to_owned(),
            capacity: Capacity::OnDemand,
            options,
        }
    }

    fn complaint(spec: &LauncherSpec) -> String {
        check(spec).map_or_else(|error| error.to_string(), |()| "none".to_owned())
    }

    #[test]
    fn an_unknown_kind_is_an_error() {
        assert!(complaint(&spec("lambda", Value::Null)).contains("there is no launcher \"lambda\""));
    }

    #[cfg(not(feature = "ecs"))]
    #[test]
    fn a_kind_that_is_left_out_names_its_feature() {
        assert!(complaint(&spec("ecs", Value::Null)).contains("feature `ecs`"));
    }

    #[cfg(all(feature = "ecs", feature = "cloud-run", feature = "aci", feature = "docker"))]
    #[test]
    fn options_are_read_and_mistakes_in_them_are_errors() {
        let ecs = json!({"region": "r", "cluster": "arn:aws:ecs:r:1:cluster/c", "task_definition": "t",
            "container": "runner", "subnets": ["s"], "security_groups": ["g"], "assign_public_ip": true});
        assert_eq!(complaint(&spec("ecs", ecs.clone())), "none");
        let spot = LauncherSpec { capacity: Capacity::Spot, ..spec("ecs", ecs.clone()) };
        assert_eq!(super::ecs(&spot).unwrap().capacity, Capacity::Spot);
        let mut wrong = ecs;
        wrong["subnet"] = "s".into();
        assert!(complaint(&spec("ecs", wrong)).contains("unknown field `subnet`"));

        let run = json!({"project": "p", "location": "l", "container": "runner",
            "jobs": [{"name": "egress-1", "cpu_milli": 1000, "memory_mib": 512, "disk_gib": 0}]});
        assert_eq!(complaint(&spec("cloud-run", run.clone())), "none");
        let spot = LauncherSpec { capacity: Capacity::Spot, ..spec("cloud-run", run) };
        assert!(complaint(&spot).contains("there is no spot capacity"));
        let nameless = LauncherSpec { stack: " ".to_owned(), ..spec("docker", json!({"image": "runner:1"})) };
        assert!(complaint(&nameless).contains("a `stack` is needed"));
        assert!(complaint(&spec("aci", json!({"subscription": "s"}))).contains("`resource_group` is missing"));
        assert_eq!(complaint(&spec("docker", json!({"image": "runner:1"}))), "none");
    }

    #[cfg(feature = "docker")]
    #[tokio::test]
    async fn a_target_takes_pages_where_it_has_an_image_for_them() {
        for (options, takes) in [(json!({"image": "i"}), false), (json!({"image": "i", "page_image": "p"}), true)] {
            let launcher = open(&spec("docker", options), &Clock::host()).await.unwrap();
            assert_eq!(launcher.takes_pages(), takes);
        }
    }
}
