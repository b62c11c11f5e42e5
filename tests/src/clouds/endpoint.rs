//! The part that all fake clouds share: one HTTP endpoint that checks permissions and injects faults before and after
//! the call.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;

use super::CloudSetup;
use super::fault::{CloudFault, FaultScript};
use super::policy::{Permission, Policy};
use super::web::{HttpReply, HttpRequest, HttpServer};

/// A fake cloud: its endpoint and its state.
pub struct FakeCloud<C> {
    // Dropped first: no further requests.
    /// The endpoint.
    pub web: HttpServer,
    pub(super) cloud: Arc<C>,
}

/// The API of one platform.
pub trait CloudApi: Send + Sync + 'static {
    /// Setup, policy and faults.
    fn endpoint(&self) -> &ApiEndpoint;

    /// Parses a request; an error is the response to one that is no call of this API.
    fn read(&self, request: &HttpRequest) -> Result<ApiCall, HttpReply>;

    /// Response to a call without this permission.
    fn denied(&self, need: &Permission) -> HttpReply;

    /// Response of the platform to a fault before the call is executed; `None`: it has none, or reports it in the
    /// result.
    fn fault_reply(&self, fault: CloudFault) -> Option<HttpReply>;

    /// Executes a call. `fault` is one that the platform reports in the result.
    fn execute(self: &Arc<Self>, call: &ApiCall, request: &HttpRequest, fault: Option<CloudFault>) -> HttpReply;
}

/// Setup, policy and faults of a fake cloud.
pub struct ApiEndpoint {
    /// Configuration.
    pub setup: CloudSetup,
    /// Permissions of the caller.
    pub policy: Policy,
    /// Faults to inject.
    pub faults: FaultScript,
    refusals: Mutex<HashMap<String, VecDeque<HttpReply>>>,
    start_failures: Mutex<VecDeque<String>>,
}

impl ApiEndpoint {
    /// `rendered` gives the policy of a dispatcher from Terraform; used unless the setup has one.
    pub fn new(setup: CloudSetup, rendered: impl FnOnce() -> Result<Policy>) -> Result<Self> {
        let policy = setup.policy.clone().map_or_else(rendered, Ok)?;
        let (refusals, start_failures) = Default::default();
        Ok(Self { setup, policy, faults: FaultScript::default(), refusals, start_failures })
    }

    /// Message of a start that fails; `None`: the task starts.
    pub fn start_failure(&self) -> Option<String> {
        self.start_failures.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    fn refusal(&self, operation: &str) -> Option<HttpReply> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner).get_mut(operation)?.pop_front()
    }
}

/// A parsed call.
pub struct ApiCall {
    /// Name, as [`FaultScript::script`] takes it.
    pub operation: &'static str,
    /// What the call is about, as in the platform's paths.
    pub subject: String,
    /// Permissions that it needs.
    pub needs: Vec<Permission>,
}

impl<C: CloudApi> FakeCloud<C> {
    /// Starts the endpoint.
    pub async fn open(cloud: C) -> Result<Self> {
        let cloud = Arc::new(cloud);
        let serving = Arc::clone(&cloud);
        let web = HttpServer::start(move |request| {
            let cloud = Arc::clone(&serving);
            async move { answer(&cloud, &request) }
        });
        Ok(Self { web: web.await?, cloud })
    }

    /// Faults to inject.
    pub fn faults(&self) -> &FaultScript {
        &self.cloud.endpoint().faults
    }

    /// The next call of this operation is answered so, and not executed.
    pub fn refuse(&self, operation: &str, reply: HttpReply) {
        let mut refusals = self.cloud.endpoint().refusals.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.entry(operation.to_owned()).or_default().push_back(reply);
    }

    /// The next task is taken and never runs, for this reason in the vendor's words.
    pub fn fail_start(&self, message: &str) {
        let mut failures = self.cloud.endpoint().start_failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.push_back(message.to_owned());
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
    if let Some(reply) = endpoint.refusal(call.operation) {
        return reply;
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
