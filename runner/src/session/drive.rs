//! Obeys the machine: starts the media process, carries words and facts, settles what is on the disk and in the stores.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use spillway_plan::{Container, EgressPlan, Output};
use spillway_process::{Clock, LocalRoot};
use spillway_protocol::Code;
use spillway_protocol::Secret;
use spillway_protocol::ledger::{EndReason as Why, Fact, Outcome};
use spillway_spool::{EndReason, FileId, Happening, MediaSettings, Order, StartOrder, TrackFacts};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tracing::{info, warn};

use super::machine::{Effect, Event, Rules, Session};
use super::media::{MediaProcess, Next};
use super::settle::{Settled, settle_files};
use crate::clock;
use crate::report::Reporter;
use crate::sink::claim::{self, Claim};
use crate::sink::{Files, Place, PlaceError};
use crate::upload::{Storing, Uploads};

const TICK: Duration = Duration::from_millis(250);
/// A media process that has said its last word, or was told to stop, leaves by itself within this.
const LEAVING: Duration = Duration::from_secs(2);
/// A stop waits no longer for a trial of the stores.
const TRIAL: Duration = Duration::from_secs(1);
/// For folders and a file to be made. A network disk that wakes up takes seconds; one that hangs is no place to record to.
const PLACE_TIMEOUT: Duration = Duration::from_secs(15);

/// Everything one recording needs.
#[derive(Clone, Debug)]
pub struct Job {
    pub plan: EgressPlan,
    pub ws_url: String,
    pub token: Secret,
    pub media: MediaSettings,
    pub program: PathBuf,
    /// Where files lie that stay on this machine.
    pub root: LocalRoot,
    pub rules: Rules,
    pub storing: Storing,
    /// For what is stamped, here and in the media process.
    pub clock: Clock,
}

/// How it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The last fact has been told.
    Told,
    /// Somebody else has settled this egress.
    Disowned,
}

/// Records until the end. `inbox` brings what others want: stops, and the news that the egress is not ours any more;
/// `news` is its other end.
pub async fn drive(
    job: Job,
    reporter: &Reporter,
    mut inbox: mpsc::Receiver<Event>,
    news: mpsc::Sender<Event>,
) -> Ended {
    let mut media = match MediaProcess::start(&job.program) {
        Ok(media) => media,
        Err(error) => {
            let words = spillway_process::chain(&error).to_string();
            reporter.tell(Fact::Ending(Why::Failure));
            reporter.tell(Fact::Over(Outcome::Failed { code: Code::Internal, words }));
            return Ended::Told;
        }
    };
    let (plan, storing, begun) = (job.plan.clone(), job.storing.clone(), clock::local(&job.clock));
    // The media process gets ready meanwhile, but joins no room before it is known that we may write.
    let mut opening = std::pin::pin!(Uploads::open(&plan, storing, begun, news));
    let mut driver = Driver {
        session: Session::new(job.rules.clone(), Instant::now()),
        job,
        reporter,
        files: Files::default(),
        uploads: None,
        placing: JoinSet::new(),
        last_word: false,
    };
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut refused = false;
    let outcome = loop {
        let event = tokio::select! {
            biased;
            Some(event) = inbox.recv() => event,
            next = media.next() => match next {
                Next::Said(happening) => Event::Said(happening),
                Next::Gone(words) => Event::Gone(words),
            },
            opened = &mut opening, if driver.uploads.is_none() => match opened {
                Ok(uploads) => {
                    driver.begin(uploads, &mut media).await;
                    continue;
                }
                Err(words) => {
                    refused = true;
                    Event::NoPlace(words)
                }
            },
            Some(placed) = driver.placing.join_next(), if !driver.placing.is_empty() => {
                match driver.placed(placed, &mut media).await {
                    Ok(()) => continue,
                    Err(error) => Event::NoPlace(error.to_string()),
                }
            }
            _ = ticks.tick(), if driver.uploads.is_some() => Event::Tick,
        };
        match driver.on(event, &mut media).await {
            Onward::Go => {}
            Onward::Finish(outcome) => break Some(outcome),
            Onward::Leave => break None,
        }
    };
    if outcome.is_some() && driver.uploads.is_none() && !refused {
        // What the trial has begun is to be taken back.
        driver.uploads = timeout(TRIAL, opening).await.ok().and_then(Result::ok);
    }
    driver.settle(outcome, media, inbox).await
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
    /// `None`: the stores are still being tried.
    uploads: Option<Uploads>,
    /// Files that are being made on this machine's disk, beside everything else: a disk may hang.
    placing: JoinSet<Placed>,
    /// The media process has said `Ended`: its files are closed.
    last_word: bool,
}

/// What became of a file that the media process asked for.
struct Placed {
    file: u32,
    container: Container,
    facts: TrackFacts,
    made: Result<(Place, Claim), PlaceError>,
}

