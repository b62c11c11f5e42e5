//! One probe, from its ticket to the removal of its task: every step for a bounded time, each finding told as it comes. Runs in
//! the caller's task; a probe that is killed leaves a task that ends by itself, and an orphan's grace later it is ended.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use spillway_bus::{
    Bus, ClaimToken, Heartbeat, Heartbeats, Installation, ProbeCause, ProbeLine, ProbeReports, Tickets,
};
use spillway_launchers::{LaunchOrder, Launcher, RunMode, TaskLinks, TaskRef, TaskStatus};
use spillway_process::chain;
use spillway_protocol::ids::EgressId;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info};

use super::advice::ProbeSite;
use super::diagnosis;
use super::finding::{ProbeFinding, ProbeSummary, is_fine};
use super::{launch, ticket};
use crate::config::Config;
use crate::config::targets::{LauncherConfig, TargetConfig};
use crate::server_api::ServerApi;
use crate::setup::{self, DispatcherError};

/// For a connection to Redis from here.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Added to the time that a start may take: for the checks themselves.
const CHECKS: Duration = Duration::from_secs(75);
/// Between two looks for new lines.
const POLL: Duration = Duration::from_millis(250);
/// Between two questions to a platform.
const STATUS_EVERY: Duration = Duration::from_secs(2);
const STATUS_TIMEOUT: Duration = Duration::from_secs(20);
/// With a heartbeat no search for orphans ends the task.
const BEAT_EVERY: Duration = Duration::from_secs(5);
const BEAT_TTL: Duration = Duration::from_secs(30);
/// For one step of the removal.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);
/// Until the platform says that the task is gone.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(45);
/// Where a platform can, it ends the task itself after this.
const MAX_DURATION: Duration = Duration::from_secs(600);

/// How a target is probed.
#[derive(Clone, Debug)]
pub struct ProbeOptions {
    /// For everything from the launch to the last line; `None`: what a start may take, and the checks.
    pub timeout: Option<Duration>,
    /// Where the object of the probe is written, below the prefix of each store.
    pub folder: String,
    /// With the image that has a browser.
    pub page: bool,
}

impl Default for ProbeOptions {
    fn default() -> Self {
        Self { timeout: None, folder: "spillway-probe".to_owned(), page: false }
    }
}

/// What is told while a probe runs.
#[derive(Clone, Copy, Debug)]
pub enum ProbeNews<'n> {
    /// Something was found.
    Finding(&'n ProbeFinding),
    /// What the platform is doing meanwhile.
    Progress(&'n str),
}

/// Probes one target.
pub async fn probe(
    config: &Config,
    target: &TargetConfig,
    options: &ProbeOptions,
    tell: &mut (dyn FnMut(ProbeNews<'_>) + Send),
) -> ProbeSummary {
    let id = ticket::new_id();
    let mut run = ProbeRun { config, options, site: ProbeSite::of(target), findings: Vec::new(), tell };
    let task = match EgressId::parse(&id) {
        Ok(id) => run.at(target, &id).await,
        Err(error) => {
            run.found(ProbeLine::failed("probe", ProbeCause::Unclear, error.to_string()));
            None
        }
    };
    ProbeSummary {
        target: target.name.clone(),
        ok: is_fine(&run.findings),
        probe: id,
        task: task.map(|task| task.id),
        findings: run.findings,
    }
}

struct ProbeRun<'a> {
    config: &'a Config,
    options: &'a ProbeOptions,
    site: ProbeSite,
    findings: Vec<ProbeFinding>,
    tell: &'a mut (dyn FnMut(ProbeNews<'_>) + Send),
}

/// A task that was started, and when.
struct StartedTask {
    launcher: Arc<dyn Launcher>,
    task: TaskRef,
    launched: Instant,
    /// From the launch on.
    max: Duration,
}

