//! A participant of our own: joins as any client does, sends pre-encoded clips at their times, misbehaves on demand.
//!
//! Its clips all run on one timeline that began at a whole second of [`epoch`], so every participant flashes and beeps
//! at every whole second since then, by its own clock.

mod clock;
mod engine;

use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result, anyhow};
use livekit_protocol as proto;
use tokio::sync::{mpsc, oneshot};

use crate::clip::Clip;
use crate::twirp::Api;

/// The moment from which all clips of this process are counted.
pub fn epoch() -> (Instant, SystemTime) {
    static EPOCH: OnceLock<(Instant, SystemTime)> = OnceLock::new();
    *EPOCH.get_or_init(|| (Instant::now(), SystemTime::now()))
}

#[derive(Clone, Debug)]
pub struct PublisherOptions {
    pub agent: bool,
    /// The participant's clock is ahead by so many seconds …
    pub clock_ahead: f64,
    /// … and runs too fast by so many millionths.
    pub clock_ppm: f64,
    /// Share of outgoing RTP packets that are lost on the way.
    pub loss: f64,
    /// Of the dice that decide what is lost.
    pub seed: u64,
}

impl Default for PublisherOptions {
    fn default() -> Self {
        Self { agent: false, clock_ahead: 0.0, clock_ppm: 0.0, loss: 0.0, seed: 1 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    Camera,
    Microphone,
    ScreenShare,
    ScreenShareAudio,
}

impl SourceKind {
    fn source(self) -> proto::TrackSource {
        match self {
            Self::Camera => proto::TrackSource::Camera,
            Self::Microphone => proto::TrackSource::Microphone,
            Self::ScreenShare => proto::TrackSource::ScreenShare,
            Self::ScreenShareAudio => proto::TrackSource::ScreenShareAudio,
        }
    }
}

/// What RTP time does while nothing is captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RtpInPause {
    /// It counts what is sent, as libwebrtc's sound and every bot that gives only durations do.
    StandsStill,
    /// It is taken from a clock.
    GoesOn,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SentStats {
    pub frames: u64,
    pub packets: u64,
    /// Outgoing packets thrown away by [`PublisherOptions::loss`] or a blackout.
    pub dropped: u64,
    /// Key frames asked for by the server.
    pub key_requests: u64,
}

enum PublisherCommand {
    Publish {
        clip: Arc<Clip>,
        from: SourceKind,
        reply: oneshot::Sender<Result<String>>,
    },
    Mute {
        sid: String,
        muted: bool,
    },
    Unpublish {
        sid: String,
    },
    Switch {
        sid: String,
        clip: Arc<Clip>,
    },
    /// `None`: goes on.
    Pause {
        sid: String,
        rtp: Option<RtpInPause>,
    },
    Loss(f64),
    Blackout(bool),
    /// With a word to the server, or just gone.
    Leave {
        politely: bool,
    },
}

/// Leaves when dropped.
pub struct Publisher {
    pub identity: String,
    /// `PA_…`
    pub sid: String,
    commands: mpsc::UnboundedSender<PublisherCommand>,
    sent: Arc<Mutex<SentStats>>,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Publisher {
    pub async fn join(api: &Api, room: &str, identity: &str, options: PublisherOptions) -> Result<Self> {
        let kind = options.agent.then_some("agent");
        let grants = livekit_token::VideoGrants {
            room_join: true,
            room: room.to_owned(),
            can_publish: Some(true),
            // Who may not subscribe has no subscriber connection to answer for: the publisher connection is the primary.
            can_subscribe: Some(false),
            can_publish_data: Some(true),
            agent: options.agent,
            ..Default::default()
        };
        let token = api.token(identity, kind, grants)?;
        let sent = Arc::new(Mutex::new(SentStats::default()));
        let (commands, inbox) = mpsc::unbounded_channel();
        let (engine, sid) = engine::Engine::join(&api.ws_url(), &token, &options, inbox, sent.clone())
            .await
            .with_context(|| format!("join {room} as {identity}"))?;
        let task = tokio::spawn(engine.run(identity.to_owned()));
        Ok(Self { identity: identity.to_owned(), sid, commands, sent, task: Some(task) })
    }

    /// The publication's sid; media flows from the clip's next key frame on.
    pub async fn publish(&self, clip: &Arc<Clip>, from: SourceKind) -> Result<String> {
        let (reply, answer) = oneshot::channel();
        self.send(PublisherCommand::Publish { clip: clip.clone(), from, reply });
        answer
            .await
            .map_err(|_| anyhow!("{} left before {} was published", self.identity, clip.name()))?
            .with_context(|| format!("publish {} as {}", clip.name(), self.identity))
    }

    pub fn mute(&self, sid: &str, muted: bool) {
        self.send(PublisherCommand::Mute { sid: sid.to_owned(), muted });
    }

    pub fn unpublish(&self, sid: &str) {
        self.send(PublisherCommand::Unpublish { sid: sid.to_owned() });
    }

    /// Goes on with another clip of the same codec at its next key frame, e.g. another resolution.
    pub fn switch(&self, sid: &str, clip: &Arc<Clip>) {
        self.send(PublisherCommand::Switch { sid: sid.to_owned(), clip: clip.clone() });
    }

    /// Captures nothing of this publication, unmuted and unsaid, until [`Self::resume`].
    pub fn pause(&self, sid: &str, rtp: RtpInPause) {
        self.send(PublisherCommand::Pause { sid: sid.to_owned(), rtp: Some(rtp) });
    }

    pub fn resume(&self, sid: &str) {
        self.send(PublisherCommand::Pause { sid: sid.to_owned(), rtp: None });
    }

    pub fn lose(&self, share: f64) {
        self.send(PublisherCommand::Loss(share));
    }

    /// Nothing passes its UDP socket while dark; the signal connection stays.
    pub fn blackout(&self, dark: bool) {
        self.send(PublisherCommand::Blackout(dark));
    }

    pub async fn leave(mut self) {
        self.end(true).await;
    }

    /// Gone without a word, as with a dead battery.
    pub async fn vanish(mut self) {
        self.end(false).await;
    }

    pub fn sent(&self) -> SentStats {
        *self.sent.lock().expect("no panic while counting")
    }

    async fn end(&mut self, politely: bool) {
        self.send(PublisherCommand::Leave { politely });
        if let Some(task) = self.task.take() {
            // A task that panicked has said so itself.
            let _ = task.await;
        }
    }

    /// Whoever has left hears nothing.
    fn send(&self, command: PublisherCommand) {
        let _ = self.commands.send(command);
    }
}
