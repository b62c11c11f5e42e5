//! What all clouds have in common: one door, at which it is asked who may do what, and at which things go wrong.

use std::sync::Arc;

use anyhow::Result;

use super::CloudSetup;
use super::fault::{CloudFault, FaultScript};
use super::policy::{Permission, Policy};
use super::web::{HttpReply, HttpRequest, HttpServer};

/// One cloud on this machine; what it knows is behind its door.
pub struct FakeCloud<C> {
    // Dropped first: nothing comes in any more.
    pub web: HttpServer,
    pub(super) cloud: Arc<C>,
}

/// What a platform does behind its door.
pub trait CloudApi: Send + Sync + 'static {
    fn endpoint(&self) -> &ApiEndpoint;

    /// What is asked for; an error is the answer to something that is no request at all.
    fn read(&self, request: &HttpRequest) -> Result<ApiCall, HttpReply>;

    fn denied(&self, need: &Permission) -> HttpReply;

    /// Its words for what goes wrong before anything is done; `None`: it has none, or says so later.
    fn fault_reply(&self, fault: CloudFault) -> Option<HttpReply>;

    fn execute(self: &Arc<Self>, call: &ApiCall, request: &HttpRequest, fault: Option<CloudFault>) -> HttpReply;
}

/// What every cloud has at its door.
pub struct ApiEndpoint {
    pub setup: CloudSetup,
    pub policy: Policy,
    pub faults: FaultScript,
}

impl ApiEndpoint {
    /// `rendered` is what Terraform gives to a dispatcher.
    pub fn new(setup: CloudSetup, rendered: impl FnOnce() -> Result<Policy>) -> Result<Self> {
        let policy = setup.policy.clone().map_or_else(rendered, Ok)?;
        Ok(Self { setup, policy, faults: FaultScript::default() })
    }
}

pub struct ApiCall {
    pub operation: &'static str,
    /// What it is about, as the platform's paths have it.
    pub subject: String,
    pub needs: Vec<Permission>,
}

impl<C: CloudApi> FakeCloud<C> {
    pub async fn open(cloud: C) -> Result<Self> {
        let cloud = Arc::new(cloud);
        let serving = Arc::clone(&cloud);
        let web = HttpServer::start(move |request| {
            let cloud = Arc::clone(&serving);
            async move { answer(&cloud, &request) }
        });
        Ok(Self { web: web.await?, cloud })
    }

    pub fn faults(&self) -> &FaultScript {
        &self.cloud.endpoint().faults
    }
}

fn answer<C: CloudApi>(cloud: &Arc<C>, request: &HttpRequest) -> HttpReply {
    let call = match cloud.read(request) {
        Ok(call) => call,
        Err(reply) => return reply,
    };
    let endpoint = cloud.endpoint();
    if let Some(need) = endpoint.policy.lacks(&call.needs) {
        return cloud.denied(need);
    }
    let fault = endpoint.faults.next(call.operation);
    match fault {
        Some(CloudFault::Lost) => return HttpReply::HangUp,
        Some(fault) if fault.before() => {
            if let Some(reply) = cloud.fault_reply(fault) {
                return reply;
            }
        }
        _ => {}
    }
    let reply = cloud.execute(&call, request, fault);
    match fault {
        Some(CloudFault::BrokenAfter) => cloud.fault_reply(CloudFault::Broken).unwrap_or(HttpReply::HangUp),
        Some(CloudFault::LostAfter) => HttpReply::HangUp,
        Some(CloudFault::Late) => HttpReply::Late(Box::new(reply)),
        _ => reply,
    }
}
