//! The section `console`: who may use it. Pure.

use spillway_protocol::Secret;

use super::error::ConfigError;
use super::keys::{Console, File};
use super::settings::ConsoleRules;

/// A token of fewer characters may be guessed; 24 are 16 random bytes in base64.
const MIN_TOKEN_CHARS: usize = 24;

/// `None`: there is no section, and no console.
///
/// # Errors
/// When there is no token, one is short, both are the same, or there is no port to serve it on; no retry.
pub fn resolve(file: &File) -> Result<Option<ConsoleRules>, ConfigError> {
    let Some(Console { token, stop_token, address }) = file.console.clone() else { return Ok(None) };
    let wrong = |key, message: &str| ConfigError::Value { key, message: message.to_owned() };
    let given = |token: Option<Secret>| token.filter(|token| !token.reveal().is_empty());
    let (token, stop_token) = (given(token), given(stop_token));
    for (key, token) in [("console.token", &token), ("console.stop_token", &stop_token)] {
        let Some(token) = token else { continue };
        if token.reveal().chars().count() < MIN_TOKEN_CHARS {
            return Err(wrong(key, "has fewer than 24 characters: `openssl rand -base64 24` makes a good one"));
        }
        // It is sent in a header.
        if !token.reveal().bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong(key, "has a character that is not printable ASCII"));
        }
    }
    if token.is_none() && stop_token.is_none() {
        return Err(wrong("console", "has no token: set console.token or SPILLWAY_CONSOLE_TOKEN"));
    }
    if token == stop_token {
        return Err(wrong("console.stop_token", "is the token that only reads: the two must differ"));
    }
    if address.is_none() && file.health.is_none() && file.health_port.is_none_or(|port| port == 0) {
        return Err(wrong("console", "has no port: set console.address, or health_port to serve it there"));
    }
    Ok(Some(ConsoleRules { token, stop_token, address }))
}

#[cfg(test)]
mod tests {
    use crate::Config;
    use crate::config::read;

    const MINIMAL: &str = "redis: {address: a:1}\napi_key: k\napi_secret: s\nws_url: ws://x\nhealth_port: 8080\n";
    const ONE: &str = "one-one-one-one-one-one-";
    const TWO: &str = "two-two-two-two-two-two-";

    fn with(more: &str, env: &[(&str, &str)]) -> Result<Config, String> {
        let env = |name: &str| env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let file = read(&format!("{MINIMAL}{more}"), &env).map_err(|error| error.to_string())?;
        Config::from_file(&file).map_err(|error| error.to_string())
    }

    #[test]
    fn it_is_off_until_a_section_and_a_token_are_there() {
        let environment = [("SPILLWAY_CONSOLE_TOKEN", ONE), ("SPILLWAY_CONSOLE_STOP_TOKEN", TWO)];
        assert_eq!(with("", &environment).unwrap().console, None);
        let rules = with("console: {}\n", &environment).unwrap().console.unwrap();
        let revealed = [rules.token, rules.stop_token].map(|token| token.unwrap().reveal().clone());
        assert_eq!(revealed, [ONE, TWO]);
        let rules = with(&format!("console: {{token: {TWO}, address: \"127.0.0.1:1\"}}\n"), &environment[..1]);
        let rules = rules.unwrap().console.unwrap();
        assert_eq!((rules.token.unwrap().reveal().as_str(), rules.stop_token), (TWO, None), "the file wins");
        assert_eq!(rules.address.unwrap().port(), 1);
    }

    #[test]
    fn what_would_open_it_to_others_is_refused() {
        for (more, message) in [
            ("console: {}\n".to_owned(), "`console`: has no token"),
            ("console: {token: \"\"}\n".to_owned(), "`console`: has no token"),
            ("console: {token: short}\n".to_owned(), "`console.token`: has fewer than 24"),
            (format!("console: {{stop_token: \"{ONE} {ONE}\"}}\n"), "`console.stop_token`: has a character"),
            (format!("console: {{token: {ONE}, stop_token: {ONE}}}\n"), "the two must differ"),
            (format!("console: {{token: {ONE}, password: x}}\n"), "could not parse"),
        ] {
            let told = with(&more, &[]).unwrap_err();
            assert!(told.contains(message) && !told.contains(ONE), "{more}: {told}");
        }
        let nowhere = format!("{}console: {{token: {ONE}}}\n", MINIMAL.replace("health_port: 8080\n", ""));
        let told = Config::from_yaml(&nowhere).unwrap_err().to_string();
        assert!(told.contains("`console`: has no port"), "{told}");
    }
}
