//! The keys about web pages: which room composites are one, and what the runner's browser is told. Pure.

use std::path::PathBuf;

use serde_json::{Map, Value};
use spillway_plan::{CompositeEngine, PageRules, built_in_template};
use url::{Host, Url};

use super::error::ConfigError;
use super::keys::{File, Runner};

/// livekit/egress' port of its built-in template.
const TEMPLATE_PORT: u16 = 7980;

/// Which room composites are web pages.
///
/// # Errors
/// When `template_base` is no address of a page, or contradicts `composite_engine`; no retry.
pub fn rules(file: &File) -> Result<PageRules, ConfigError> {
    let engine = file.composite_engine.unwrap_or_default();
    // Without a page its layouts are composed, unless that is not wanted.
    let built_in = (engine == CompositeEngine::Page).then(|| built_in_template::URL.to_owned());
    let Some(base) = file.template_base.as_deref().filter(|base| !base.is_empty()) else {
        return Ok(PageRules { engine, template_base: built_in });
    };
    let wrong = |message: &str| ConfigError::Value { key: "template_base", message: message.to_owned() };
    let url = Url::parse(base).map_err(|_| wrong("no URL"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("a page begins with http:// or https://"));
    }
    let port = file.template_port.filter(|port| *port != 0).unwrap_or(TEMPLATE_PORT);
    // livekit/egress' files may write its default down: its template is the built-in layouts.
    if is_this_machine(&url) && url.port_or_known_default() == Some(port) {
        return Ok(PageRules { engine, template_base: built_in });
    }
    if engine == CompositeEngine::Native {
        return Err(wrong("stands beside composite_engine: native, keep one of them"));
    }
    Ok(PageRules { engine, template_base: Some(base.to_owned()) })
}

fn is_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// What the file sets of the runner's `media.page`.
///
/// # Errors
/// When a flag has a value that no flag can have, or the proxy's URL is none; no retry.
pub fn settings(file: &File) -> Result<Map<String, Value>, ConfigError> {
    let Runner { chromium, allow_webrtc, page_proxy, template_folder, .. } = file.runner.clone().unwrap_or_default();
    let path = |path: Option<PathBuf>| path.map(|path| Value::from(path.to_string_lossy().into_owned()));
    if let Some(proxy) = page_proxy.as_ref().filter(|proxy| !proxy.reveal().is_empty())
        && !Url::parse(proxy.reveal()).is_ok_and(|url| url.scheme() == "http" && url.has_host())
    {
        let message = "not written like http://user:password@proxy.example:3128".to_owned();
        return Err(ConfigError::Value { key: "runner.page_proxy", message });
    }
    let proxy = page_proxy.filter(|proxy| !proxy.reveal().is_empty());
    let flags = file.chrome_flags.as_ref().map(flags).transpose()?.filter(|flags| !flags.is_empty());
    let given = [
        ("chromium", path(chromium)),
        ("flags", flags.map(Value::from)),
        ("sandbox", file.enable_chrome_sandbox.map(Value::from)),
        ("insecure", file.insecure.map(Value::from)),
        ("allow_webrtc", allow_webrtc.map(Value::from)),
        ("proxy", proxy.map(|proxy| Value::from(proxy.reveal().clone()))),
        ("template_folder", path(template_folder)),
    ];
    Ok(given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect())
}

/// As the runner reads them: true, false or a text.
fn flags(asked: &Value) -> Result<Map<String, Value>, ConfigError> {
    let wrong = |message: String| ConfigError::Value { key: "chrome_flags", message };
    let all = match asked {
        Value::Null => return Ok(Map::new()),
        Value::Object(all) => all,
        _ => return Err(wrong("not a map of names and values".to_owned())),
    };
    let mut flags = Map::new();
    for (name, value) in all {
        let name = name.trim_start_matches('-');
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            return Err(wrong(format!("`{name}` is no name of a flag")));
        }
        let value = match value {
            Value::Bool(_) | Value::String(_) => value.clone(),
            Value::Number(number) => Value::String(number.to_string()),
            // `flag:` alone.
            Value::Null => Value::Bool(true),
            Value::Array(_) | Value::Object(_) => {
                return Err(wrong(format!("`{name}` is neither true, false nor a text")));
            }
        };
        flags.insert(name.to_owned(), value);
    }
    Ok(flags)
}
