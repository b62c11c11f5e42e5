use std::error::Error;
use std::fmt::{self, Display, Write};

/// An error and all its causes in one line, for the one place that logs it.
pub fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Display + 'a {
    ErrorChain(error)
}

struct ErrorChain<'a>(&'a (dyn Error + 'static));

impl Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        f.write_str(&said)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let message = error.to_string();
            // Some libraries repeat their cause in their own words.
            if !said.contains(&message) {
                write!(f, ": {message}")?;
                let _ = write!(said, ": {message}");
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
    fn every_layer_is_said_once() {
        let error = Outer(std::io::Error::other("connection reset"));
        assert_eq!(chain(&error).to_string(), "read ticket: connection reset");
    }
}
