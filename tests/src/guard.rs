//! What the installation of the tests opens. Their servers are on this machine, which no request may name unless the
//! configuration says so.

use spillway_guard::{Guard, GuardRules};

/// Loopback, by address and by name.
const OPEN: [&str; 3] = ["127.0.0.0/8", "::1", "localhost"];

/// The list, as tickets and the media process have it.
pub fn loopback_rules() -> GuardRules {
    GuardRules { allow: OPEN.map(str::to_owned).to_vec() }
}

/// For what connects.
pub fn loopback_guard() -> Guard {
    Guard::new(&loopback_rules())
}

/// Line of a dispatcher's YAML.
pub fn loopback_yaml() -> String {
    format!("guard: {{ allow: {} }}\n", serde_json::json!(OPEN))
}
