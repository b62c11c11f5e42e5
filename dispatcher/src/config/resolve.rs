//! From what was said to what holds: environment, old names, defaults, and what contradicts itself.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use spillway_bus::TicketKey;
use spillway_cost::{PriceError, PriceList};
use spillway_plan::{Defaults, Limits};
use spillway_process::chain;
use spillway_protocol::Secret;

use super::duration::GoDuration;
use super::keys::{Azure, File, Gcp, Logging, Push, Runner, S3, SessionLimits};
use super::values::{Affinity, Cores, LauncherName, Level, ServerUrl};
use super::{Config, ConfigError, Environment, LauncherConfig, stores, targets};
use crate::events::Trust;

/// Everything the first README promised, and what LiveKit's services read besides. A value in the file wins.
pub fn with_environment(mut file: File, env: Environment) -> Result<File, ConfigError> {
    let env = |name: &str| env(name).filter(|value| !value.is_empty());
    let wrong = |key, message: String| ConfigError::Value { key, message };
    if file.api_key.as_ref().is_none_or(String::is_empty) {
        file.api_key = env("LIVEKIT_API_KEY").or(file.api_key);
    }
    if is_unset(file.api_secret.as_ref()) {
        file.api_secret = env("LIVEKIT_API_SECRET").map(Secret::new).or(file.api_secret);
    }
    // These two as the runner finds them in a container: a secret store fills variables, not places in a text.
    if is_unset(file.ticket_key.as_ref()) {
        file.ticket_key = env("SPILLWAY_TICKET_KEY").map(Secret::new).or(file.ticket_key);
    }
    if let Some(redis) = &mut file.redis
        && is_unset(Some(&redis.password))
        && let Some(password) = env("SPILLWAY_REDIS_PASSWORD")
    {
        redis.password = Secret::new(password);
    }
    if file.ws_url.as_ref().is_none_or(|url| url.as_str().is_empty())
        && let Some(url) = env("LIVEKIT_WS_URL")
    {
        file.ws_url = Some(ServerUrl::try_from(url).map_err(|message| wrong("LIVEKIT_WS_URL", message))?);
    }
    if file.cores.is_none()
        && let Some(cores) = env("LIVEKIT_CPU_REQUEST")
    {
        let cores: f64 =
            cores.parse().map_err(|_| wrong("LIVEKIT_CPU_REQUEST", format!("\"{cores}\" is no number of cores")))?;
        // Zero and less mean "not said" to LiveKit.
        file.cores = Cores::try_from(cores).ok();
    }
    let storages = [file.storage.as_mut(), file.backup.as_mut()];
    for storage in storages.into_iter().flatten() {
        s3_environment(storage.s3.as_mut(), env);
        azure_environment(storage.azure.as_mut(), env);
        gcp_environment(storage.gcp.as_mut(), env)?;
    }
    s3_environment(file.s3.as_mut(), env);
    azure_environment(file.azure.as_mut(), env);
    gcp_environment(file.gcp.as_mut(), env)?;
    Ok(file)
}

fn s3_environment(s3: Option<&mut S3>, env: impl Fn(&str) -> Option<String>) {
    let Some(s3) = s3 else { return };
    // Key and secret belong together: one of each would be neither.
    if is_unset(s3.access_key.as_ref()) && is_unset(s3.secret.as_ref()) {
        s3.access_key = env("AWS_ACCESS_KEY_ID").map(Secret::new);
        s3.secret = env("AWS_SECRET_ACCESS_KEY").map(Secret::new);
        if is_unset(s3.session_token.as_ref()) {
            s3.session_token = env("AWS_SESSION_TOKEN").map(Secret::new);
        }
    }
    if s3.region.as_ref().is_none_or(String::is_empty) {
        s3.region = env("AWS_REGION").or_else(|| env("AWS_DEFAULT_REGION"));
    }
}

fn azure_environment(azure: Option<&mut Azure>, env: impl Fn(&str) -> Option<String>) {
    let Some(azure) = azure else { return };
    if azure.account_name.as_ref().is_none_or(String::is_empty) {
        azure.account_name = env("AZURE_STORAGE_ACCOUNT");
    }
    if is_unset(azure.account_key.as_ref()) {
        azure.account_key = env("AZURE_STORAGE_KEY").map(Secret::new);
    }
}

