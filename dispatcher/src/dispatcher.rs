//! One running dispatcher: serves StartEgress, StopEgress and UpdateStream, and runs the actors' loops. Made by `main`;
//! every loop is a task of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use spillway_bus::{Routing, RpcClient, RpcServer};
use spillway_launchers::{StopMode, TaskStatus};
use spillway_process::chain;
use spillway_protocol::Secret;
use spillway_protocol::rpc::service;
use tracing::{error, info, warn};

use crate::admission::Bounds;
use crate::billing::orphan_tracker::Finding;
use crate::config::Config;
#[cfg(feature = "testing")]
use crate::console::ConsoleBody;
use crate::control::{ControlHandler, ControlMethod};
use crate::health::{self, PortRoutes};
use crate::launch;
use crate::list_active::ListActive;
use crate::metrics_log;
use crate::setup::{self, Actors, DispatcherError, Setup};
use crate::targets::Target;

/// For calls that are being answered, and for tasks that finish, at the end of the process.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// One running dispatcher.
pub struct Dispatcher {
    actors: Actors,
    starts: RpcServer,
    control: RpcServer,
}

impl Dispatcher {
    /// Starts the loops and serves RPC; the first StartEgress may come before this returns.
    ///
    /// # Errors
    /// When Redis does not answer, an address is taken, or the configuration cannot be used; a retry is right in the
    /// first case.
    pub async fn start(setup: Setup) -> Result<Self, DispatcherError> {
        let actors = setup.actors("dispatcher")?;
        let Actors { bus, io, instance, records, intake, launcher, finisher, exits, orphans, console } = &actors;
        orphans.installation.learn().await?;
        // Without it, another dispatcher would adopt the first records of this one.
        records.beat().await?;
        let config = instance.config();
        let own = address(&config);
        // Where there is none, a reload may switch it on.
        let beside_health = own.is_none();
        let ports = [(config.health, true, beside_health), (config.metrics, true, false), (own, false, true)];
        for (at, has_health, has_console) in ports {
            let Some(at) = at else { continue };
            let listener = health::listen(at).await.map_err(|source| DispatcherError::Health { at, source })?;
            let routes = PortRoutes {
                instance: Arc::clone(instance),
                exits: has_health.then(|| Arc::clone(exits)),
                console: has_console.then(|| Arc::clone(console)),
            };
            instance.spawn(health::serve(listener, routes));
        }
        io.listen().await?;
        let control = RpcServer::new(bus, service::EGRESS_HANDLER);
        let runners = RpcClient::new(bus, service::EGRESS_HANDLER);
        let methods = [
            (service::STOP_EGRESS, ControlMethod::Stop),
            (service::UPDATE_STREAM, ControlMethod::UpdateStream),
            (service::UPDATE_EGRESS, ControlMethod::Other),
        ];
        for (method, what) in methods {
            let (instance, records, finisher) = (Arc::clone(instance), records.clone(), Arc::clone(finisher));
            let runners = runners.clone();
            let handler = Arc::new(ControlHandler { instance, records, finisher, runners, what });
            control.serve_pattern(method, Routing::Queue, handler).await?;
        }
        let (reconciler, accountant) = actors.loops();
        instance.spawn(records.clone().keep_beating(Arc::clone(instance)));
        instance.spawn(launch::run(Arc::clone(launcher)));
        instance.spawn(reconciler.run());
        instance.spawn(accountant.run());
        instance.spawn(Arc::clone(console).run());
        if config.log_json {
            instance.spawn(metrics_log::run(Arc::clone(instance)));
        }

        let starts = RpcServer::new(bus, service::EGRESS_INTERNAL);
        let list = Arc::new(ListActive(records.clone()));
        starts.serve(service::LIST_ACTIVE_EGRESS, "", Routing::Multi, list).await?;
        starts.serve(service::START_EGRESS, "", Routing::Affinity, Arc::clone(intake)).await?;
        let all = launcher.targets.all();
        let targets: Vec<&str> = all.iter().map(|target| target.name()).collect();
        info!(name = %instance.name, ?targets, "dispatcher is ready");
        Ok(Self { actors, starts, control })
    }

    /// Takes no more StartEgress and returns when no work is in hand. False: some still was after the configured
    /// `drain`; another dispatcher takes it over. Recordings go on by themselves.
    pub async fn drained(&self) -> bool {
        self.take_no_more().await;
        let timeout = self.actors.instance.config().drain;
        let in_time = self.actors.idle_within(timeout).await;
        if !in_time {
            warn!(?timeout, "still work in hand at the end of the drain; another dispatcher will find it");
        }
        in_time
    }

    async fn take_no_more(&self) {
        self.actors.instance.drain();
        self.starts.unsubscribe(service::START_EGRESS, "").await;
        info!("draining: no more StartEgress");
    }

    /// The last step, after [`Dispatcher::drained`]. False: tasks still ran after five seconds.
    pub async fn leave(self) -> bool {
        let closed = tokio::time::timeout(LEAVE_TIMEOUT, async {
            self.starts.close().await;
            self.control.close().await;
        });
        if closed.await.is_err() {
            warn!("calls still unanswered when leaving");
        }
        self.actors.instance.shutdown.shut_down(LEAVE_TIMEOUT).await
    }

