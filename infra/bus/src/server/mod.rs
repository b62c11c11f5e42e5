//! The serving side of psrpc: receive a call, bid, wait for the grant, answer. [`RpcServer`] subscribes; `method`
//! does the work in background tasks, which end when the server is closed or dropped.

mod handler;
mod method;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use handler::{Bid, Handler, Incoming, Routing};

use crate::bus::{Backend, Bus};
use crate::error::BusError;
use crate::names::{self, ChannelKind};
use crate::pub_sub::Interest;

use method::{MethodState, RpcMethod, Topics};

/// Serves methods of one service under one server id. Clones are one server.
#[derive(Clone)]
pub struct RpcServer {
    inner: Arc<ServerInner>,
}

struct ServerInner {
    backend: Arc<dyn Backend>,
    service: &'static str,
    server_id: String,
    served_methods: Mutex<HashMap<MethodTopic, ServedMethod>>,
    /// Methods and calls still at work.
    tasks: TaskTracker,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum MethodTopic {
    Topic(&'static str, String),
    Pattern(&'static str),
}

/// One served method and topic, seen from outside.
struct ServedMethod {
    leave: CancellationToken,
}

impl RpcServer {
    /// Serves nothing yet.
    pub fn new(bus: &Bus, service: &'static str) -> Self {
        Self {
            inner: Arc::new(ServerInner {
                backend: bus.backend.clone(),
                service,
                server_id: names::new_id("SRV_"),
                served_methods: Mutex::default(),
                tasks: TaskTracker::new(),
            }),
        }
    }

    /// Serves one topic. When it returns, calls and grants are received.
    ///
    /// # Errors
    /// [`BusError::Served`], [`BusError::Closed`]: a mistake of the program. Others: Redis did not confirm the
    /// subscription; a retry is right.
    pub async fn serve<H: Handler>(
        &self,
        method: &'static str,
        topic: &str,
        routing: Routing,
        handler: Arc<H>,
    ) -> Result<(), BusError> {
        let channel = |kind| Interest::Channel(names::method_channel(self.inner.service, method, topic, kind));
        let topics = Topics::One(topic.to_owned());
        self.open(MethodTopic::Topic(method, topic.to_owned()), topics, channel, method, routing, handler).await
    }

    /// Serves a method for every topic; the topic is in [`Incoming`].
    ///
    /// # Errors
    /// As [`RpcServer::serve`].
    pub async fn serve_pattern<H: Handler>(
        &self,
        method: &'static str,
        routing: Routing,
        handler: Arc<H>,
    ) -> Result<(), BusError> {
        let pattern = |kind| Interest::Pattern(names::method_pattern(self.inner.service, method, kind));
        self.open(MethodTopic::Pattern(method), Topics::All, pattern, method, routing, handler).await
    }

    /// No more bids for this topic. Calls that were bid for still get their grant and their answer.
    pub async fn unsubscribe(&self, method: &'static str, topic: &str) {
        if let Some(served) = self.inner.served_methods().remove(&MethodTopic::Topic(method, topic.to_owned())) {
            served.leave.cancel();
        }
    }

    /// As [`RpcServer::unsubscribe`], for [`RpcServer::serve_pattern`].
    pub async fn unsubscribe_pattern(&self, method: &'static str) {
        if let Some(served) = self.inner.served_methods().remove(&MethodTopic::Pattern(method)) {
            served.leave.cancel();
        }
    }

    /// No more bids at all; returns when every call that was bid for is answered or its deadline has passed.
    pub async fn close(&self) {
        for (_, served) in self.inner.served_methods().drain() {
            served.leave.cancel();
        }
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    async fn open<H: Handler>(
        &self,
        method_topic: MethodTopic,
        topics: Topics,
        interest: impl Fn(ChannelKind) -> Interest,
        method: &'static str,
        routing: Routing,
        handler: Arc<H>,
    ) -> Result<(), BusError> {
        if self.inner.tasks.is_closed() {
            return Err(BusError::Closed);
        }
        let leave = CancellationToken::new();
        {
            let mut served_methods = self.inner.served_methods();
            if served_methods.contains_key(&method_topic) {
                return Err(BusError::Served(format!("{method_topic:?}")));
            }
            served_methods.insert(method_topic.clone(), ServedMethod { leave: leave.clone() });
        }
        // Grants first: a call may come the moment calls are subscribed.
        let subscribed = async {
            let grants = match routing {
                Routing::Multi => None,
                Routing::Affinity | Routing::Queue => {
                    Some(self.inner.backend.subscribe(interest(ChannelKind::Grant)).await?)
                }
            };
            Ok((grants, self.inner.backend.subscribe(interest(ChannelKind::Request)).await?))
        };
        let (grants, calls) = match subscribed.await {
            Ok(subscriptions) => subscriptions,
            Err(error) => {
                self.inner.served_methods().remove(&method_topic);
                return Err(error);
            }
        };
        let rpc_method = Arc::new(RpcMethod {
            backend: self.inner.backend.clone(),
            service: self.inner.service,
            server_id: self.inner.server_id.clone(),
            method,
            topics,
            routing,
            handler,
            leave,
            state: MethodState::default(),
        });
        self.inner.tasks.spawn(rpc_method.run(calls, grants));
        Ok(())
    }
}

impl ServerInner {
    fn served_methods(&self) -> MutexGuard<'_, HashMap<MethodTopic, ServedMethod>> {
        self.served_methods.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for ServerInner {
    fn drop(&mut self) {
        for served in self.served_methods().values() {
            served.leave.cancel();
        }
    }
}
