//! A participant of our own WebRTC stack: joins as any client does, sends pre-encoded clips at their times, and
//! misbehaves on demand.
//!
//! All its clips run on one timeline that began at a whole second of [`epoch`], so every participant flashes and beeps
//! at every whole second since then, by its own clock.

mod clock;
mod jitter;
mod speech;
mod uplink;
mod engine;

use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow, bail, ensure};
use livekit_protocol as proto;
use tokio::sync::{mpsc, oneshot};

pub use self::speech::SpeechPattern;
use crate::clip::Clip;
use crate::twirp::Api;

/// The moment from which all clips of this process are counted, on both clocks.
pub fn epoch() -> (Instant, SystemTime) {
    static EPOCH: OnceLock<(Instant, SystemTime)> = OnceLock::new();
    *EPOCH.get_or_init(|| (Instant::now(), SystemTime::now()))
}

/// Properties of a participant and of its network.
#[derive(Clone, Debug)]
pub struct PublisherOptions {
    /// Joins as an agent.
    pub agent: bool,
    /// Says of its tracks that they are end-to-end encrypted; what it sends is not.
    pub encrypted: bool,
    /// Finds the media ports of a server on this machine that names this address for them.
    pub finds: Option<&'static str>,
    /// Its clock is ahead of this machine's, seconds.
    pub clock_ahead: f64,
    /// Its clock runs too fast, parts per million.
    pub clock_ppm: f64,
    /// Share of outgoing RTP packets that are lost, 0 to 1.
    pub loss: f64,
    /// Of the random numbers that select lost packets.
    pub seed: u64,
    /// Retransmits pictures that the server asks for (NACK); sound is never retransmitted.
    pub retransmits: bool,
    /// Of layers it sends those that the server wants for its subscribers; else all of them.
    pub dynacast: bool,
}

impl Default for PublisherOptions {
    fn default() -> Self {
        Self {
            agent: false,
            encrypted: false,
            finds: None,
            clock_ahead: 0.0,
            clock_ppm: 0.0,
            loss: 0.0,
            seed: 1,
            retransmits: true,
            dynacast: false,
        }
    }
}

/// Source of a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// A camera.
    Camera,
    /// A microphone.
    Microphone,
    /// A shared screen.
    ScreenShare,
    /// Audio of a shared screen.
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

/// RTP time while nothing is captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RtpInPause {
    /// It counts the samples sent, as libwebrtc's audio and every bot that gives only durations do.
    StandsStill,
    /// It is taken from a clock.
    GoesOn,
}

/// Counts of what a participant has sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SentStats {
    /// Encoded frames handed to the WebRTC stack.
    pub frames: u64,
    /// RTP packets, lost ones included.
    pub packets: u64,
    /// RTP packets lost by [`PublisherOptions::loss`] or a blackout.
    pub dropped: u64,
    /// Keyframe requests (PLI, FIR) from the server.
    pub key_requests: u64,
}

