//! Object keys in URLs, escaped as livekit/egress escapes them. Pure.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Characters that Go's `net/url` leaves unescaped in a path, and so livekit/egress in its locations.
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'/')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b',')
    .remove(b':')
    .remove(b';')
    .remove(b'=')
    .remove(b'@');

/// A key as the path of a URL, without a leading slash.
pub fn escaped(key: &str) -> String {
    utf8_percent_encode(key.trim_start_matches('/'), PATH).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_look_as_in_livekits_locations() {
        assert_eq!(escaped("dir/my file.mp4"), "dir/my%20file.mp4");
        assert_eq!(escaped("/café?#a+b=c@d"), "caf%C3%A9%3F%23a+b=c@d");
    }
}