impl ProbeRun<'_> {
    fn found(&mut self, line: ProbeLine) {
        let finding = ProbeFinding::of(line, self.site);
        (self.tell)(ProbeNews::Finding(&finding));
        self.findings.push(finding);
    }

    fn progress(&mut self, text: &str) {
        (self.tell)(ProbeNews::Progress(text));
    }

    /// The task, if one was started.
    async fn at(&mut self, target: &TargetConfig, id: &EgressId) -> Option<TaskRef> {
        if matches!(target.launcher, LauncherConfig::Simulated { .. }) {
            self.found(ProbeLine::noted("launch", "a simulated target starts no program: there is nothing to probe"));
            return None;
        }
        let began = Instant::now();
        let bus = match timeout(CONNECT_TIMEOUT, Bus::connect(&self.config.redis)).await {
            Ok(Ok(bus)) => bus,
            Ok(Err(error)) => {
                self.found(ProbeLine::failed("redis (here)", error.probe_cause(), chain(&error).to_string()));
                return None;
            }
            Err(_) => {
                let message = format!("no connection within {} s", CONNECT_TIMEOUT.as_secs());
                self.found(ProbeLine::failed("redis (here)", ProbeCause::RedisUnreachable, message));
                return None;
            }
        };
        self.found(ProbeLine::passed("redis (here)", "answers").took(began.elapsed()));
        // Its log is read, and not shown among our findings.
        let (target, log_folder) = launch::with_log(target, id);
        let started = self.start(&bus, &target, id).await;
        if let Some(folder) = log_folder
            && let Err(error) = std::fs::remove_dir_all(&folder)
        {
            debug!(%error, folder = %folder.display(), "log of the probe not removed");
        }
        started
    }

    async fn start(&mut self, bus: &Bus, target: &TargetConfig, id: &EgressId) -> Option<TaskRef> {
        let launcher = match setup::launcher(target, self.config, bus.clock()).await {
            Ok(launcher) => launcher,
            Err(error) => {
                let cause = match &error {
                    DispatcherError::Launcher { source, .. } => diagnosis::of_launch(source),
                    _ => ProbeCause::Unclear,
                };
                self.found(ProbeLine::failed("launch", cause, chain(&error).to_string()));
                return None;
            }
        };
        if self.options.page && !launcher.takes_pages() {
            self.found(ProbeLine::noted("launch", "the target has no image with a browser; the other one is probed"));
        }
        let max = self
            .options
            .timeout
            .unwrap_or_else(|| target.start_deadline.unwrap_or(self.config.start_deadline) + CHECKS);
        let (order, tickets) = match self.order(bus, id, max).await {
            Ok(order) => order,
            Err(line) => {
                self.found(*line);
                return None;
            }
        };
        let room = ticket::room_name(id);
        let api = ServerApi::new(self.config);
        if let Ok(Err(error)) = timeout(STEP_TIMEOUT, api.create_room(&room)).await {
            // Where the dispatcher does not reach it, the runner may: joining makes a room, unless that is switched off.
            self.found(ProbeLine::noted("room", format!("not made from here: {}", chain(&error))));
        }
        self.beat(bus, id).await;
        let began = Instant::now();
        let launched = launch::launch(&*launcher, &order).await;
        let task = match launched {
            Ok(task) => {
                let TaskLinks { task_url, log_url } = launcher.links(&task);
                info!(
                    probe = %id, target = %target.name, %task, task_url, log_url,
                    "probe launched; no egress, billed to nobody"
                );
                let line = ProbeLine::passed("launch", format!("accepted, task {}", task.id));
                self.found(line.took(began.elapsed()));
                let started = StartedTask { launcher, task: task.clone(), launched: began, max };
                self.follow(bus, id, &started).await;
                self.discard(&started).await;
                Some(task)
            }
            Err(error) => {
                let line = ProbeLine::failed("launch", diagnosis::of_launch(&error), chain(&error).to_string());
                self.found(line.took(began.elapsed()));
                None
            }
        };
        clean_up(bus, &tickets, id, &order.claim).await;
        let _ = timeout(STEP_TIMEOUT, api.delete_room(&room)).await;
        task
    }

    /// Puts the ticket. An error: what is told about it.
    async fn order(&self, bus: &Bus, id: &EgressId, max: Duration) -> Result<(LaunchOrder, Tickets), Box<ProbeLine>> {
        let failed = |cause, error: &(dyn std::error::Error + 'static)| {
            Box::new(ProbeLine::failed("ticket", cause, chain(error).to_string()))
        };
        let key = setup::ticket_key(self.config).map_err(|error| failed(error.probe_cause(), &error))?;
        let handover =
            setup::handover(self.config, &key).map_err(|error| failed(ProbeCause::HandoverMissing, &error))?;
        let shape = ticket::shape(self.site).map_err(|error| failed(ProbeCause::Unclear, &error))?;
        let folder = &self.options.folder;
        let ticket = ticket::ticket(self.config, id, self.site, shape, folder, max + BEAT_TTL)
            .map_err(|error| failed(ProbeCause::TokenRefused, &error))?;
        let tickets = Tickets::new(bus, key);
        let ttl = self.config.ticket_ttl(RunMode::Probe).max(max);
        let claim = tickets.put(&ticket, ttl).await.map_err(|error| failed(error.probe_cause(), &error))?;
        let installation =
            Installation::new(bus).get_or_make().await.map_err(|error| failed(error.probe_cause(), &error))?;
        let order = LaunchOrder {
            egress_id: id.clone(),
            attempt: 1,
            run_mode: RunMode::Probe,
            installation,
            claim: claim.reveal().to_owned(),
            handover,
            labels: BTreeMap::from([("type".to_owned(), "probe".to_owned())]),
            shape,
            page: self.options.page,
            max_duration: Some(MAX_DURATION.max(max)),
        };
        Ok((order, tickets))
    }

    /// Until the last line, the end of the task, or the end of the time.
    async fn follow(&mut self, bus: &Bus, id: &EgressId, started: &StartedTask) {
        let reports = ProbeReports::new(bus);
        let status_every = if started.launcher.is_this_machine() { POLL } else { STATUS_EVERY };
        let (mut shown, mut last) = (0, String::new());
        let (mut next_status, mut next_beat) = (started.launched, started.launched + BEAT_EVERY);
        loop {
            if self.show_new(&reports, id, started, &mut shown).await {
                return;
            }
            let now = Instant::now();
            if now >= next_beat {
                next_beat = now + BEAT_EVERY;
                self.beat(bus, id).await;
            }
            if now >= next_status {
                next_status = now + status_every;
                match timeout(STATUS_TIMEOUT, started.launcher.status(&started.task)).await {
                    Ok(TaskStatus::Gone(exit_report)) => {
                        // Its last lines may have been written meanwhile.
                        if !self.show_new(&reports, id, started, &mut shown).await {
                            let log = started.launcher.log(&started.task).await;
                            self.found(diagnosis::left(&exit_report, &log, shown > 0));
                        }
                        return;
                    }
                    Ok(TaskStatus::Starting(doing)) if doing != last => {
                        self.progress(&doing);
                        last = doing;
                    }
                    Ok(TaskStatus::Unknown(why)) => last = why,
                    Ok(TaskStatus::Alive) => "the task runs".clone_into(&mut last),
                    Ok(TaskStatus::Starting(_)) | Err(_) => {}
                }
            }
            if now >= started.launched + started.max {
                self.found(diagnosis::late(started.max, &last, shown > 0));
                return;
            }
            tokio::select! {
                () = sleep(POLL) => {}
                _ = tokio::signal::ctrl_c() => {
                    self.found(ProbeLine::failed("probe", ProbeCause::Unclear, "interrupted"));
                    return;
                }
            }
        }
    }

    /// Tells the lines that are new; true: there will be no more.
    async fn show_new(
        &mut self,
        reports: &ProbeReports,
        id: &EgressId,
        started: &StartedTask,
        shown: &mut usize,
    ) -> bool {
        let report = match reports.get(id).await {
            Ok(report) => report.unwrap_or_default(),
            Err(error) => {
                debug!(error = %chain(&error), "report not read");
                return false;
            }
        };
        if *shown == 0 && !report.lines.is_empty() {
            let seconds = started.launched.elapsed().as_secs_f64();
            let line = ProbeLine::passed("start", format!("first line {seconds:.1} s after the launch"));
            self.found(line.took(started.launched.elapsed()));
        }
        for line in report.lines.iter().skip(*shown) {
            self.found(line.clone());
        }
        *shown = report.lines.len().max(*shown);
        report.is_over
    }

    async fn beat(&self, bus: &Bus, id: &EgressId) {
        if let Err(error) = Heartbeats::new(bus).beat(id, 1, &Heartbeat::default(), BEAT_TTL).await {
            debug!(error = %chain(&error), "no heartbeat for the probe");
        }
    }

    /// The platform may need a while.
    async fn discard(&mut self, started: &StartedTask) {
        let give_up = Instant::now() + DISCARD_TIMEOUT;
        loop {
            let discarded = async {
                started.launcher.discard(&started.task).await;
                started.launcher.status(&started.task).await
            };
            if matches!(timeout(STATUS_TIMEOUT, discarded).await, Ok(TaskStatus::Gone(_))) {
                return;
            }
            if Instant::now() >= give_up {
                let message = format!("task {} may still be there; it ends by itself", started.task.id);
                self.found(ProbeLine::warned("removal", ProbeCause::PlatformSilent, message));
                return;
            }
            sleep(Duration::from_secs(1)).await;
        }
    }
}

/// What is left of it in Redis; all of it expires, too.
async fn clean_up(bus: &Bus, tickets: &Tickets, id: &EgressId, claim: &str) {
    let removed = async {
        tickets.withdraw(id, &ClaimToken::from_text(claim)).await?;
        ProbeReports::new(bus).remove(id).await
    };
    if let Ok(Err(error)) = timeout(STEP_TIMEOUT, removed).await {
        debug!(error = %chain(&error), "ticket and report of the probe not removed");
    }
}
