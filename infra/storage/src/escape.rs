use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What stays as it is in the path of a URL made by Go, and so in livekit/egress' locations.
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

/// A key in the path of a URL, without a slash of its own before it.
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