impl Driver<'_> {
    async fn begin(&mut self, uploads: Uploads, media: &mut MediaProcess) {
        self.uploads = Some(uploads);
        // Its patience with the media process begins now.
        self.session = Session::new(self.job.rules.clone(), Instant::now());
        let start = StartOrder {
            plan: self.job.plan.clone(),
            ws_url: self.job.ws_url.clone(),
            token: self.job.token.reveal().clone(),
            settings: self.job.media.clone(),
            clock_ahead_ns: self.job.clock.ahead_of_host_ns(),
        };
        media.order(&Order::Start(Box::new(start))).await;
    }

    async fn on(&mut self, event: Event, media: &mut MediaProcess) -> Onward {
        let event = match event {
            Event::Said(happening) => {
                self.files.hear(&happening);
                if let Some(uploads) = &mut self.uploads {
                    uploads.heard(&happening);
                }
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
                self.open(*file, *container, facts, media).await?;
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
                let uploads = self.uploads.iter().flat_map(Uploads::progress).collect();
                self.reporter.progress(*media_ns, *lag_ms, &self.files, uploads);
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

    /// Answers the media process at once for a file of the spool, and through [`Driver::placed`] for one that stays here.
    async fn open(
        &mut self,
        file: u32,
        container: Container,
        facts: &TrackFacts,
        media: &mut MediaProcess,
    ) -> Result<(), PlaceError> {
        let plan = &self.job.plan;
        let (Some(Output::File(output)), Some(uploads)) = (plan.outputs.get(file as usize), &mut self.uploads) else {
            return Err(PlaceError::NotAsked(file));
        };
        let wanted = Place::of(plan, output, container, facts, clock::local(&self.job.clock), self.job.root.path());
        let spooled = timeout(PLACE_TIMEOUT, uploads.opening(plan, file, container, facts, clock::local(&self.job.clock)));
        let path = self.job.root.locate(&wanted.filename);
        let slow = |_| PlaceError::Slow { path: path.clone(), seconds: PLACE_TIMEOUT.as_secs() };
        if let Some(place) = spooled.await.map_err(slow)? {
            self.write_to(file, place?, facts.clone(), None, media).await;
            return Ok(());
        }
        let (root, facts) = (self.job.root.clone(), facts.clone());
        self.placing.spawn(async move {
            let made = claim::within(PLACE_TIMEOUT, path, move || claim::claim(wanted, &root)).await;
            Placed { file, container, facts, made }
        });
        Ok(())
    }

    async fn placed(&mut self, placed: Result<Placed, JoinError>, media: &mut MediaProcess) -> Result<(), PlaceError> {
        let Ok(Placed { file, container, facts, made }) = placed else { return Ok(()) };
        let (place, claim) = made?;
        info!(file = %place.location.display(), "file opened");
        if let Some(uploads) = &self.uploads {
            uploads.opened_on_disk(file, container, &place);
        }
        self.write_to(file, place, facts, Some(claim), media).await;
        Ok(())
    }

    async fn write_to(
        &mut self,
        file: u32,
        place: Place,
        facts: TrackFacts,
        claim: Option<Claim>,
        media: &mut MediaProcess,
    ) {
        let (path, id): (PathBuf, Option<FileId>) = (place.location.clone(), claim.as_ref().map(Claim::id));
        self.files.opened(file, place, facts, claim);
        if self.files.started() {
            self.tell_opened();
        }
        media.order(&Order::WriteTo { file, path, id }).await;
    }

    /// Files are named from the first media on: an aborted egress has none.
    fn tell_opened(&self) {
        for (index, (file, recorded)) in self.files.numbered().enumerate() {
            let Place { filename, shown, .. } = recorded.place.clone();
            // In a store nobody finds it before it is there.
            let stored = self.uploads.as_ref().is_some_and(|uploads| uploads.is_stored(file));
            let location = if stored { String::new() } else { shown };
            self.reporter.tell(Fact::FileOpened { index, filename, location });
        }
    }

    fn tell(&self, fact: Fact) {
        if matches!(fact, Fact::Active { .. }) {
            self.tell_opened();
        }
        self.reporter.tell(fact);
    }

    async fn settle(
        mut self,
        outcome: Option<Outcome>,
        mut media: MediaProcess,
        inbox: mpsc::Receiver<Event>,
    ) -> Ended {
        // Whoever has not said its last word may still be writing.
        let written_to = !self.last_word && !matches!(outcome, Some(Outcome::Aborted { .. }));
        if written_to {
            media.end(Duration::ZERO, Duration::from_millis(300)).await;
        }
        let ended = match outcome {
            // What was begun is for whoever has it now.
            None => Ended::Disowned,
            Some(outcome) => {
                let settling = Settled { plan: &self.job.plan, reporter: self.reporter };
                let files = std::mem::take(&mut self.files);
                let uploads = self.uploads.take();
                tokio::select! {
                    () = settle_files(settling, files, uploads, outcome) => Ended::Told,
                    () = disowned(inbox) => Ended::Disowned,
                }
            }
        };
        if !written_to {
            media.end(LEAVING, LEAVING).await;
        }
        ended
    }
}

/// Uploading the last of it may take long; whoever speaks to us meanwhile is heard.
pub async fn disowned(mut inbox: mpsc::Receiver<Event>) {
    loop {
        match inbox.recv().await {
            Some(Event::Disowned) => return,
            Some(_) => {}
            None => std::future::pending().await,
        }
    }
}