fn gcp_environment(gcp: Option<&mut Gcp>, env: impl Fn(&str) -> Option<String>) -> Result<(), ConfigError> {
    let Some(gcp) = gcp else { return Ok(()) };
    if is_unset(gcp.credentials_json.as_ref())
        && let Some(path) = env("GOOGLE_APPLICATION_CREDENTIALS")
    {
        let path = std::path::PathBuf::from(path);
        let json = std::fs::read_to_string(&path).map_err(|source| ConfigError::File { path, source })?;
        gcp.credentials_json = Some(Secret::new(json));
    }
    Ok(())
}

fn is_unset(secret: Option<&Secret>) -> bool {
    secret.is_none_or(|secret| secret.reveal().is_empty())
}

pub fn resolve(file: &File) -> Result<Config, ConfigError> {
    let usual = Config::default();
    let redis = file.redis.clone().unwrap_or_default();
    if !redis.is_configured() {
        let message =
            "redis is not configured: set redis.address (or sentinel_addresses, cluster_addresses)".to_owned();
        return Err(ConfigError::Value { key: "redis", message });
    }
    let api_key = file.api_key.clone().unwrap_or_default();
    let api_secret = file.api_secret.clone().unwrap_or_default();
    if api_key.is_empty() != api_secret.reveal().is_empty() {
        let key = if api_key.is_empty() { "api_key" } else { "api_secret" };
        return Err(ConfigError::Value {
            key,
            message: "key and secret belong together, this one is missing".to_owned(),
        });
    }
    let ticket_key = file.ticket_key.clone().filter(|key| !key.reveal().is_empty());
    match &ticket_key {
        Some(text) => {
            TicketKey::from_text(text.reveal())
                .map_err(|error| ConfigError::Value { key: "ticket_key", message: error.to_string() })?;
        }
        // Derived from nothing it would be known to everybody.
        None if api_secret.reveal().is_empty() => {
            let message = "needed where there is no api_secret to derive it from".to_owned();
            return Err(ConfigError::Value { key: "ticket_key", message });
        }
        None => {}
    }
    let ws_url = file.ws_url.as_ref().map(|url| url.as_str().to_owned()).unwrap_or_default();
    let logging = file.logging.clone().unwrap_or_default();
    let level = logging.level.or(file.log_level);
    Ok(Config {
        defaults: Defaults {
            mints_tokens: !api_key.is_empty(),
            knows_server: !ws_url.is_empty(),
            storage: stores::resolve(file)?,
            limits: limits(file),
        },
        redis,
        api_key,
        api_secret,
        ws_url,
        ticket_key,
        targets: targets::resolve(file)?,
        tenants: targets::tenants(file)?,
        max_tasks: file.max_tasks,
        stack: file.stack.clone().unwrap_or_default(),
        orphan_grace: file.orphan_grace.map_or(usual.orphan_grace, |duration| duration.0),
        prices: prices(file)?,
        metrics: file.prometheus_port.filter(|port| *port != 0).map(everywhere),
        bid: file.bid.map_or(usual.bid, |bid| bid.0),
        cores: file.cores.map(|cores| cores.0),
        max_recordings: file.max_recordings.map(size),
        queue: file.queue.map_or(usual.queue, size),
        queue_deadline: file.queue_deadline.map_or(usual.queue_deadline, |duration| duration.0),
        start_deadline: file.start_deadline.map_or(usual.start_deadline, |duration| duration.0),
        heartbeat_timeout: file.heartbeat_timeout.map_or(usual.heartbeat_timeout, |duration| duration.0),
        health: health(file)?,
        push: push(file)?,
        drain: file.drain.map_or(usual.drain, |duration| duration.0),
        local_root: file.local_root.clone().or_else(|| file.local_directory.clone()),
        runner: runner(file),
        log_level: level.map_or(usual.log_level, |level| level.as_str().to_owned()),
        log_json: logging.json.unwrap_or_default(),
    })
}

fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn health(file: &File) -> Result<Option<SocketAddr>, ConfigError> {
    match (file.health, file.health_port.filter(|port| *port != 0)) {
        (Some(_), Some(_)) => {
            Err(ConfigError::Value { key: "health", message: "stands beside health_port, keep one of them".to_owned() })
        }
        (Some(address), None) => Ok(Some(address)),
        (None, Some(port)) => Ok(Some(everywhere(port))),
        (None, None) => Ok(None),
    }
}

const GOOGLES_KEYS: &str = "https://www.googleapis.com/oauth2/v3/certs";

