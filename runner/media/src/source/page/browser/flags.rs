//! Chromium's command line: our flags, those of the installation, and what both mean together. Pure.
//!
//! Measured over livekit/egress' list: none of its other flags changes CPU time or memory beyond the noise. Site isolation
//! stays on, because pages are not trusted, and so does the GPU process, whose death a recording survives.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use spillway_ipc::FlagValue;

/// Without a value.
const SWITCHES: &[&str] = &[
    "no-first-run",
    "no-default-browser-check",
    "disable-gpu",
    "disable-dev-shm-usage",
    "disable-breakpad",
    "disable-extensions",
    "disable-sync",
    "disable-component-update",
    "disable-background-networking",
    "disable-background-timer-throttling",
    "disable-backgrounding-occluded-windows",
    "disable-renderer-backgrounding",
    "disable-hang-monitor",
    "disable-ipc-flooding-protection",
    "disable-popup-blocking",
    "disable-prompt-on-repost",
    "disable-client-side-phishing-detection",
    "disable-default-apps",
    "disable-search-engine-choice-screen",
    "metrics-recording-only",
    "use-mock-keychain",
    "kiosk",
];

/// Switched off; the sound stays in the browser's process.
const DISABLED_FEATURES: &str = "AudioServiceOutOfProcess,Translate,OptimizationHints,MediaRouter,GlobalMediaControls";

/// Their values are joined: of two flags with one name Chromium obeys the last.
const JOINED: &[&str] = &["enable-features", "disable-features"];

/// What a recording depends on, or what keeps pages in: an installation cannot set it.
const RESERVED: &[&str] = &[
    "app",
    "headless",
    "no-startup-window",
    "proxy-auto-detect",
    "proxy-bypass-list",
    "proxy-pac-url",
    "proxy-server",
    "no-proxy-server",
    "remote-allow-origins",
    "remote-debugging-address",
    "remote-debugging-pipe",
    "remote-debugging-port",
    "no-sandbox",
    "user-data-dir",
    "window-position",
    "window-size",
];

/// What the command line depends on.
#[derive(Clone, Copy, Debug)]
pub struct BrowserFlags<'a> {
    /// Of the window, pixels.
    pub size: (u32, u32),
    /// Folder of the profile.
    pub profile: &'a Path,
    /// What the page visits is not kept in the profile.
    pub incognito: bool,
    /// The only way out of the browser; `None`: it goes where it likes.
    pub proxy: Option<SocketAddr>,
    /// Chromium's own.
    pub sandbox: bool,
    /// Neither origins nor mixed content are guarded.
    pub insecure: bool,
    /// Of the installation, by name without dashes.
    pub asked: &'a BTreeMap<String, FlagValue>,
}

impl BrowserFlags<'_> {
    /// Every argument, the page last: it is blank, because a URL may be secret and others can read a command line.
    pub fn arguments(&self) -> Vec<String> {
        let mut flags: Vec<(String, Option<String>)> = SWITCHES.iter().map(|name| ((*name).to_owned(), None)).collect();
        let mut set = |name: &str, value: String| flags.push((name.to_owned(), Some(value)));
        set("force-color-profile", "srgb".to_owned());
        set("password-store", "basic".to_owned());
        set("autoplay-policy", "no-user-gesture-required".to_owned());
        set("window-position", "0,0".to_owned());
        set("window-size", format!("{},{}", self.size.0, self.size.1));
        set("disable-features", DISABLED_FEATURES.to_owned());
        set("remote-debugging-port", "0".to_owned());
        set("user-data-dir", self.profile.display().to_string());
        if let Some(proxy) = self.proxy {
            set("proxy-server", format!("http://{proxy}"));
            // Chromium would reach loopback addresses by itself else.
            set("proxy-bypass-list", "<-loopback>".to_owned());
        }
        let mut switch = |name: &str, on: bool| flags.extend(on.then(|| (name.to_owned(), None)));
        switch("incognito", self.incognito);
        switch("no-sandbox", !self.sandbox);
        switch("disable-web-security", self.insecure);
        switch("allow-running-insecure-content", self.insecure);
        for (name, value) in self.asked {
            let name = name.trim_start_matches('-');
            if !RESERVED.contains(&name) {
                merge(&mut flags, name, value);
            }
        }
        let argument = |(name, value): (String, Option<String>)| match value {
            Some(value) => format!("--{name}={value}"),
            None => format!("--{name}"),
        };
        flags.into_iter().map(argument).chain(["about:blank".to_owned()]).collect()
    }

    /// Names of the installation's flags that are left out.
    pub fn refused(&self) -> Vec<&str> {
        let names = self.asked.keys().map(|name| name.trim_start_matches('-'));
        names.filter(|name| RESERVED.contains(name)).collect()
    }
}

