//! The section `targets`: where recordings may run, in order of preference. Pure; whether a platform can be reached is
//! found out when its launcher is opened.

use std::path::PathBuf;
use std::time::Duration;

use serde::de::DeserializeOwned;
use spillway_cost::Capacity;
use spillway_launchers::{LauncherSpec, Quota};
use spillway_plan::EgressKind;
use spillway_protocol::hide_value;

use super::duration::GoDuration;
use super::error::ConfigError;
use super::keys::{self, File};
use super::values::{CapacityName, LauncherName, OutputName};

/// What starts tasks at a target.
#[derive(Clone, Debug)]
pub enum LauncherConfig {
    /// A child process of the dispatcher for each recording.
    Process {
        /// `None`: `spillway-runner` beside our own executable.
        program: Option<PathBuf>,
        /// One log file per runner there; `None`: the dispatcher's own log.
        log_dir: Option<PathBuf>,
    },
    /// Starts nothing; answers like a platform, for load tests of the control plane.
    Simulated {
        /// Until a launch call is answered.
        latency: Duration,
        /// Launches beyond it are throttled; `None`: none are.
        quota: Option<Quota>,
    },
    /// A container on a platform: one of [`spillway_launchers::KINDS`].
    Container(LauncherSpec),
}

/// One target.
#[derive(Clone, Debug)]
pub struct TargetConfig {
    /// In records, labels, metrics, bills and on the command line; unique.
    pub name: String,
    /// What starts its tasks.
    pub launcher: LauncherConfig,
    /// On demand or spot.
    pub capacity: Capacity,
    /// Tasks there at once, of all dispatchers; `None`: no cap.
    pub max_tasks: Option<u64>,
    /// Launches per second and burst; `None`: a little below what the launcher's platform takes.
    pub launches: Option<Quota>,
    /// Kinds of egress it takes; empty: all.
    pub kinds: Vec<EgressKind>,
    /// Takes recordings that go to a store.
    pub takes_uploads: bool,
    /// Takes recordings that stay on the disk of the task.
    pub takes_local_files: bool,
    /// For prices; empty: the platform's first in the price list.
    pub region: String,
    /// `x86_64` or `arm64`, for prices; empty: `x86_64`.
    pub arch: String,
    /// Media pass a NAT gateway, which costs by the byte.
    pub nat: bool,
    /// Overrides the installation's `start_deadline`.
    pub start_deadline: Option<Duration>,
}

impl TargetConfig {
    /// With the defaults of every other key.
    pub fn of(name: &str, launcher: LauncherConfig) -> Self {
        Self {
            name: name.to_owned(),
            launcher,
            capacity: Capacity::OnDemand,
            max_tasks: None,
            launches: None,
            kinds: Vec::new(),
            takes_uploads: true,
            takes_local_files: true,
            region: String::new(),
            arch: String::new(),
            nat: false,
            start_deadline: None,
        }
    }
}

/// The section `targets`, or the one target that `launcher` names; never empty.
///
/// # Errors
/// When a target is incomplete, contradicts another key or shares its name with another; no retry.
pub fn resolve(file: &File) -> Result<Vec<TargetConfig>, ConfigError> {
    let Some(given) = file.targets.as_ref().filter(|given| !given.is_empty()) else {
        let (name, launcher) = match file.launcher {
            None | Some(LauncherName::Process) => {
                ("process", process(file.runner_program.clone(), file.runner_log_dir.clone()))
            }
            Some(LauncherName::Simulated) => ("simulated", simulated(SimulatedKeys::default())),
            Some(LauncherName::Ecs | LauncherName::CloudRun | LauncherName::Aci | LauncherName::Docker) => {
                let message = "needs to know where its tasks run: name it in `targets`, with `options`".to_owned();
                return Err(ConfigError::Value { key: "launcher", message });
            }
        };
        return Ok(vec![TargetConfig::of(name, launcher)]);
    };
    if file.launcher.is_some() {
        let message = "stands beside targets, keep one of them".to_owned();
        return Err(ConfigError::Value { key: "launcher", message });
    }
    let targets: Vec<TargetConfig> = given.iter().map(|given| target(given, file)).collect::<Result<_, _>>()?;
    for (place, target) in targets.iter().enumerate() {
        if targets[..place].iter().any(|other| other.name == target.name) {
            return Err(wrong(format!("two are called \"{}\"", target.name)));
        }
    }
    Ok(targets)
}

fn wrong(message: String) -> ConfigError {
    ConfigError::Value { key: "targets", message }
}

