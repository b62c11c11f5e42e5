//! The page of room composites that are recorded as a page and name no template. Its URL is made like that of any other
//! template, with the room's token in the query, before the port is known that serves it: the media process puts its own
//! address in. Pure.

use std::net::SocketAddr;

/// Stands for the built-in template where a template's base is named. There is no such host (RFC 6761, 6.4).
pub const URL: &str = "http://built-in-template.invalid/";

/// The same page at the address that serves it; `None`: `page` is another one.
pub fn served_at(page: &str, address: SocketAddr) -> Option<String> {
    let path = page.strip_prefix(URL)?;
    Some(format!("http://{address}/{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_host_of_the_built_in_template_is_replaced() {
        let address: SocketAddr = "127.0.0.1:4711".parse().unwrap();
        let mut page = url::Url::parse(URL).unwrap();
        page.query_pairs_mut().append_pair("layout", "grid").append_pair("url", "wss://h");
        let served = served_at(page.as_str(), address);
        assert_eq!(served.as_deref(), Some("http://127.0.0.1:4711/?layout=grid&url=wss%3A%2F%2Fh"));
        assert_eq!(served_at(URL, address).as_deref(), Some("http://127.0.0.1:4711/"));
        for other in ["https://x/", "http://built-in-template.invalid.x/", "https://built-in-template.invalid/", ""] {
            assert_eq!(served_at(other, address), None, "{other}");
        }
    }
}
