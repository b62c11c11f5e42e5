//! What all clouds have in common: one door, at which it is asked who may do what, and at which things go wrong.

use std::sync::Arc;

use anyhow::Result;

use super::Place;
use super::fault::{Fault, Faults};
use super::policy::{Need, Policy};
use super::web::{Asked, Reply, Web};

/// One cloud on this machine; what it knows is behind its door.
pub struct Fake<C> {
    // Dropped first: nothing comes in any more.
    pub web: Web,
    pub(super) cloud: Arc<C>,
}

/// What a platform does behind its door.
pub trait Cloud: Send + Sync + 'static {
    fn desk(&self) -> &Desk;

    /// What is asked for; an error is the answer to something that is no request at all.
    fn read(&self, asked: &Asked) -> Result<Call, Reply>;

    fn denied(&self, need: &Need) -> Reply;

    /// Its words for what goes wrong before anything is done; `None`: it has none, or says so later.
    fn fails(&self, fault: Fault) -> Option<Reply>;

    fn obey(self: &Arc<Self>, call: &Call, asked: &Asked, fault: Option<Fault>) -> Reply;
}

/// What every cloud has at its door.
pub struct Desk {
    pub place: Place,
    pub policy: Policy,
    pub faults: Faults,
}

impl Desk {
    /// `rendered` is what Terraform gives to a dispatcher.
    pub fn new(place: Place, rendered: impl FnOnce() -> Result<Policy>) -> Result<Self> {
        let policy = place.policy.clone().map_or_else(rendered, Ok)?;
        Ok(Self { place, policy, faults: Faults::default() })
    }
}

pub struct Call {
    pub operation: &'static str,
    /// What it is about, as the platform's paths have it.
    pub subject: String,
    pub needs: Vec<Need>,
}

impl<C: Cloud> Fake<C> {
    pub async fn open(cloud: C) -> Result<Self> {
        let cloud = Arc::new(cloud);
        let serving = Arc::clone(&cloud);
        let web = Web::start(move |asked| {
            let cloud = Arc::clone(&serving);
            async move { answer(&cloud, &asked) }
        });
        Ok(Self { web: web.await?, cloud })
    }

    pub fn faults(&self) -> &Faults {
        &self.cloud.desk().faults
    }
}

fn answer<C: Cloud>(cloud: &Arc<C>, asked: &Asked) -> Reply {
    let call = match cloud.read(asked) {
        Ok(call) => call,
        Err(reply) => return reply,
    };
    let desk = cloud.desk();
    if let Some(need) = desk.policy.lacks(&call.needs) {
        return cloud.denied(need);
    }
    let fault = desk.faults.next(call.operation);
    match fault {
        Some(Fault::Lost) => return Reply::HangUp,
        Some(fault) if fault.before() => {
            if let Some(reply) = cloud.fails(fault) {
                return reply;
            }
        }
        _ => {}
    }
    let reply = cloud.obey(&call, asked, fault);
    match fault {
        Some(Fault::BrokenAfter) => cloud.fails(Fault::Broken).unwrap_or(Reply::HangUp),
        Some(Fault::LostAfter) => Reply::HangUp,
        Some(Fault::Late) => Reply::Late(Box::new(reply)),
        _ => reply,
    }
}
