//! `--check-config`: the effective configuration without its secrets, and the keys that have no effect. And the
//! reference in `CONFIG.md`. Only makes text.

use std::fmt::Write;
use std::time::Duration;

use serde_yaml_ng::Value;
use spillway_plan::built_in_template;
use spillway_protocol::requested::without_credentials;

use super::duration::GoDuration;
use super::keys::{self, File, Logging, Push, Runner, SessionLimits};
use super::section::{KeyEffect, KeyRow};
use super::settings::{Config, Trust};
use super::targets::LauncherConfig;
use super::values::{Affinity, Cores, LauncherName, Level, ResumeName, ServerUrl};

/// The effective configuration as annotated YAML.
///
/// # Errors
/// When YAML cannot express a value; no configuration is known for which that happens.
pub fn report(config: &Config, file: &File) -> Result<String, serde_yaml_ng::Error> {
    let rows = keys::rows();
    let mut effective_yaml = shown(&effective(config, file), &rows)?;
    // A dozen empty keys of Redis would hide the two that are set.
    for section in ["redis", "guard", "storage", "backup", "s3", "gcp", "azure", "alioss"] {
        prune(&mut effective_yaml, section);
    }
    let mut text =
        format!("# effective configuration (secrets hidden)\n{}", serde_yaml_ng::to_string(&effective_yaml)?);

    let mut given = shown(file, &rows)?;
    prune(&mut given, "redis");
    let set = |effect| -> Vec<&KeyRow> {
        rows.iter().filter(|row| row.effect == effect && find(&given, &row.key).is_some()).collect()
    };
    let mut list = |title: &str, rows: Vec<&KeyRow>| {
        if !rows.is_empty() {
            let _ = writeln!(text, "\n# {title}");
        }
        for row in rows {
            let description =
                if row.description.is_empty() { String::new() } else { format!(" ({})", row.description) };
            let _ = writeln!(text, "#   {}{description}", row.key);
        }
    };
    list("not used yet, the feature comes with a later version:", set(KeyEffect::NotYet));
    list("without effect here:", set(KeyEffect::Without));
    if config.api_key.is_empty() || config.ws_url.is_empty() {
        let _ =
            writeln!(text, "\n# without api_key, api_secret and ws_url each request must bring a token and a ws_url;");
        let _ = writeln!(text, "# livekit-server sends neither");
    }
    Ok(text)
}

/// Every key as a Markdown table, with the defaults that [`Config::default`] really has.
pub fn reference() -> String {
    let rows = keys::rows();
    let usual = effective(&Config::default(), &File::default());
    let usual = serde_yaml_ng::to_value(&usual).unwrap_or_default();
    let mut text = String::from(
        "YAML in a file (`--config`, env `EGRESS_CONFIG_FILE`) or as text (`--config-body`, env `EGRESS_CONFIG_BODY`, which wins).\n\
         Keys are those of livekit/egress, today's and 2022's, and our own; durations are written like `90m`, `5s`, `100ms`. An unknown\n\
         key is an error. `spillway-dispatcher --check-config` prints the effective configuration.\n\n\
         | key | value | default | |\n|---|---|---|---|\n",
    );
    for row in rows.iter().filter(|row| row.effect == KeyEffect::Used) {
        let default = find(&usual, &row.key).map(plain).unwrap_or_default();
        let default = if default.is_empty() { default } else { format!("`{default}`") };
        let _ = writeln!(text, "| `{}` | {} | {default} | {} |", row.key, row.kind, row.description);
    }
    let mut list = |title: &str, effect| {
        let all: Vec<String> = together(&rows, effect).into_iter().map(|key| format!("`{key}`")).collect();
        let _ = writeln!(text, "\n{title}: {}.", all.join(", "));
    };
    list("Accepted and checked, used by later versions", KeyEffect::NotYet);
    list("Accepted so that files of livekit/egress work, without effect here", KeyEffect::Without);
    text
}