enum PublisherCommand {
    Publish {
        clip: Arc<Clip>,
        /// The same picture in smaller sizes, smallest first.
        smaller: Vec<Arc<Clip>>,
        from: SourceKind,
        speech: Option<SpeechPattern>,
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
    /// `None`: resumes.
    Pause {
        sid: String,
        rtp: Option<RtpInPause>,
    },
    /// So many layers are sent, smallest first.
    Layers {
        sid: String,
        count: usize,
    },
    /// RTP time of the next frame on is ahead of where it would be.
    JumpRtp {
        sid: String,
        by: Duration,
    },
    SetClock {
        ahead: Duration,
    },
    Uplink(Duration),
    Jitter(Duration),
    Loss(f64),
    Blackout(bool),
    /// Politely: with a LeaveRequest; else without any message.
    Leave {
        politely: bool,
    },
}

/// A participant that publishes. Leaves when dropped.
pub struct Publisher {
    /// Identity in the room.
    pub identity: String,
    /// `PA_…`
    pub sid: String,
    /// When the first frame of its clips was due, by this machine's clock where its own is right.
    pub begins: Instant,
    commands: mpsc::UnboundedSender<PublisherCommand>,
    sent: Arc<Mutex<SentStats>>,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Publisher {
    /// Joins a room, which is created where it does not exist. Returns before the connection for media is up.
    pub async fn join(api: &Api, room: &str, identity: &str, options: PublisherOptions) -> Result<Self> {
        let kind = options.agent.then_some("agent");
        let grants = livekit_token::VideoGrants {
            room_join: true,
            room: room.to_owned(),
            can_publish: Some(true),
            // Without this grant there is no subscriber connection to answer: the publisher connection is the primary one.
            can_subscribe: Some(false),
            can_publish_data: Some(true),
            agent: options.agent,
            ..Default::default()
        };
        let token = api.token(identity, kind, grants)?;
        let sent = Arc::new(Mutex::new(SentStats::default()));
        let (commands, inbox) = mpsc::unbounded_channel();
        let begins = epoch().0 + Duration::from_secs(epoch().0.elapsed().as_secs());
        let (engine, sid) = engine::Engine::join(&api.ws_url(), &token, &options, begins, inbox, sent.clone())
            .await
            .with_context(|| format!("join {room} as {identity}"))?;
        let task = tokio::spawn(engine.run(identity.to_owned()));
        Ok(Self { identity: identity.to_owned(), sid, begins, commands, sent, task: Some(task) })
    }

    /// Publishes a clip in a loop; gives the sid of the track. Media flows from the next keyframe of the clip on.
    pub async fn publish(&self, clip: &Arc<Clip>, from: SourceKind) -> Result<String> {
        self.publish_all(clip, Vec::new(), from, None).await
    }

    /// Publishes the sound of a clip as a source does that is silent most of the time.
    pub async fn publish_speech(&self, clip: &Arc<Clip>, speech: SpeechPattern) -> Result<String> {
        self.publish_all(clip, Vec::new(), SourceKind::Microphone, Some(speech)).await
    }

    /// Publishes one picture in up to three sizes (simulcast), smallest first, with the same frames; all of them are sent,
    /// whatever the server says that its subscribers want, unless [`PublisherOptions::dynacast`] is on.
    pub async fn publish_layers(&self, clips: &[Arc<Clip>], from: SourceKind) -> Result<String> {
        let Some((largest, smaller)) = clips.split_last() else { bail!("no layer to publish") };
        let alike = |clip: &Arc<Clip>| clip.codec == largest.codec && clip.frames.len() == largest.frames.len();
        ensure!(smaller.len() < 3 && smaller.iter().all(alike), "these are no layers of {}", largest.name());
        self.publish_all(largest, smaller.to_vec(), from, None).await
    }

    async fn publish_all(
        &self,
        clip: &Arc<Clip>,
        smaller: Vec<Arc<Clip>>,
        from: SourceKind,
        speech: Option<SpeechPattern>,
    ) -> Result<String> {
        let (reply, answer) = oneshot::channel();
        self.send(PublisherCommand::Publish { clip: clip.clone(), smaller, from, speech, reply });
        answer
            .await
            .map_err(|_| anyhow!("{} left before {} was published", self.identity, clip.name()))?
            .with_context(|| format!("publish {} as {}", clip.name(), self.identity))
    }

    /// Mutes or unmutes a track. After the end of a mute media flows from the next keyframe on.
    pub fn mute(&self, sid: &str, muted: bool) {
        self.send(PublisherCommand::Mute { sid: sid.to_owned(), muted });
    }

    /// Unpublishes a track.
    pub fn unpublish(&self, sid: &str) {
        self.send(PublisherCommand::Unpublish { sid: sid.to_owned() });
    }

    /// Continues a track with another clip of the same codec at its next keyframe, e.g. with another resolution.
    pub fn switch(&self, sid: &str, clip: &Arc<Clip>) {
        self.send(PublisherCommand::Switch { sid: sid.to_owned(), clip: clip.clone() });
    }

    /// Stops sending a track without a mute or any other signal, until [`Self::resume`].
    pub fn pause(&self, sid: &str, rtp: RtpInPause) {
        self.send(PublisherCommand::Pause { sid: sid.to_owned(), rtp: Some(rtp) });
    }

    /// Ends a pause; media flows from the next keyframe on.
    pub fn resume(&self, sid: &str) {
        self.send(PublisherCommand::Pause { sid: sid.to_owned(), rtp: None });
    }

    /// Sends so many layers of a simulcast track, smallest first; one that is added begins at its next keyframe.
    pub fn send_layers(&self, sid: &str, count: usize) {
        self.send(PublisherCommand::Layers { sid: sid.to_owned(), count });
    }

    /// RTP time jumps ahead between two frames, as of an encoder that was exchanged; reports say the same.
    pub fn jump_rtp(&self, sid: &str, by: Duration) {
        self.send(PublisherCommand::JumpRtp { sid: sid.to_owned(), by });
    }

    /// The participant's clock is set ahead, and with it what sender reports say; media goes on at its pace.
    pub fn set_clock(&self, ahead: Duration) {
        self.send(PublisherCommand::SetClock { ahead });
    }

    /// RTP and its reports wait in a queue; the delay moves to this one by 0.5 s in a second.
    pub fn queue_uplink(&self, delay: Duration) {
        self.send(PublisherCommand::Uplink(delay));
    }

    /// Each packet of RTP and its reports takes up to so much longer, by chance: packets overtake one another. Not while
    /// they wait in [the queue](Self::queue_uplink).
    pub fn jitter(&self, most: Duration) {
        self.send(PublisherCommand::Jitter(most));
    }

    /// Replaces [`PublisherOptions::loss`].
    pub fn lose(&self, share: f64) {
        self.send(PublisherCommand::Loss(share));
    }

    /// While `dark`, no datagram passes in either direction; the signalling connection stays.
    pub fn blackout(&self, dark: bool) {
        self.send(PublisherCommand::Blackout(dark));
    }

    /// Leaves with a LeaveRequest and waits for it to be sent.
    pub async fn leave(mut self) {
        self.end(true).await;
    }

    /// Closes all sockets without a message, as with an empty battery.
    pub async fn vanish(mut self) {
        self.end(false).await;
    }

    /// Counts so far.
    pub fn sent(&self) -> SentStats {
        *self.sent.lock().expect("no panic while counting")
    }

    async fn end(&mut self, politely: bool) {
        self.send(PublisherCommand::Leave { politely });
        if let Some(task) = self.task.take() {
            // A panic of the task has been printed.
            let _ = task.await;
        }
    }

    /// Ignored after the end.
    fn send(&self, command: PublisherCommand) {
        let _ = self.commands.send(command);
    }
}
