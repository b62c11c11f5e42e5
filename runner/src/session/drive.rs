//! Obeys the machine: starts the media process, carries words and facts, settles what is on the disk.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use spillway_plan::{Container, EgressPlan, Output};
use spillway_protocol::Code;
use spillway_protocol::Secret;
use spillway_protocol::ledger::{EndReason as Why, Fact, Outcome};
use spillway_spool::{EndReason, Happening, MediaSettings, Order, StartOrder, TrackFacts};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use super::machine::{Effect, Event, Rules, Session};
use super::media::{MediaProcess, Next};
use crate::clock;
use crate::report::Reporter;
use crate::sink::{self, Files, Place, PlaceError};

const TICK: Duration = Duration::from_millis(250);
/// A media process that has said its last word, or was told to stop, leaves by itself within this.
const LEAVING: Duration = Duration::from_secs(2);

/// Everything one recording needs.
#[derive(Clone, Debug)]
pub struct Job {
    pub plan: EgressPlan,
    pub ws_url: String,
    pub token: Secret,
    pub media: MediaSettings,
    pub program: PathBuf,
    /// Absolute; relative names lie below it.
    pub root: PathBuf,
    pub rules: Rules,
}

/// How it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The last fact has been told.
    Told,
    /// Somebody else has settled this egress.
    Disowned,
}

/// Records until the end. `inbox` brings what others want: stops, and the news that the egress is not ours any more.
pub async fn drive(job: Job, reporter: &Reporter, mut inbox: mpsc::Receiver<Event>) -> Ended {
    let mut media = match MediaProcess::start(&job.program) {
        Ok(media) => media,
        Err(error) => {
            let words = spillway_process::chain(&error).to_string();
            reporter.tell(Fact::Ending(Why::Failure));
            reporter.tell(Fact::Over(Outcome::Failed { code: Code::Internal, words }));
            return Ended::Told;
        }
    };
    let start = StartOrder {
        plan: job.plan.clone(),
        ws_url: job.ws_url.clone(),
        token: job.token.reveal().clone(),
        settings: job.media.clone(),
    };
    media.order(&Order::Start(Box::new(start))).await;

    let mut driver = Driver {
        session: Session::new(job.rules.clone(), Instant::now()),
        job,
        reporter,
        files: Files::default(),
        last_word: false,
    };
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let outcome = loop {
        let event = tokio::select! {
            biased;
            Some(event) = inbox.recv() => event,
            next = media.next() => match next {
                Next::Said(happening) => Event::Said(happening),
                Next::Gone(words) => Event::Gone(words),
            },
            _ = ticks.tick() => Event::Tick,
        };
        match driver.on(event, &mut media).await {
            Onward::Go => {}
            Onward::Finish(outcome) => break Some(outcome),
            Onward::Leave => break None,
        }
    };
    driver.settle(outcome, media).await
}

enum Onward {
    Go,
    Finish(Outcome),
    Leave,
}

struct Driver<'a> {
    session: Session,
    job: Job,
    reporter: &'a Reporter,
    files: Files,
    /// The media process has said `Ended`: its files are closed.
    last_word: bool,
}

