//! The parsed file → [`Config`]: defaults, old names, and contradictions between keys. Reads the price list and the
//! certificate authorities of streams.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use spillway_bus::TicketKey;
use spillway_cost::{PriceError, PriceList};
use spillway_guard::{AllowEntry, GuardRules};
use spillway_plan::{Defaults, LimitRules, SheetRules};
use spillway_process::chain;

use super::duration::GoDuration;
use super::error::ConfigError;
use super::keys::{File, Push, Runner};
use super::settings::{Config, Trust};
use super::values::ResumeName;
use super::{console, pages, stores, targets, tenants};

/// What the dispatcher works with.
///
/// # Errors
/// When a value is not possible, two keys contradict each other, or a file that is named cannot be read; no retry.
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
        // Derived from an empty secret, the key would be public.
        None if api_secret.reveal().is_empty() => {
            let message = "needed where there is no api_secret to derive it from".to_owned();
            return Err(ConfigError::Value { key: "ticket_key", message });
        }
        None => {}
    }
    let ws_url = file.ws_url.as_ref().map(|url| url.as_str().to_owned()).unwrap_or_default();
    let logging = file.logging.clone().unwrap_or_default();
    let level = logging.level.or(file.log_level);
    let local_root = file.local_root.clone().or_else(|| file.local_directory.clone());
    let guard = guard(file)?;
    Ok(Config {
        defaults: Defaults {
            mints_tokens: !api_key.is_empty(),
            knows_server: !ws_url.is_empty(),
            storage: stores::resolve(file)?,
            limits: limits(file),
            sheets: sheets(file)?,
            pages: pages::rules(file)?,
        },
        redis,
        api_key,
        api_secret,
        ws_url,
        ticket_key,
        targets: targets::resolve(file)?,
        tenants: tenants::resolve(file)?,
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
        resume: resumes(file),
        health: health(file)?,
        push: push(file)?,
        console: console::resolve(file)?,
        links_in_details: file.links_in_details.unwrap_or_default(),
        drain: file.drain.map_or(usual.drain, |duration| duration.0),
        runner: runner(file, local_root.clone(), &guard)?,
        guard,
        local_root,
        log_level: level.map_or(usual.log_level, |level| level.as_str().to_owned()),
        log_json: logging.json.unwrap_or_default(),
    })
}

fn resumes(file: &File) -> bool {
    file.resume != Some(ResumeName::Off)
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

fn limits(file: &File) -> LimitRules {
    let given = file.session_limits.clone().unwrap_or_default();
    let nanos = |duration: Option<GoDuration>| {
        let nanos = duration.map(|duration| u64::try_from(duration.0.as_nanos()).unwrap_or(u64::MAX));
        nanos.filter(|nanos| *nanos > 0)
    };
    LimitRules {
        file_max_duration_ns: nanos(given.file_output_max_duration),
        stream_max_duration_ns: nanos(given.stream_output_max_duration),
        segment_max_duration_ns: nanos(given.segment_output_max_duration),
        image_max_duration_ns: nanos(given.image_output_max_duration),
        file_max_bytes: given.file_output_max_size.filter(|bytes| *bytes > 0),
        segment_max_bytes: given.segment_output_max_size.filter(|bytes| *bytes > 0),
    }
}

/// What lies beside every recording; it is part of the plan and not of the runner's settings, because it has a price.
fn sheets(file: &File) -> Result<SheetRules, ConfigError> {
    const MIN_INTERVAL: Duration = Duration::from_secs(1);
    let Runner { poster, contact_sheet, thumbnails, .. } = file.runner.clone().unwrap_or_default();
    let interval = thumbnails.map(|duration| duration.0).filter(|interval| !interval.is_zero());
    if interval.is_some_and(|interval| interval < MIN_INTERVAL) {
        let message = "less than 1s between two thumbnails".to_owned();
        return Err(ConfigError::Value { key: "runner.thumbnails", message });
    }
    Ok(SheetRules {
        poster: poster.unwrap_or_default(),
        contact_sheet: contact_sheet.unwrap_or_default(),
        thumbnails_ns: interval.map(|interval| u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX)),
    })
}