fn merge(flags: &mut Vec<(String, Option<String>)>, name: &str, value: &FlagValue) {
    let place = flags.iter().position(|(ours, _)| ours == name);
    let value = match value {
        FlagValue::Switch(false) => {
            flags.retain(|(ours, _)| ours != name);
            return;
        }
        FlagValue::Switch(true) => None,
        FlagValue::Text(text) => Some(text.clone()),
    };
    match place.and_then(|place| flags.get_mut(place)) {
        Some((_, Some(ours))) if JOINED.contains(&name) => {
            if let Some(theirs) = value.filter(|theirs| !theirs.is_empty()) {
                ours.push(',');
                ours.push_str(&theirs);
            }
        }
        Some((_, ours)) => *ours = value,
        None => flags.push((name.to_owned(), value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(asked: &[(&str, FlagValue)], change: impl FnOnce(&mut BrowserFlags)) -> Vec<String> {
        let asked = asked.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let mut flags = BrowserFlags {
            size: (1280, 720),
            profile: Path::new("/run/p"),
            incognito: false,
            proxy: None,
            sandbox: true,
            insecure: false,
            asked: &asked,
        };
        change(&mut flags);
        flags.arguments()
    }

    fn text(value: &str) -> FlagValue {
        FlagValue::Text(value.to_owned())
    }

    #[test]
    fn the_command_line_names_no_page() {
        let arguments = arguments(&[], |_| ());
        assert_eq!(arguments.last().map(String::as_str), Some("about:blank"));
        for wanted in ["--kiosk", "--window-size=1280,720", "--user-data-dir=/run/p", "--remote-debugging-port=0"] {
            assert!(arguments.iter().any(|argument| argument == wanted), "{wanted}");
        }
        for unwanted in ["--no-sandbox", "--incognito", "--proxy", "--disable-web-security"] {
            assert!(!arguments.iter().any(|argument| argument.starts_with(unwanted)), "{unwanted}");
        }
    }

    #[test]
    fn what_depends_on_the_machine_is_added() {
        let proxy = Some(SocketAddr::from(([127, 0, 0, 1], 4000)));
        let arguments = arguments(&[], |flags| {
            (flags.sandbox, flags.insecure, flags.incognito, flags.proxy) = (false, true, true, proxy);
        });
        for wanted in [
            "--no-sandbox",
            "--disable-web-security",
            "--allow-running-insecure-content",
            "--incognito",
            "--proxy-server=http://127.0.0.1:4000",
            "--proxy-bypass-list=<-loopback>",
        ] {
            assert!(arguments.iter().any(|argument| argument == wanted), "{wanted}");
        }
    }

    #[test]
    fn flags_of_the_installation_replace_ours_and_features_are_joined() {
        let asked = [
            ("lang", text("de")),
            ("--mute-audio", FlagValue::Switch(true)),
            ("kiosk", FlagValue::Switch(false)),
            ("autoplay-policy", text("user-gesture-required")),
            ("disable-features", text("Foo,Bar")),
            ("enable-features", text("Baz")),
        ];
        let arguments = arguments(&asked, |_| ());
        let count = |start: &str| arguments.iter().filter(|argument| argument.starts_with(start)).count();
        for wanted in ["--lang=de", "--mute-audio", "--autoplay-policy=user-gesture-required", "--enable-features=Baz"]
        {
            assert!(arguments.iter().any(|argument| argument == wanted), "{wanted}");
        }
        assert_eq!((count("--kiosk"), count("--autoplay-policy"), count("--disable-features")), (0, 1, 1));
        assert!(arguments.contains(&format!("--disable-features={DISABLED_FEATURES},Foo,Bar")));
        assert_eq!(arguments.last().map(String::as_str), Some("about:blank"));
    }

    #[test]
    fn what_keeps_a_page_in_cannot_be_switched_off() {
        let asked = [("no-sandbox", FlagValue::Switch(true)), ("remote-debugging-port", text("9222"))];
        let arguments = arguments(&asked, |flags| {
            assert_eq!(flags.refused(), ["no-sandbox", "remote-debugging-port"]);
        });
        assert!(!arguments.iter().any(|argument| argument == "--no-sandbox" || argument.ends_with("9222")));
    }
}