    /// Ends every recording of this dispatcher gracefully and waits, at most for `drain`, until their tasks are gone.
    /// For an operator who sends a second signal.
    pub async fn end_all(&self) {
        let Actors { instance, records, launcher, .. } = &self.actors;
        self.take_no_more().await;
        let live = match records.registry.list_live().await {
            Ok(live) => live,
            Err(error) => return warn!(error = %chain(&error), "registry not reached, no recording ended"),
        };
        let mut ending = Vec::new();
        for record in live.iter().filter(|record| !record.state.is_over() && records.owns(record)) {
            if record.task().is_some() {
                launcher.targets.end(record, StopMode::Graceful).await;
                ending.push(record);
            }
        }
        info!(runners = ending.len(), "runners asked to finish");
        let gone = tokio::time::timeout(instance.config().drain, async {
            for record in &ending {
                while matches!(launcher.targets.status(record).await, Some(TaskStatus::Alive | TaskStatus::Starting(_)))
                {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        });
        if gone.await.is_err() {
            warn!("some runners are still finishing; they go on by themselves");
        }
    }

    /// Takes over a new configuration: targets, queue, deadlines, caps, tenants, prices, storage, runner settings.
    /// Other keys that differ are named in the log and need a restart.
    pub async fn reload(&self, new: Config) {
        let old = self.actors.instance.config();
        let fixed = [
            ("redis", format!("{:?}", old.redis) != format!("{:?}", new.redis)),
            ("health, prometheus_port", (old.health, old.metrics) != (new.health, new.metrics)),
            ("push", old.push != new.push),
            ("console.address", address(&old) != address(&new)),
            ("ticket_key", old.ticket_key.as_ref().map(Secret::reveal) != new.ticket_key.as_ref().map(Secret::reveal)),
            ("logging", (&old.log_level, old.log_json) != (&new.log_level, new.log_json)),
            ("stack", old.stack != new.stack),
        ];
        for (what, _) in fixed.iter().filter(|(_, differs)| *differs) {
            warn!(what, "changed in the configuration; a restart is needed for it");
        }
        let targets = match self.targets(&old, &new).await {
            Ok(targets) => {
                self.actors.launcher.targets.replace(targets);
                new.targets.clone()
            }
            Err(error) => {
                error!(error = %chain(&error), "targets not changed");
                old.targets.clone()
            }
        };
        // Tokens are those of now. One that is to move must not be served where others may reach it meanwhile.
        let stays = address(&old) == address(&new);
        let before = old.console.clone().filter(|_| new.console.is_some());
        let console = if stays { new.console.clone() } else { before };
        let new = Config {
            redis: old.redis.clone(),
            targets,
            health: old.health,
            push: old.push.clone(),
            console,
            metrics: old.metrics,
            ticket_key: old.ticket_key.clone(),
            log_level: old.log_level.clone(),
            log_json: old.log_json,
            stack: old.stack.clone(),
            ..new
        };
        let Actors { instance, launcher, .. } = &self.actors;
        launcher.queue.lock().set_bounds(Bounds::of(&new));
        instance.set_config(new);
        launcher.queue.notify();
        info!("configuration read again");
    }

    /// Unchanged targets keep their launcher, breaker and pace.
    async fn targets(&self, old: &Config, new: &Config) -> Result<Vec<Arc<Target>>, DispatcherError> {
        let new = Config { stack: old.stack.clone(), ..new.clone() };
        let mut targets = Vec::new();
        for config in &new.targets {
            let same = old.targets.iter().any(|before| format!("{before:?}") == format!("{config:?}"));
            match self.actors.launcher.targets.named(&config.name).filter(|_| same) {
                Some(target) => targets.push(target),
                None => {
                    info!(target = config.name, "target is new, or has changed");
                    targets.push(Arc::new(Target::new(
                        config.clone(),
                        setup::launcher(config, &new, &self.actors.instance.clock).await?,
                    )));
                }
            }
        }
        Ok(targets)
    }

    /// The console's answer to a request, without a port. For tests in virtual time, in which sockets are never waited for.
    #[cfg(feature = "testing")]
    pub async fn console(&self, request: hyper::Request<hyper::body::Bytes>) -> hyper::Response<ConsoleBody> {
        let (head, body) = request.into_parts();
        self.actors.console.answer(&head, body).await
    }

    /// Stops as if the process had been killed: nothing is finished, nothing is reported. For tests of what other
    /// dispatchers do then.
    #[cfg(feature = "testing")]
    pub async fn vanish(self) {
        self.actors.instance.cut_off();
        self.starts.unsubscribe(service::START_EGRESS, "").await;
        for method in [service::STOP_EGRESS, service::UPDATE_STREAM, service::UPDATE_EGRESS] {
            self.control.unsubscribe_pattern(method).await;
        }
    }
}

/// Where the console has a port of its own.
fn address(config: &Config) -> Option<SocketAddr> {
    config.console.as_ref().and_then(|rules| rules.address)
}

/// Searches for lost tasks and egresses, as `--sweep` does; takes the whole grace where a task may turn out to be lost.
/// Without `dry_run` orphaned tasks are ended.
///
/// # Errors
/// When Redis does not answer; nothing was ended then, and a repeat is right.
pub async fn sweep(setup: Setup, dry_run: bool) -> Result<Vec<Finding>, DispatcherError> {
    let search = setup.actors("sweep")?.orphans;
    let findings = search.sweep().await?;
    if !dry_run {
        search.end(&findings).await?;
    }
    Ok(findings)
}
