//! An error and its causes as one line of a log.

use std::error::Error;
use std::fmt::{self, Display, Write};

/// The messages of an error and of all its causes, joined by `: `. For the place that logs the error; a message that is
/// already part of the text is left out.
pub fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Display + 'a {
    ErrorChain(error)
}

struct ErrorChain<'a>(&'a (dyn Error + 'static));

impl Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut written = self.0.to_string();
        f.write_str(&written)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let message = error.to_string();
            // Some libraries repeat the message of their cause in their own.
            if !written.contains(&message) {
                write!(f, ": {message}")?;
                let _ = write!(written, ": {message}");
            }
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("read ticket")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn every_layer_is_written_once() {
        let error = Outer(std::io::Error::other("connection reset"));
        assert_eq!(chain(&error).to_string(), "read ticket: connection reset");
    }
}
