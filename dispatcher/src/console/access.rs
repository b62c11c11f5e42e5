//! What a request may do, by its bearer token. There are no cookies and no sessions: a page of another site can make a browser
//! send requests, and never the token. Pure.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use sha2::{Digest, Sha256};
use spillway_protocol::Secret;

use crate::config::settings::ConsoleRules;

/// What a token opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsoleRight {
    /// Everything is shown.
    Read,
    /// Egresses may be stopped, too.
    Stop,
}

/// `authorization`: the header. `None`: it has no token of this console.
pub fn right_of(rules: &ConsoleRules, authorization: Option<&str>) -> Option<ConsoleRight> {
    let given = authorization?.strip_prefix("Bearer ")?;
    let is_given = |known: &Option<Secret>| known.as_ref().is_some_and(|known| is_same(known.reveal(), given));
    // Both are compared, whatever the first says.
    let (stops, reads) = (is_given(&rules.stop_token), is_given(&rules.token));
    if stops { Some(ConsoleRight::Stop) } else { reads.then_some(ConsoleRight::Read) }
}

/// Digests are as long as one another, so the time of the comparison says nothing about the token or its length.
fn is_same(known: &str, given: &str) -> bool {
    let [known, given] = [known, given].map(Sha256::digest);
    verify_slices_are_equal(known.as_slice(), given.as_slice()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_opens_what_it_is_for_and_nothing_else_opens_anything() {
        let secret = |text: &str| Some(Secret::new(text.to_owned()));
        let rules = ConsoleRules { token: secret("reads"), stop_token: secret("stops"), address: None };
        assert_eq!(right_of(&rules, Some("Bearer reads")), Some(ConsoleRight::Read));
        assert_eq!(right_of(&rules, Some("Bearer stops")), Some(ConsoleRight::Stop));
        for wrong in ["", "Bearer", "Bearer ", "Bearer read", "Bearer readss", "bearer reads", "Basic reads", "reads"] {
            assert_eq!(right_of(&rules, Some(wrong)), None, "{wrong}");
        }
        assert_eq!(right_of(&rules, None), None);
        let only_reads = ConsoleRules { stop_token: None, ..rules };
        assert_eq!(right_of(&only_reads, Some("Bearer stops")), None);
        assert_eq!(right_of(&only_reads, Some("Bearer ")), None);
    }
}
