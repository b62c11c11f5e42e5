//! The URL of an HTTP proxy with its credentials inside, for clients that take nothing else. Pure.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use spillway_plan::destination::Proxy;
use url::Url;

/// User and password are percent-encoded in full: libraries that paste them in unescaped connect to another host, or bypass
/// the proxy without an error, when a password holds a space, an `@` or a `:`. `None`: the configured URL is invalid.
pub fn url(proxy: &Proxy) -> Option<Url> {
    let mut url = Url::parse(proxy.url.reveal()).ok()?;
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    if !proxy.username.reveal().is_empty() || !proxy.password.reveal().is_empty() {
        url.set_username(&encoded(proxy.username.reveal())).ok()?;
        url.set_password(Some(&encoded(proxy.password.reveal()))).ok()?;
    }
    Some(url)
}

#[cfg(test)]
mod tests {
    use spillway_plan::Secret;

    use super::*;

    #[test]
    fn a_password_is_never_part_of_the_host() {
        let with = |url: &str, username: &str, password: &str| {
            let secret = |text: &str| Secret::new(text.to_owned());
            let proxy = Proxy { url: secret(url), username: secret(username), password: secret(password) };
            super::url(&proxy).map(String::from)
        };
        assert_eq!(with("http://p:3128", "", ""), Some("http://p:3128/".into()));
        assert_eq!(with("http://u:p@p:3128", "", ""), Some("http://u:p@p:3128/".into()));
        assert_eq!(
            with("http://p:3128", "me@corp", "a b:@/%41"),
            Some("http://me%40corp:a%20b%3A%40%2F%2541@p:3128/".into())
        );
        assert_eq!(with("no url", "", ""), None);
    }
}
