//! Where recordings may run, in order of preference, and whose they are.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::DeserializeOwned;
use spillway_cost::Capacity;
use spillway_launchers::{Opening, Quota};
use spillway_plan::Kind;

use super::duration::GoDuration;
use super::keys::{self, File};
use super::values::{CapacityName, LauncherName, OutputName, OverBudgetName, TenantByName};
use super::{ConfigError, LauncherConfig};

#[derive(Clone, Debug)]
pub struct TargetConfig {
    pub name: String,
    pub launcher: LauncherConfig,
    pub capacity: Capacity,
    /// Tasks there at once, of all dispatchers.
    pub most_tasks: Option<u64>,
    /// `None`: what the launcher's platform surely takes.
    pub launches: Option<Quota>,
    /// Empty: all.
    pub kinds: Vec<Kind>,
    pub takes_uploads: bool,
    pub takes_local_files: bool,
    /// For prices; empty: the platform's first in the list.
    pub region: String,
    pub arch: String,
    pub nat: bool,
    /// `None`: the installation's.
    pub start_deadline: Option<Duration>,
}

impl TargetConfig {
    /// With nothing said but where.
    pub fn of(name: &str, launcher: LauncherConfig) -> Self {
        Self {
            name: name.to_owned(),
            launcher,
            capacity: Capacity::OnDemand,
            most_tasks: None,
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

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tenants {
    pub by: TenantBy,
    /// For everyone who is not named.
    pub usual: Tenant,
    pub named: BTreeMap<String, Tenant>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TenantBy {
    /// There is one, without a name.
    #[default]
    Nothing,
    /// What stands before the first of these in the room's name; without one, the whole name.
    RoomPrefix(String),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Tenant {
    /// Turns in the line, in proportion to the others.
    pub weight: f64,
    pub most_recordings: Option<u64>,
    pub most_waiting: Option<usize>,
    /// Dollars of finished tasks in a calendar month (UTC).
    pub month_budget: Option<f64>,
    pub over_budget: OverBudget,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OverBudget {
    #[default]
    Refuse,
    Warn,
}

impl Default for Tenant {
    fn default() -> Self {
        Self {
            weight: 1.0,
            most_recordings: None,
            most_waiting: None,
            month_budget: None,
            over_budget: OverBudget::default(),
        }
    }
}

impl Tenants {
    pub fn of(&self, room: &str) -> String {
        match &self.by {
            TenantBy::Nothing => String::new(),
            TenantBy::RoomPrefix(separator) => room.split(separator.as_str()).next().unwrap_or_default().to_owned(),
        }
    }

    pub fn rules(&self, tenant: &str) -> &Tenant {
        self.named.get(tenant).unwrap_or(&self.usual)
    }
}

pub fn settle(file: &File) -> Result<Vec<TargetConfig>, ConfigError> {
    let Some(said) = file.targets.as_ref().filter(|said| !said.is_empty()) else {
        let (name, launcher) = match file.launcher {
            None | Some(LauncherName::Process) => {
                ("process", process(file.runner_program.clone(), file.runner_log_dir.clone()))
            }
            Some(LauncherName::Paper) => ("paper", paper(PaperKeys::default())),
            Some(LauncherName::Ecs | LauncherName::CloudRun | LauncherName::Aci | LauncherName::Docker) => {
                let words = "has to be told where its tasks run: name it in `targets`, with `options`".to_owned();
                return Err(ConfigError::Value { key: "launcher", words });
            }
        };
        return Ok(vec![TargetConfig::of(name, launcher)]);
    };
    if file.launcher.is_some() {
        let words = "stands beside targets, keep one of them".to_owned();
        return Err(ConfigError::Value { key: "launcher", words });
    }
    let targets: Vec<TargetConfig> = said.iter().map(|said| target(said, file)).collect::<Result<_, _>>()?;
    for (place, target) in targets.iter().enumerate() {
        if targets[..place].iter().any(|other| other.name == target.name) {
            return Err(wrong(format!("two are called \"{}\"", target.name)));
        }
    }
    Ok(targets)
}

fn wrong(words: String) -> ConfigError {
    ConfigError::Value { key: "targets", words }
}

fn target(said: &keys::Target, file: &File) -> Result<TargetConfig, ConfigError> {
    let name = said.name.clone().unwrap_or_default();
    // It stands in records, labels, metrics and on command lines.
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/')) {
        return Err(wrong(format!("\"{name}\" is no name for one: letters, digits and - _ . / make one")));
    }
    let options = said.options.clone().unwrap_or_default();
    if said.launcher.is_some_and(is_shared) && file.stack.as_ref().is_none_or(|stack| stack.trim().is_empty()) {
        let words = format!(
            "needed for target {name}: write a name of this installation, as `stack: production`; two installations on one \
             platform need two names"
        );
        return Err(ConfigError::Value { key: "stack", words });
    }
    let launcher = match said.launcher {
        None => return Err(wrong(format!("{name}: `launcher` is missing"))),
        Some(LauncherName::Process) => {
            let ProcessKeys { runner_program, runner_log_dir } = options_of(&name, options)?;
            process(
                runner_program.or_else(|| file.runner_program.clone()),
                runner_log_dir.or_else(|| file.runner_log_dir.clone()),
            )
        }
        Some(LauncherName::Paper) => paper(options_of(&name, options)?),
        Some(LauncherName::Ecs) => container("ecs", said, options, file)?,
        Some(LauncherName::CloudRun) => container("cloud-run", said, options, file)?,
        Some(LauncherName::Aci) => container("aci", said, options, file)?,
        Some(LauncherName::Docker) => container("docker", said, options, file)?,
    };
    // What is written into a container is gone with it.
    let keeps_files = !matches!(launcher, LauncherConfig::Container(_));
    let usual = TargetConfig::of(&name, launcher);
    let launches = match (said.burst, said.launches_per_second) {
        (None, None) => None,
        (burst, per_second) => {
            let per_second = per_second.unwrap_or(f64::from(Quota::FARGATE.burst));
            if !per_second.is_finite() || per_second <= 0.0 {
                return Err(wrong(format!("{name}: launches_per_second must be more than 0")));
            }
            Some(Quota { burst: burst.unwrap_or(per_second.ceil() as u32).max(1), per_second })
        }
    };
    let outputs = said.outputs.clone().unwrap_or_default();
    Ok(TargetConfig {
        capacity: capacity(said),
        most_tasks: said.most_tasks,
        launches,
        kinds: said.kinds.clone().unwrap_or_default(),
        takes_uploads: outputs.is_empty() || outputs.contains(&OutputName::Upload),
        takes_local_files: outputs.is_empty() && keeps_files || outputs.contains(&OutputName::Disk),
        region: said.region.clone().unwrap_or_default(),
        arch: said.arch.clone().unwrap_or_default(),
        nat: said.nat.unwrap_or_default(),
        start_deadline: said.start_deadline.map(|duration| duration.0),
        ..usual
    })
}

/// Other installations may run tasks in the same place, and are seen there.
fn is_shared(launcher: LauncherName) -> bool {
    match launcher {
        LauncherName::Process | LauncherName::Paper => false,
        LauncherName::Ecs | LauncherName::CloudRun | LauncherName::Aci | LauncherName::Docker => true,
    }
}

fn capacity(said: &keys::Target) -> Capacity {
    match said.capacity {
        Some(CapacityName::Spot) => Capacity::Spot,
        _ => Capacity::OnDemand,
    }
}

fn container(
    kind: &str,
    said: &keys::Target,
    options: serde_json::Value,
    file: &File,
) -> Result<LauncherConfig, ConfigError> {
    let opening = Opening {
        launcher: kind.to_owned(),
        name: said.name.clone().unwrap_or_default(),
        stack: file.stack.clone().unwrap_or_default(),
        capacity: capacity(said),
        options,
    };
    spillway_launchers::check(&opening).map_err(|error| wrong(error.to_string()))?;
    Ok(LauncherConfig::Container(opening))
}

#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ProcessKeys {
    runner_program: Option<PathBuf>,
    runner_log_dir: Option<PathBuf>,
}

#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PaperKeys {
    latency: Option<GoDuration>,
    burst: Option<u32>,
    per_second: Option<f64>,
}

fn options_of<T: DeserializeOwned + Default>(name: &str, options: serde_json::Value) -> Result<T, ConfigError> {
    if options.is_null() {
        return Ok(T::default());
    }
    serde_json::from_value(options).map_err(|error| wrong(format!("{name}: options: {error}")))
}

fn process(program: Option<PathBuf>, log_dir: Option<PathBuf>) -> LauncherConfig {
    LauncherConfig::Process { program, log_dir }
}

fn paper(keys: PaperKeys) -> LauncherConfig {
    let latency = keys.latency.map_or(Duration::from_millis(500), |latency| latency.0);
    let quota = Quota {
        burst: keys.burst.unwrap_or(Quota::FARGATE.burst),
        per_second: keys.per_second.unwrap_or(Quota::FARGATE.per_second),
    };
    LauncherConfig::Paper { latency, quota: Some(quota) }
}

pub fn tenants(file: &File) -> Result<Tenants, ConfigError> {
    let said = file.tenants.clone().unwrap_or_default();
    let by = match said.by {
        None | Some(TenantByName::None) => TenantBy::Nothing,
        Some(TenantByName::RoomPrefix) => {
            let separator = said.separator.clone().unwrap_or_else(|| "/".to_owned());
            if separator.is_empty() {
                return Err(ConfigError::Value { key: "tenants", words: "separator must not be empty".to_owned() });
            }
            TenantBy::RoomPrefix(separator)
        }
    };
    let usual = tenant(
        keys::Tenant {
            weight: said.weight,
            most_recordings: said.most_recordings,
            most_waiting: said.most_waiting,
            month_budget: said.month_budget,
            over_budget: said.over_budget,
        },
        &Tenant::default(),
    )?;
    let named = said.named.unwrap_or_default().into_iter();
    let named = named.map(|(name, keys)| Ok((name, tenant(keys, &usual)?))).collect::<Result<_, ConfigError>>()?;
    Ok(Tenants { by, usual, named })
}

fn tenant(keys: keys::Tenant, usual: &Tenant) -> Result<Tenant, ConfigError> {
    let weight = keys.weight.unwrap_or(usual.weight);
    if !weight.is_finite() || weight <= 0.0 {
        return Err(ConfigError::Value { key: "tenants", words: "a weight must be more than 0".to_owned() });
    }
    Ok(Tenant {
        weight,
        most_recordings: keys.most_recordings.or(usual.most_recordings),
        most_waiting: keys.most_waiting.map(|most| usize::try_from(most).unwrap_or(usize::MAX)).or(usual.most_waiting),
        month_budget: keys.month_budget.or(usual.month_budget),
        over_budget: match keys.over_budget {
            None => usual.over_budget,
            Some(OverBudgetName::Refuse) => OverBudget::Refuse,
            Some(OverBudgetName::Warn) => OverBudget::Warn,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    const LEAST: &str = "redis: {address: a:1}\napi_key: k\napi_secret: s\nws_url: ws://x\n";

    fn config(more: &str) -> Result<Config, String> {
        Config::from_yaml(&format!("{LEAST}{more}")).map_err(|error| error.to_string())
    }

    #[test]
    fn one_launcher_is_one_target_and_several_keep_their_order() {
        let short = config("launcher: paper\n").unwrap();
        assert_eq!(short.targets.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["paper"]);
        let long = config(
            "targets:\n- {name: near/spot, launcher: paper, capacity: spot, most_tasks: 5, launches_per_second: 2, kinds: [track], outputs: [upload]}\n\
             - {name: here, launcher: process, options: {runner_log_dir: /l}, start_deadline: 5s}\n",
        )
        .unwrap();
        let [spot, here] = long.targets.as_slice() else { panic!("two") };
        assert_eq!(
            (spot.capacity, spot.most_tasks, spot.kinds.as_slice()),
            (Capacity::Spot, Some(5), &[Kind::Track][..])
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
        let LauncherConfig::Container(opening) = &spot.launcher else { panic!("{:?}", spot.launcher) };
        assert_eq!((opening.launcher.as_str(), opening.name.as_str()), ("ecs", "spot"));
        assert_eq!((opening.stack.as_str(), opening.capacity), ("prod", Capacity::Spot));
        assert!(spot.takes_uploads && !spot.takes_local_files && docker.takes_local_files);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_the_target() {
        for (text, words) in [
            ("launcher: paper\ntargets: [{name: a, launcher: paper}]\n", "`launcher`: stands beside targets"),
            ("targets: [{name: a, launcher: paper}, {name: a, launcher: process}]\n", "two are called \"a\""),
            ("targets: [{name: a b, launcher: paper}]\n", "\"a b\" is no name"),
            ("targets: [{name: a}]\n", "a: `launcher` is missing"),
            ("targets: [{name: a, launcher: paper, options: {burts: 1}}]\n", "a: options: unknown field `burts`"),
            ("targets: [{name: a, launcher: paper, launches_per_second: 0}]\n", "launches_per_second must be"),
            ("launcher: ecs\n", "`launcher`: has to be told where its tasks run"),
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
            let said = config(text).unwrap_err();
            assert!(said.contains(words), "{text}\n{said}");
        }
    }

    #[test]
    fn a_tenant_is_what_the_room_is_called_up_to_the_separator() {
        let tenants = config(
            "tenants: {by: room_prefix, separator: '--', most_recordings: 3, month_budget: 10, named: {acme: {weight: 2, over_budget: warn}}}\n",
        )
        .unwrap()
        .tenants;
        assert_eq!((tenants.of("acme--standup").as_str(), tenants.of("lobby").as_str()), ("acme", "lobby"));
        let acme = tenants.rules("acme");
        assert_eq!((acme.weight, acme.most_recordings, acme.over_budget), (2.0, Some(3), OverBudget::Warn));
        assert_eq!(tenants.rules("lobby").over_budget, OverBudget::Refuse);
        assert_eq!(Tenants::default().of("acme--standup"), "");
    }
}