fn target(given: &keys::Target, file: &File) -> Result<TargetConfig, ConfigError> {
    let name = given.name.clone().unwrap_or_default();
    // The name goes into records, labels, metrics and command lines.
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/')) {
        return Err(wrong(format!("\"{name}\" is no name for one: letters, digits and - _ . / make one")));
    }
    let options = given.options.clone().unwrap_or_default();
    if given.launcher.is_some_and(is_shared) && file.stack.as_ref().is_none_or(|stack| stack.trim().is_empty()) {
        let message = format!(
            "needed for target {name}: write a name of this installation, as `stack: production`; two installations on one \
             platform need two names"
        );
        return Err(ConfigError::Value { key: "stack", message });
    }
    let launcher = match given.launcher {
        None => return Err(wrong(format!("{name}: `launcher` is missing"))),
        Some(LauncherName::Process) => {
            let ProcessKeys { runner_program, runner_log_dir } = options_of(&name, options)?;
            process(
                runner_program.or_else(|| file.runner_program.clone()),
                runner_log_dir.or_else(|| file.runner_log_dir.clone()),
            )
        }
        Some(LauncherName::Simulated) => simulated(options_of(&name, options)?),
        Some(LauncherName::Ecs) => container("ecs", given, options, file)?,
        Some(LauncherName::CloudRun) => container("cloud-run", given, options, file)?,
        Some(LauncherName::Aci) => container("aci", given, options, file)?,
        Some(LauncherName::Docker) => container("docker", given, options, file)?,
    };
    // Files in a container are gone with it.
    let keeps_files = !matches!(launcher, LauncherConfig::Container(_));
    let usual = TargetConfig::of(&name, launcher);
    let launches = match (given.burst, given.launches_per_second) {
        (None, None) => None,
        (burst, per_second) => {
            let per_second = per_second.unwrap_or(f64::from(Quota::FARGATE.burst));
            if !per_second.is_finite() || per_second <= 0.0 {
                return Err(wrong(format!("{name}: launches_per_second must be more than 0")));
            }
            Some(Quota { burst: burst.unwrap_or(per_second.ceil() as u32).max(1), per_second })
        }
    };
    let outputs = given.outputs.clone().unwrap_or_default();
    Ok(TargetConfig {
        capacity: capacity(given),
        max_tasks: given.max_tasks,
        launches,
        kinds: given.kinds.clone().unwrap_or_default(),
        takes_uploads: outputs.is_empty() || outputs.contains(&OutputName::Upload),
        takes_local_files: outputs.is_empty() && keeps_files || outputs.contains(&OutputName::Disk),
        region: given.region.clone().unwrap_or_default(),
        arch: given.arch.clone().unwrap_or_default(),
        nat: given.nat.unwrap_or_default(),
        start_deadline: given.start_deadline.map(|duration| duration.0),
        ..usual
    })
}

/// Other installations may run tasks on the same platform, and their tasks are listed with ours.
fn is_shared(launcher: LauncherName) -> bool {
    match launcher {
        LauncherName::Process | LauncherName::Simulated => false,
        LauncherName::Ecs | LauncherName::CloudRun | LauncherName::Aci | LauncherName::Docker => true,
    }
}

fn capacity(given: &keys::Target) -> Capacity {
    match given.capacity {
        Some(CapacityName::Spot) => Capacity::Spot,
        _ => Capacity::OnDemand,
    }
}

fn container(
    kind: &str,
    given: &keys::Target,
    options: serde_json::Value,
    file: &File,
) -> Result<LauncherConfig, ConfigError> {
    let spec = LauncherSpec {
        launcher: kind.to_owned(),
        name: given.name.clone().unwrap_or_default(),
        stack: file.stack.clone().unwrap_or_default(),
        capacity: capacity(given),
        options,
    };
    spillway_launchers::check(&spec).map_err(|error| wrong(error.to_string()))?;
    Ok(LauncherConfig::Container(spec))
}

#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ProcessKeys {
    runner_program: Option<PathBuf>,
    runner_log_dir: Option<PathBuf>,
}

#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SimulatedKeys {
    latency: Option<GoDuration>,
    burst: Option<u32>,
    per_second: Option<f64>,
}

fn options_of<T: DeserializeOwned + Default>(name: &str, options: serde_json::Value) -> Result<T, ConfigError> {
    if options.is_null() {
        return Ok(T::default());
    }
    serde_json::from_value(options).map_err(|error| wrong(format!("{name}: options: {}", hide_value(error))))
}

fn process(program: Option<PathBuf>, log_dir: Option<PathBuf>) -> LauncherConfig {
    LauncherConfig::Process { program, log_dir }
}

