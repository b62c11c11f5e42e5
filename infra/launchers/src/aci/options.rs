//! Options of an ACI target, as the dispatcher's configuration has them. Values only.

use std::collections::BTreeMap;

use serde::Deserialize;
use spillway_process::Clock;
use spillway_protocol::Secret;

use super::api::NAME;

/// One target on Azure Container Instances.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AciOptions {
    /// What `TaskRef`s say.
    #[serde(skip)]
    pub name: String,
    /// Tells our tasks from those of other installations.
    #[serde(skip)]
    pub stack: String,
    /// Id of the subscription.
    pub subscription: String,
    /// Where the container groups are made.
    pub resource_group: String,
    /// Azure region.
    pub location: String,
    /// The runner's image.
    pub image: String,
    /// The one with a browser; `None`: no web pages.
    pub page_image: Option<String>,
    /// Host name of the registry that the image is pulled from with the first of `identities`; `None`: the image is public.
    pub registry: Option<String>,
    /// Resource ids of the runner's user-assigned identities.
    pub identities: Vec<String>,
    /// Resource id of a delegated subnet; `None`: the platform's own network.
    pub subnet: Option<String>,
    /// Name servers of container groups in a subnet, which do not take those of their network over. Empty: Azure's own,
    /// which knows the private zones that are linked to the network.
    pub name_servers: Vec<String>,
    /// Plain variables of every runner, beside those of the launch.
    pub environment: BTreeMap<String, String>,
    /// URL instead of Azure's.
    pub endpoint: Option<String>,
    /// Client id of the identity that the dispatcher uses; `None`: the machine's own.
    pub client_id: Option<String>,
    /// Bearer token instead of an identity.
    pub token: Option<Secret>,
    /// Compared with the platform's time stamps.
    #[serde(skip)]
    pub clock: Clock,
}

impl Default for AciOptions {
    fn default() -> Self {
        Self {
            name: NAME.to_owned(),
            stack: "spillway".to_owned(),
            subscription: String::new(),
            resource_group: String::new(),
            location: String::new(),
            image: String::new(),
            page_image: None,
            registry: None,
            identities: Vec::new(),
            subnet: None,
            name_servers: Vec::new(),
            environment: BTreeMap::new(),
            endpoint: None,
            client_id: None,
            token: None,
            clock: Clock::host(),
        }
    }
}

impl AciOptions {
    /// The same options with this clock.
    pub(crate) fn on(self, clock: &Clock) -> Self {
        Self { clock: clock.clone(), ..self }
    }
}
