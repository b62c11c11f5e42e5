//! What a page writes to its console: the two lines of the recording's protocol, and everything else for our log, bounded and
//! without secrets. livekit-client writes URLs with tokens there, and a page may write whatever it knows. Pure: the time is
//! passed in.

use std::time::Duration;

use percent_encoding::percent_decode_str;
use spillway_plan::{Secret, without_secrets};

/// Lines of a page in our log: at most this many in a second, and in a recording.
const MAX_PER_SECOND: u32 = 10;
const MAX_LINES: u32 = 2000;
/// Characters of one line.
const MAX_CHARACTERS: usize = 300;
/// Shorter values of a query are words of every text.
const MIN_SECRET_BYTES: usize = 4;
/// A JSON web token begins with an encoded `{"`.
const JWT: &str = "eyJ";

/// What a page tells its recording, as an argument of any console call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageSignal {
    /// From here on it is worth recording.
    Start,
    /// It is over.
    End,
}

impl PageSignal {
    /// Of one argument.
    pub fn parse(argument: &str) -> Option<Self> {
        match argument {
            "START_RECORDING" => Some(Self::Start),
            "END_RECORDING" => Some(Self::End),
            _ => None,
        }
    }
}

/// Lines of one page, on their way to the log.
#[derive(Debug)]
pub struct ConsoleLines {
    /// Of the page's URL; never written.
    secrets: Vec<Secret>,
    second: u64,
    in_second: u32,
    lines: u32,
    left_out: u64,
}

impl ConsoleLines {
    /// Of a page with this URL: the values of its query and its fragment are secrets.
    pub fn new(url: &Secret) -> Self {
        Self { secrets: secrets(url.reveal()), second: 0, in_second: 0, lines: 0, left_out: 0 }
    }

    /// The line as it may be logged; `None`: there are too many. `now`: since any fixed moment.
    pub fn line(&mut self, text: &str, now: Duration) -> Option<String> {
        if std::mem::replace(&mut self.second, now.as_secs()) != now.as_secs() {
            self.in_second = 0;
        }
        self.in_second = self.in_second.saturating_add(1);
        self.lines = self.lines.saturating_add(1);
        if self.in_second > MAX_PER_SECOND || self.lines > MAX_LINES {
            self.left_out += 1;
            return None;
        }
        Some(self.redacted(text))
    }

    /// Any text of the page without its secrets, on one line and not longer than a line may be.
    pub fn redacted(&self, text: &str) -> String {
        let hidden = without_secrets(text, self.secrets.iter().map(|secret| secret.reveal().as_str()));
        let visible = hidden.split_whitespace().map(word);
        visible.collect::<Vec<_>>().join(" ").chars().take(MAX_CHARACTERS).collect()
    }

    /// Lines that were not logged.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }
}

/// A word without what may be a secret in it: the query of a URL, and tokens.
fn word(word: &str) -> String {
    let start = word.find("://").and_then(|at| word[at..].find(['?', '#']).map(|query| at + query));
    let word = match start {
        Some(query) => format!("{}{{...}}", &word[..=query]),
        None => word.to_owned(),
    };
    match word.find(JWT) {
        Some(token) => format!("{}{{...}}", &word[..token]),
        None => word,
    }
}

/// Each value of the query and fragment, as it is written and as it is meant.
fn secrets(url: &str) -> Vec<Secret> {
    let Some((_, query)) = url.split_once(['?', '#']) else { return vec![] };
    let values = query.split(['&', '#', '?', '/']).map(|pair| pair.split_once('=').map_or(pair, |(_, value)| value));
    let both = values.flat_map(|value| [value.to_owned(), decoded(value)]);
    both.filter(|value| value.len() >= MIN_SECRET_BYTES).map(Secret::new).collect()
}

/// Percent encoding and `+` resolved; what is none stays.
fn decoded(value: &str) -> String {
    percent_decode_str(&value.replace('+', " ")).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(url: &str) -> ConsoleLines {
        ConsoleLines::new(&Secret::new(url.to_owned()))
    }

    #[test]
    fn only_the_exact_texts_are_signals() {
        assert_eq!(PageSignal::parse("START_RECORDING"), Some(PageSignal::Start));
        assert_eq!(PageSignal::parse("END_RECORDING"), Some(PageSignal::End));
        for other in ["start_recording", "START_RECORDING ", "", "START"] {
            assert_eq!(PageSignal::parse(other), None, "{other}");
        }
    }

    #[test]
    fn secrets_of_the_url_are_not_logged_in_either_spelling() {
        let mut lines = lines("https://x/a?token=ca%26na+ry&v=ab#/room?key=fragment-key");
        for (text, shown) in [
            ("it is ca&na ry", "it is {...}"),
            ("raw ca%26na+ry!", "raw {...}!"),
            ("key fragment-key", "key {...}"),
            ("ab stays", "ab stays"),
        ] {
            assert_eq!(lines.line(text, Duration::ZERO).as_deref(), Some(shown));
        }
    }

    #[test]
    fn queries_of_urls_and_tokens_are_not_logged() {
        let lines = lines("https://x/");
        for (text, shown) in [
            ("connecting to wss://h/rtc?access_token=abc&x=y now", "connecting to wss://h/rtc?{...} now"),
            ("see https://h/#/a=b", "see https://h/#{...}"),
            ("token=eyJhbGci.eyJ2 end", "token={...} end"),
            ("is it? yes", "is it? yes"),
            ("two\nlines\tof   text", "two lines of text"),
        ] {
            assert_eq!(lines.redacted(text), shown);
        }
        assert_eq!(lines.redacted(&"é".repeat(1000)).chars().count(), MAX_CHARACTERS);
    }

    #[test]
    fn a_page_that_talks_a_lot_does_not_fill_the_log() {
        let mut lines = lines("https://x/");
        let mut logged = |second| (0..100).filter(|_| lines.line("x", Duration::from_secs(second)).is_some()).count();
        assert_eq!((logged(0), logged(1)), (10, 10));
        let more: usize = (2..1000).map(logged).sum();
        assert!(more < 2000, "{more}");
        assert!(lines.left_out() > 90_000);
    }

    proptest! {
        #[test]
        fn any_text_and_any_url_are_taken(url in ".{0,80}", text in ".{0,200}") {
            let shown = lines(&url).redacted(&text);
            prop_assert!(shown.chars().count() <= MAX_CHARACTERS);
        }

        #[test]
        fn a_value_never_comes_out(value in "[a-zA-Z0-9]{8,40}", before in "[ -~]{0,20}") {
            let url = format!("https://x/?token={value}");
            let shown = lines(&url).redacted(&format!("{before}{value}{before}"));
            prop_assert!(!shown.contains(&value));
        }
    }
}