fn simulated(keys: SimulatedKeys) -> LauncherConfig {
    let latency = keys.latency.map_or(Duration::from_millis(500), |latency| latency.0);
    let quota = Quota {
        burst: keys.burst.unwrap_or(Quota::FARGATE.burst),
        per_second: keys.per_second.unwrap_or(Quota::FARGATE.per_second),
    };
    LauncherConfig::Simulated { latency, quota: Some(quota) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    const MINIMAL: &str = "redis: {address: a:1}\napi_key: k\napi_secret: s\nws_url: ws://x\n";

    fn config(more: &str) -> Result<Config, String> {
        Config::from_yaml(&format!("{MINIMAL}{more}")).map_err(|error| error.to_string())
    }

    #[test]
    fn one_launcher_is_one_target_and_several_keep_their_order() {
        let short = config("launcher: simulated\n").unwrap();
        assert_eq!(short.targets.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["simulated"]);
        let long = config(
            "targets:\n- {name: near/spot, launcher: simulated, capacity: spot, max_tasks: 5, launches_per_second: 2, kinds: [track], outputs: [upload]}\n\
             - {name: here, launcher: process, options: {runner_log_dir: /l}, start_deadline: 5s}\n",
        )
        .unwrap();
        let [spot, here] = long.targets.as_slice() else { panic!("two") };
        assert_eq!(
            (spot.capacity, spot.max_tasks, spot.kinds.as_slice()),
            (Capacity::Spot, Some(5), &[EgressKind::Track][..])
        );
        assert_eq!(spot.launches, Some(Quota { burst: 2, per_second: 2.0 }));
        assert!(spot.takes_uploads && !spot.takes_local_files && here.takes_local_files);
        assert!(matches!(&here.launcher, LauncherConfig::Process { log_dir: Some(dir), .. } if dir.ends_with("l")));
        assert_eq!(here.start_deadline, Some(Duration::from_secs(5)));
    }

    #[test]
    fn containers_run_where_their_options_say_and_keep_no_files() {
        let ecs = "options: {region: r, cluster: c, task_definition: t, subnets: [s]}";
        let config = config(&format!(
            "stack: prod\ntargets:\n- {{name: spot, launcher: ecs, capacity: spot, {ecs}}}\n\
             - {{name: box, launcher: docker, options: {{image: \"runner:1\"}}, outputs: [upload, disk]}}\n"
        ));
        let [spot, docker] = &config.unwrap().targets[..] else { panic!("two") };
        let LauncherConfig::Container(spec) = &spot.launcher else { panic!("{:?}", spot.launcher) };
        assert_eq!((spec.launcher.as_str(), spec.name.as_str()), ("ecs", "spot"));
        assert_eq!((spec.stack.as_str(), spec.capacity), ("prod", Capacity::Spot));
        assert!(spot.takes_uploads && !spot.takes_local_files && docker.takes_local_files);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_the_target() {
        for (text, message) in [
            ("launcher: simulated\ntargets: [{name: a, launcher: simulated}]\n", "`launcher`: stands beside targets"),
            ("targets: [{name: a, launcher: simulated}, {name: a, launcher: process}]\n", "two are called \"a\""),
            ("targets: [{name: a b, launcher: simulated}]\n", "\"a b\" is no name"),
            ("targets: [{name: a}]\n", "a: `launcher` is missing"),
            ("targets: [{name: a, launcher: simulated, options: {burts: 1}}]\n", "a: options: unknown field `burts`"),
            ("targets: [{name: a, launcher: simulated, launches_per_second: 0}]\n", "launches_per_second must be"),
            ("launcher: ecs\n", "`launcher`: needs to know where its tasks run"),
            (
                "stack: prod\ntargets: [{name: a, launcher: aci, options: {subscription: s}}]\n",
                "`resource_group` is missing",
            ),
            (
                "targets: [{name: a, launcher: docker, options: {image: i}}]\n",
                "`stack`: needed for target a: write a name of this installation, as `stack: production`",
            ),
            ("stack: ' '\ntargets: [{name: a, launcher: ecs}]\n", "`stack`: needed for target a"),
            ("stack: ''\ntargets: [{name: a, launcher: cloud-run}]\n", "`stack`: needed for target a"),
            ("targets: [{name: b, launcher: process}, {name: a, launcher: aci}]\n", "`stack`: needed for target a"),
            ("tenants: {weight: 0}\n", "a weight must be more than 0"),
        ] {
            let given = config(text).unwrap_err();
            assert!(given.contains(message), "{text}\n{given}");
        }
    }
}
