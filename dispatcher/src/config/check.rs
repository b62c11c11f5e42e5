//! `--check-config`: what holds, without its secrets, and what was said in vain. And the reference in `CONFIG.md`.

use std::fmt::Write;

use serde_yaml_ng::Value;
use spillway_protocol::redact;

use super::keys::{self, File};
use super::section::{KeyEffect, KeyRow};
use super::{Config, resolve};

/// What holds, as YAML with remarks.
pub fn report(config: &Config, file: &File) -> Result<String, serde_yaml_ng::Error> {
    let rows = keys::rows();
    let mut holds = shown(&resolve::effective(config, file), &rows)?;
    // A dozen empty keys of Redis would hide the two that matter.
    for section in ["redis", "storage", "backup", "s3", "gcp", "azure", "alioss"] {
        prune(&mut holds, section);
    }
    let mut text = format!("# what holds (secrets hidden)\n{}", serde_yaml_ng::to_string(&holds)?);

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

/// Every key as a Markdown table, defaults from the values that are really used.
pub fn reference() -> String {
    let rows = keys::rows();
    let usual = resolve::effective(&Config::default(), &File::default());
    let usual = serde_yaml_ng::to_value(&usual).unwrap_or_default();
    let mut text = String::from(
        "YAML in a file (`--config`, env `EGRESS_CONFIG_FILE`) or as text (`--config-body`, env `EGRESS_CONFIG_BODY`, which wins).\n\
         Keys are those of livekit/egress, today's and 2022's, and our own; durations are written like `90m`, `5s`, `100ms`. An unknown\n\
         key is an error. `spillway-dispatcher --check-config` prints what holds.\n\n\
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

/// Whole sections under one name where all of their keys share the fate.
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

/// The file as YAML without secrets: those that are declared so, and passwords in URLs.
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
        Value::String(text) if text.contains('@') => *text = redact::without_credentials(text),
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