impl Driver<'_> {
    async fn on(&mut self, event: Event, media: &mut MediaProcess) -> Onward {
        let event = match event {
            Event::Said(happening) => {
                self.files.hear(&happening);
                match self.heard(&happening, media).await {
                    Ok(None) => Event::Said(happening),
                    Ok(Some(instead)) => instead,
                    Err(error) => Event::NoPlace(error.to_string()),
                }
            }
            other => other,
        };
        for effect in self.session.on(event, Instant::now()) {
            match effect {
                Effect::OrderStop => media.order(&Order::Stop).await,
                Effect::Tell(fact) => self.tell(fact),
                Effect::Finish(outcome) => return Onward::Finish(outcome),
                Effect::Leave => return Onward::Leave,
            }
        }
        Onward::Go
    }

    /// What the machine does not decide: where files lie, and what is shown of progress. The event it is for the
    /// machine, if not what was said.
    async fn heard(&mut self, happening: &Happening, media: &mut MediaProcess) -> Result<Option<Event>, PlaceError> {
        match happening {
            Happening::Opening { file, container, facts } => {
                let path = self.place(*file, *container, facts).await?;
                media.order(&Order::WriteTo { file: *file, path }).await;
            }
            Happening::Joined { room_id, room_name } => {
                info!(room = %room_name, room_id, "joined the room");
                let asked = &mut self.job.plan.room_id;
                if asked.is_empty() {
                    asked.clone_from(room_id);
                } else if !room_id.is_empty() && asked != room_id {
                    return Ok(Some(Event::OtherRoom));
                }
                self.reporter.tell(Fact::Joined { room_id: room_id.clone(), room_name: room_name.clone() });
            }
            Happening::Alive { media_ns, lag_ms, .. } => {
                self.reporter.progress(*media_ns, *lag_ms, &self.files);
            }
            Happening::Closed { quality, .. } => {
                for words in &quality.degraded {
                    warn!(words, "recording is degraded");
                }
            }
            Happening::Ended { why } => {
                self.last_word = true;
                if let EndReason::SourceClosed { words } = why {
                    info!(words, "source closed");
                }
            }
            _ => {}
        }
        Ok(None)
    }

    async fn place(&mut self, file: u32, container: Container, facts: &TrackFacts) -> Result<PathBuf, PlaceError> {
        let output = match self.job.plan.outputs.get(file as usize) {
            Some(Output::File(output)) => output,
            None => return Err(PlaceError::NotAsked(file)),
        };
        let place = Place::of(&self.job.plan, output, container, facts, clock::local(), &self.job.root);
        let prepared = place.clone();
        // A network disk may take its time; control must not wait for it.
        let new = spawn_blocking(move || prepared.prepare()).await.unwrap_or(Err(PlaceError::NotAsked(file)))?;
        info!(file = %place.location.display(), "file opened");
        let path = place.location.clone();
        self.files.opened(file, place, facts.clone(), new);
        if self.files.started() {
            self.tell_opened();
        }
        Ok(path)
    }

    /// Files are named from the first media on: an aborted egress has none.
    fn tell_opened(&self) {
        for (index, recorded) in self.files.all().enumerate() {
            let Place { filename, location } = recorded.place.clone();
            self.reporter.tell(Fact::FileOpened { index, filename, location: location.display().to_string() });
        }
    }

    fn tell(&self, fact: Fact) {
        if matches!(fact, Fact::Active { .. }) {
            self.tell_opened();
        }
        self.reporter.tell(fact);
    }

    async fn settle(mut self, outcome: Option<Outcome>, mut media: MediaProcess) -> Ended {
        // Whoever has not said its last word may still be writing.
        let written_to = !self.last_word && !matches!(outcome, Some(Outcome::Aborted { .. }));
        if written_to {
            media.end(Duration::ZERO, Duration::from_millis(300)).await;
        }
        let ended = match outcome {
            None => Ended::Disowned,
            Some(outcome) => {
                self.tell_results(outcome).await;
                Ended::Told
            }
        };
        if !written_to {
            media.end(LEAVING, LEAVING).await;
        }
        ended
    }

    async fn tell_results(&mut self, outcome: Outcome) {
        let mut files = std::mem::take(&mut self.files);
        let (plan, root) = (self.job.plan.clone(), self.job.root.clone());
        let wanted = matches!(outcome, Outcome::Complete | Outcome::LimitReached);
        let settled = spawn_blocking(move || {
            let results = files.settle();
            let manifest = if wanted { sink::write_manifest(&plan, &files, &results, &root) } else { Ok(None) };
            (files, results, manifest)
        });
        let (files, results, manifest) = match settled.await {
            Ok(settled) => settled,
            Err(error) => {
                warn!(%error, "files not settled");
                (Files::default(), vec![], Ok(None))
            }
        };
        for file in results {
            info!(
                file = file.location,
                bytes = file.bytes,
                seconds = (file.ended_at - file.started_at) / 1_000_000_000,
                "file kept"
            );
            self.reporter.tell(Fact::FileStored {
                index: file.index,
                size: file.bytes,
                started_at: file.started_at,
                ended_at: file.ended_at,
                location: file.location,
            });
        }
        match manifest {
            Ok(Some(location)) => self.reporter.tell(Fact::ManifestStored { location }),
            Ok(None) => {}
            // The recording itself is whole.
            Err(error) => warn!(%error, "manifest not written"),
        }
        for words in files.degraded() {
            self.reporter.tell(Fact::Noted(words));
        }
        self.reporter.tell(Fact::Over(outcome));
    }
}
