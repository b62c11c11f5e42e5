//! What happens in a browser, as its DevTools tell it. Texts may have secrets in them until they are redacted.

use std::time::Duration;

/// What happens in the browser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BrowserEvent {
    /// The page is another document now.
    Committed,
    /// The document and what it names is loaded.
    Loaded,
    /// The main document's answer over HTTP.
    Document {
        /// Status.
        status: i64,
        /// As the server sent it; empty over HTTP/2.
        text: String,
    },
    /// The navigation that was asked for has ended, with Chromium's code where it failed.
    Navigated(Result<(), String>),
    /// The page was looked at for an error of its template: its text.
    Checked(Option<String>),
    /// Arguments of a console call that are values.
    Console(Vec<String>),
    /// An exception that the page did not catch.
    Exception(String),
    /// The page has opened a dialog, which was answered.
    Dialog {
        /// `alert`, `confirm`, `prompt`, `beforeunload`.
        kind: String,
        /// Its text.
        message: String,
    },
    /// The page has opened a window, which was closed.
    PopUp,
    /// The page's process has died; how.
    Crashed(String),
    /// The page does not answer, for so long already.
    Hung(Duration),
    /// The connection to the browser has ended.
    Gone,
}
