//! The profile that Chromium starts with: what cannot be said by flags. Written before every start, read by Chromium once.

use std::io;
use std::path::Path;

use serde_json::json;

/// Writes the preferences of a fresh profile into this folder. `allows_udp`: pages may send datagrams past a proxy (WebRTC).
///
/// # Errors
///
/// The folder cannot be written.
pub fn write(profile: &Path, allows_udp: bool) -> io::Result<()> {
    let mut preferences = json!({
        // URLs have secrets.
        "history": {"saving_disabled": true},
        "session": {"restore_on_startup": 5},
        "profile": {"exit_type": "Normal", "cookie_controls_mode": 0},
        "browser": {"has_seen_welcome_page": true, "check_default_browser": false},
        "download": {"prompt_for_download": false},
        "credentials_enable_service": false,
        "translate": {"enabled": false},
    });
    if !allows_udp {
        // `--force-webrtc-ip-handling-policy` does nothing in Chromium 156.
        preferences["webrtc"] = json!({
            "ip_handling_policy": "disable_non_proxied_udp",
            "multiple_routes_enabled": false,
            "nonproxied_udp_enabled": false,
        });
    }
    let folder = profile.join("Default");
    std::fs::create_dir(&folder)?;
    std::fs::write(folder.join("Preferences"), preferences.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_are_forbidden_by_a_preference() {
        let read = |allows_udp| {
            let profile = tempfile::tempdir().unwrap();
            write(profile.path(), allows_udp).unwrap();
            let text = std::fs::read_to_string(profile.path().join("Default/Preferences")).unwrap();
            serde_json::from_str::<serde_json::Value>(&text).unwrap()
        };
        assert_eq!(read(false)["webrtc"]["ip_handling_policy"], "disable_non_proxied_udp");
        assert!(read(true).get("webrtc").is_none());
        assert_eq!(read(true)["history"]["saving_disabled"], true);
    }
}