fn push(file: &File) -> Result<Option<Trust>, ConfigError> {
    let Push { audience, service_account, keys } = file.push.clone().unwrap_or_default();
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    match (given(audience), given(service_account)) {
        (None, None) => Ok(None),
        (Some(audience), Some(account)) => {
            let keys = given(keys).unwrap_or_else(|| GOOGLES_KEYS.to_owned());
            Ok(Some(Trust { audience, account, keys }))
        }
        _ => {
            let message = "audience and service_account belong together, one is missing".to_owned();
            Err(ConfigError::Value { key: "push", message })
        }
    }
}

fn everywhere(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)
}

fn prices(file: &File) -> Result<Arc<PriceList>, ConfigError> {
    let wrong = |error: PriceError| ConfigError::Value { key: "prices", message: chain(&error).to_string() };
    let list = match &file.prices {
        None => PriceList::built_in().map_err(wrong)?,
        Some(path) => {
            let read = std::fs::read_to_string(path);
            let text = read.map_err(|source| ConfigError::File { path: path.clone(), source })?;
            PriceList::parse(&text).map_err(wrong)?
        }
    };
    Ok(Arc::new(list))
}

fn limits(file: &File) -> Limits {
    let SessionLimits { file_output_max_duration, file_output_max_size, .. } =
        file.session_limits.clone().unwrap_or_default();
    let nanos = |duration: GoDuration| u64::try_from(duration.0.as_nanos()).unwrap_or(u64::MAX);
    Limits {
        max_duration_ns: file_output_max_duration.map(nanos).filter(|nanos| *nanos > 0),
        max_file_bytes: file_output_max_size.filter(|bytes| *bytes > 0),
    }
}

/// The settings in the words of the runner, which fills in its own defaults.
fn runner(file: &File) -> serde_json::Value {
    let Runner {
        start_timeout,
        hang_after,
        drain_timeout,
        last_report_timeout,
        report_timeout,
        reorder,
        appear,
        backlog_bytes,
        spill_dir,
        fragment,
        checkpoint,
        spool_dir,
        spool_bytes,
        outage,
        backup_after,
        write_check,
    } = file.runner.clone().unwrap_or_default();
    let reorder = reorder.or(file.latency.as_ref().and_then(|latency| latency.jitter_buffer_latency));
    let mut media = serde_json::Map::new();
    let mut all = serde_json::Map::new();
    let put = |map: &mut serde_json::Map<String, serde_json::Value>, key: &str, value: Option<serde_json::Value>| {
        if let Some(value) = value {
            map.insert(key.to_owned(), value);
        }
    };
    let millis = |duration: Option<GoDuration>| duration.map(|duration| duration.millis().into());
    put(&mut media, "reorder_ms", millis(reorder));
    put(&mut media, "appear_ms", millis(appear));
    put(&mut media, "backlog_bytes", backlog_bytes.map(Into::into));
    let text = |path: Option<PathBuf>| path.map(|path| path.to_string_lossy().into_owned().into());
    put(&mut media, "spill_dir", text(spill_dir));
    put(&mut media, "fragment_ms", millis(fragment));
    put(&mut all, "start_timeout_ms", millis(start_timeout));
    put(&mut all, "hang_after_ms", millis(hang_after));
    put(&mut all, "drain_timeout_ms", millis(drain_timeout));
    put(&mut all, "last_report_timeout_ms", millis(last_report_timeout));
    put(&mut all, "report_timeout_ms", millis(report_timeout));
    let mut upload = serde_json::Map::new();
    put(&mut upload, "checkpoint_ms", millis(checkpoint));
    put(&mut upload, "spool_dir", text(spool_dir));
    put(&mut upload, "spool_cap_bytes", spool_bytes.map(Into::into));
    put(&mut upload, "max_outage_ms", millis(outage));
    put(&mut upload, "backup_after_ms", millis(backup_after));
    put(&mut upload, "write_check", write_check.map(Into::into));
    for (name, part) in [("media", media), ("upload", upload)] {
        if !part.is_empty() {
            all.insert(name.to_owned(), part.into());
        }
    }
    all.into()
}