/// Keys with this effect; a section whose keys all have it is one entry.
fn together(rows: &[KeyRow], effect: KeyEffect) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for row in rows.iter().filter(|row| row.effect == effect) {
        let head = row.key.split('.').next().unwrap_or_default();
        let same = |other: &&KeyRow| other.key.split('.').next() == Some(head);
        let whole =
            rows.iter().filter(same).all(|other| other.effect == effect || other.key.ends_with("aws_log_level"));
        let name = match (whole, row.key.contains('.')) {
            (true, true) => format!("{head}.*"),
            _ => row.key.clone(),
        };
        let nested = row.key.ends_with(".aws_log_level");
        if !nested && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The file as YAML without secrets: keys declared as secret, and passwords in URLs.
fn shown(file: &File, rows: &[KeyRow]) -> Result<Value, serde_yaml_ng::Error> {
    let mut value = serde_yaml_ng::to_value(file)?;
    for row in rows.iter().filter(|row| row.secret) {
        if let Some(secret) = find_mut(&mut value, &row.key)
            && *secret != Value::String(String::new())
        {
            *secret = Value::String("[secret]".to_owned());
        }
    }
    credentials(&mut value);
    Ok(value)
}

fn credentials(value: &mut Value) {
    match value {
        Value::String(text) if text.contains('@') => *text = without_credentials(text),
        Value::Sequence(list) => list.iter_mut().for_each(credentials),
        Value::Mapping(map) => map.values_mut().for_each(credentials),
        _ => {}
    }
}

fn find<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |value, key| value.get(key)).filter(|value| !value.is_null())
}

fn find_mut<'a>(value: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    path.split('.').try_fold(value, |value, key| value.get_mut(key)).filter(|value| !value.is_null())
}

fn prune(value: &mut Value, section: &str) {
    fn empty(value: &Value) -> bool {
        match value {
            Value::Null | Value::Bool(false) => true,
            Value::String(text) => text.is_empty(),
            Value::Number(number) => number.as_f64() == Some(0.0),
            Value::Sequence(list) => list.is_empty(),
            Value::Mapping(map) => map.values().all(empty),
            _ => false,
        }
    }
    if let Some(Value::Mapping(map)) = value.get_mut(section) {
        map.retain(|_, value| !empty(value));
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(given) => given.to_string(),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    }
}

/// The effective configuration under the names of the file. The runner's section shows the runner's defaults where the
/// file sets nothing.
fn effective(config: &Config, file: &File) -> File {
    let (program, log_dir, launcher) = match config.targets.first().map(|target| &target.launcher) {
        // Each target has its own launcher.
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
    let duration = |nanos: Option<u64>| Some(GoDuration(Duration::from_nanos(nanos.unwrap_or_default())));
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
        console: file.console.clone(),
        links_in_details: Some(config.links_in_details),
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
        resume: Some(if config.resume { ResumeName::Auto } else { ResumeName::Off }),
        drain: Some(GoDuration(config.drain)),
        bid: Some(Affinity(config.bid)),
        ticket_key: config.ticket_key.clone(),
        runner: Some(runner_defaults(file)),
        session_limits: Some(SessionLimits {
            file_output_max_duration: duration(limits.file_max_duration_ns),
            file_output_max_size: Some(limits.file_max_bytes.unwrap_or_default()),
            stream_output_max_duration: duration(limits.stream_max_duration_ns),
            segment_output_max_duration: duration(limits.segment_max_duration_ns),
            segment_output_max_size: Some(limits.segment_max_bytes.unwrap_or_default()),
            image_output_max_duration: duration(limits.image_max_duration_ns),
        }),
        composite_engine: Some(config.defaults.pages.engine),
        // Ours has no address that means anything elsewhere.
        template_base: config.defaults.pages.template_base.clone().filter(|base| base != built_in_template::URL),
        insecure: Some(file.insecure.unwrap_or_default()),
        enable_chrome_sandbox: file.enable_chrome_sandbox,
        chrome_flags: file.chrome_flags.clone(),
        guard: file.guard.clone(),
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

/// The runner's own defaults (`runner/src/config.rs`) where the file sets nothing.
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
        live_reorder: or(given.live_reorder, 500),
        appear: or(given.appear, 30_000),
        return_grace: or(given.return_grace, 10_000),
        backlog_bytes: given.backlog_bytes.or(Some(256 << 20)),
        spill_dir: given.spill_dir,
        fragment: or(given.fragment, 1000),
        checkpoint: or(given.checkpoint, 10_000),
        spool_dir: given.spool_dir,
        spool_bytes: given.spool_bytes.or(Some(2 << 30)),
        outage: or(given.outage, 15 * 60_000),
        backup_after: or(given.backup_after, 60_000),
        write_check: given.write_check.or(Some(true)),
        stream_ca_file: given.stream_ca_file,
        stream_tls_skip_verify: given.stream_tls_skip_verify.or(Some(false)),
        streams_thin_files: given.streams_thin_files.or(Some(true)),
        poster: given.poster.or(Some(false)),
        contact_sheet: given.contact_sheet.or(Some(false)),
        thumbnails: or(given.thumbnails, 0),
        chromium: given.chromium.or(Some("/usr/lib/chromium/chromium".into())),
        allow_webrtc: given.allow_webrtc.or(Some(false)),
        page_proxy: given.page_proxy,
        template_folder: given.template_folder.or(Some("/usr/share/spillway/template".into())),
    }
}
