//! Streams to hosts that no request may name: every form of the guard's table, by every protocol, ends at once and says why.

#![allow(clippy::unwrap_used)]

mod common;

use common::streamed::unopened;
use spillway_guard::forms::FORMS;
use spillway_media::output::StreamEnd;

#[test]
fn no_form_of_the_table_is_streamed_to() {
    // What a name leads to is for tests with a resolver of their own.
    for form in FORMS.iter().filter(|form| form.addresses.is_empty()) {
        let host = form.authority();
        for url in [
            format!("rtmp://{host}/app/canary"),
            format!("rtmps://{host}:443/app/canary"),
            format!("srt://{host}:9000?streamid=canary"),
            format!("ws://{host}/canary?token=canary"),
            format!("wss://{host}/canary"),
        ] {
            let StreamEnd::Failed { code, message } = unopened(&url) else { panic!("{url} was taken") };
            assert_eq!(code, "permission_denied", "{url}: {message}");
            assert!(message.contains(" is refused: it is ") && !message.contains("canary"), "{url}: {message}");
        }
    }
    for host in ["localhost", "metadata.google.internal", "instance-data"] {
        let StreamEnd::Failed { code, message } = unopened(&format!("rtmp://{host}/app/key")) else { panic!("{host}") };
        assert_eq!((code, message.starts_with(host)), ("permission_denied", true), "{message}");
    }
}