/// What holds, in the words of the file; the runner's part is the runner's own where nothing is said.
pub fn effective(config: &Config, file: &File) -> File {
    let (program, log_dir, launcher) = match config.targets.first().map(|target| &target.launcher) {
        // What each target says stands there.
        _ if file.targets.is_some() => (file.runner_program.clone(), file.runner_log_dir.clone(), None),
        Some(LauncherConfig::Process { program, log_dir }) => {
            (program.clone(), log_dir.clone(), Some(LauncherName::Process))
        }
        Some(LauncherConfig::Simulated { .. }) => (None, None, Some(LauncherName::Simulated)),
        None | Some(LauncherConfig::Container(_)) => (None, None, None),
    };
    let level = [Level::Debug, Level::Info, Level::Warn, Level::Error];
    let level = level.into_iter().find(|level| level.as_str() == config.log_level).unwrap_or(Level::Info);
    let limits = &config.defaults.limits;
    File {
        redis: Some(config.redis.clone()),
        api_key: Some(config.api_key.clone()),
        api_secret: Some(config.api_secret.clone()),
        ws_url: ServerUrl::try_from(config.ws_url.clone()).ok(),
        logging: Some(Logging { level: Some(level), json: Some(config.log_json), ..Logging::default() }),
        health: config.health,
        push: config.push.clone().map(|Trust { audience, account, keys }| Push {
            audience: Some(audience),
            service_account: Some(account),
            keys: Some(keys),
        }),
        launcher,
        targets: file.targets.clone(),
        tenants: file.tenants.clone(),
        max_tasks: config.max_tasks,
        stack: Some(config.stack.clone()),
        orphan_grace: Some(GoDuration(config.orphan_grace)),
        prices: file.prices.clone(),
        prometheus_port: config.metrics.map(|at| at.port()),
        runner_program: program,
        runner_log_dir: log_dir,
        local_root: config.local_root.clone(),
        cores: config.cores.and_then(|cores| Cores::try_from(cores).ok()),
        max_recordings: config.max_recordings.map(|max| max as u64),
        queue: Some(config.queue as u64),
        queue_deadline: Some(GoDuration(config.queue_deadline)),
        start_deadline: Some(GoDuration(config.start_deadline)),
        heartbeat_timeout: Some(GoDuration(config.heartbeat_timeout)),
        drain: Some(GoDuration(config.drain)),
        bid: Some(Affinity(config.bid)),
        ticket_key: config.ticket_key.clone(),
        runner: Some(runner_defaults(file)),
        session_limits: Some(SessionLimits {
            file_output_max_duration: Some(
                limits
                    .max_duration_ns
                    .map_or_else(GoDuration::default, |nanos| GoDuration(std::time::Duration::from_nanos(nanos))),
            ),
            file_output_max_size: Some(limits.max_file_bytes.unwrap_or_default()),
            ..SessionLimits::default()
        }),
        disallow_local_storage: Some(config.defaults.storage.disallow_local),
        storage: file.storage.clone(),
        backup: file.backup.clone(),
        s3: file.s3.clone(),
        gcp: file.gcp.clone(),
        azure: file.azure.clone(),
        alioss: file.alioss.clone(),
        backup_storage: file.backup_storage.clone(),
        s3_assume_role_key: file.s3_assume_role_key.clone(),
        s3_assume_role_secret: file.s3_assume_role_secret.clone(),
        s3_assume_role_arn: file.s3_assume_role_arn.clone(),
        s3_assume_role_external_id: file.s3_assume_role_external_id.clone(),
        ..File::default()
    }
}

/// The runner's own defaults where nothing is said; a test holds them to the runner's.
fn runner_defaults(file: &File) -> Runner {
    let given = file.runner.clone().unwrap_or_default();
    let jitter = file.latency.as_ref().and_then(|latency| latency.jitter_buffer_latency);
    let or = |given: Option<GoDuration>, millis| given.or(Some(GoDuration::from_millis(millis)));
    Runner {
        start_timeout: or(given.start_timeout, 0),
        hang_after: or(given.hang_after, 10_000),
        drain_timeout: or(given.drain_timeout, 30_000),
        last_report_timeout: or(given.last_report_timeout, 15 * 60_000),
        report_timeout: or(given.report_timeout, 30_000),
        reorder: or(given.reorder.or(jitter), 2000),
        appear: or(given.appear, 30_000),
        backlog_bytes: given.backlog_bytes.or(Some(256 << 20)),
        spill_dir: given.spill_dir,
        fragment: or(given.fragment, 1000),
        checkpoint: or(given.checkpoint, 10_000),
        spool_dir: given.spool_dir,
        spool_bytes: given.spool_bytes.or(Some(2 << 30)),
        outage: or(given.outage, 15 * 60_000),
        backup_after: or(given.backup_after, 60_000),
        write_check: given.write_check.or(Some(true)),
    }
}