/// What requests may name, checked here: a runner passes over an entry that it does not understand.
fn guard(file: &File) -> Result<GuardRules, ConfigError> {
    let allow = file.guard.as_ref().and_then(|guard| guard.allow.clone()).unwrap_or_default();
    for text in &allow {
        text.parse::<AllowEntry>().map_err(|error| ConfigError::Value {
            key: "guard.allow",
            message: format!("{text:?} is no entry, {error}"),
        })?;
    }
    Ok(GuardRules { allow })
}

/// The text of a PEM file: the runner may be on another machine.
fn stream_ca(path: PathBuf) -> Result<String, ConfigError> {
    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";
    match std::fs::read_to_string(&path) {
        Ok(text) if text.contains(CERTIFICATE) => Ok(text),
        Ok(_) => {
            let message = format!("no certificate in {}", path.display());
            Err(ConfigError::Value { key: "runner.stream_ca_file", message })
        }
        Err(source) => Err(ConfigError::File { path, source }),
    }
}

/// The runner's section under the names the runner reads; what is not set, the runner fills in itself. The guard's rules are
/// always there: without them a runner takes this dispatcher for one that knows no guard.
fn runner(file: &File, local_root: Option<PathBuf>, guard: &GuardRules) -> Result<serde_json::Value, ConfigError> {
    let Runner {
        start_timeout,
        hang_after,
        drain_timeout,
        last_report_timeout,
        report_timeout,
        reorder,
        live_reorder,
        appear,
        return_grace,
        backlog_bytes,
        spill_dir,
        fragment,
        checkpoint,
        spool_dir,
        spool_bytes,
        outage,
        backup_after,
        write_check,
        stream_ca_file,
        stream_tls_skip_verify,
        streams_thin_files,
        // Of the plan: `sheets`.
        poster: _,
        contact_sheet: _,
        thumbnails: _,
        // Of pages: `pages`.
        chromium: _,
        allow_webrtc: _,
        page_proxy: _,
        template_folder: _,
    } = file.runner.clone().unwrap_or_default();
    let reorder = reorder.or(file.latency.as_ref().and_then(|latency| latency.jitter_buffer_latency));
    let mut media = serde_json::Map::new();
    let mut all = serde_json::Map::new();
    all.insert("guard".to_owned(), serde_json::json!({ "allow": guard.allow }));
    let put = |map: &mut serde_json::Map<String, serde_json::Value>, key: &str, value: Option<serde_json::Value>| {
        if let Some(value) = value {
            map.insert(key.to_owned(), value);
        }
    };
    let millis = |duration: Option<GoDuration>| duration.map(|duration| duration.millis().into());
    put(&mut media, "reorder_ms", millis(reorder));
    put(&mut media, "live_reorder_ms", millis(live_reorder));
    put(&mut media, "appear_ms", millis(appear));
    put(&mut media, "return_grace_ms", millis(return_grace));
    put(&mut media, "backlog_bytes", backlog_bytes.map(Into::into));
    let text = |path: Option<PathBuf>| path.map(|path| path.to_string_lossy().into_owned().into());
    put(&mut media, "spill_dir", text(spill_dir));
    put(&mut media, "fragment_ms", millis(fragment));
    put(&mut media, "streams_thin_files", streams_thin_files.map(Into::into));
    let mut streams = serde_json::Map::new();
    put(&mut streams, "ca", stream_ca_file.map(stream_ca).transpose()?.map(Into::into));
    put(&mut streams, "tls_skip_verify", stream_tls_skip_verify.map(Into::into));
    if !streams.is_empty() {
        media.insert("streams".to_owned(), streams.into());
    }
    let page = pages::settings(file)?;
    if !page.is_empty() {
        media.insert("page".to_owned(), page.into());
    }
    put(&mut all, "media_restarts", (!resumes(file)).then(|| 0.into()));
    put(&mut all, "local_root", text(local_root));
    put(&mut all, "template_base", pages::rules(file)?.template_base.map(Into::into));
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
    Ok(all.into())
}
