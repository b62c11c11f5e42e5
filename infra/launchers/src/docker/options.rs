//! Options of a Docker target, as the dispatcher's configuration has them. Values only.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::api::NAME;

/// One target on a machine with Docker.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DockerOptions {
    /// What `TaskRef`s say.
    #[serde(skip)]
    pub name: String,
    /// Tells our tasks from those of other installations.
    #[serde(skip)]
    pub stack: String,
    /// Path of the daemon's Unix socket.
    pub socket: String,
    /// The runner's image; pulled where the daemon does not have it.
    pub image: String,
    /// The one with a browser; `None`: no web pages.
    pub page_image: Option<String>,
    /// Docker's network mode; `host` avoids NAT for UDP.
    pub network: Option<String>,
    /// Binds as for `docker run -v`.
    pub volumes: Vec<String>,
    /// Plain variables of every runner, beside those of the launch.
    pub environment: BTreeMap<String, String>,
    /// The root file system is read-only; /tmp and the volumes can be written.
    pub read_only: bool,
    /// User of the container's process; `None`: the image's.
    pub user: Option<String>,
}

impl Default for DockerOptions {
    fn default() -> Self {
        Self {
            name: NAME.to_owned(),
            stack: "spillway".to_owned(),
            socket: "/var/run/docker.sock".to_owned(),
            image: String::new(),
            page_image: None,
            network: None,
            volumes: Vec::new(),
            environment: BTreeMap::new(),
            read_only: true,
            user: None,
        }
    }
}
