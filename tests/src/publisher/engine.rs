//! The task of one publisher: signalling, WebRTC (str0m) and the clock of its clips in one loop. Commands come in from
//! `Publisher`; it ends when it is told to leave or the server ends the session.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use livekit_protocol as proto;
use livekit_signaling::{SignalClient, SignalEvent, SignalEvents, SignalOptions};
use proto::signal_request::Message as SignalRequest;
use proto::signal_response::Message as SignalResponse;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::media::{Direction, MediaKind, MediaTime, Mid, Pt, Rid, Simulcast, SimulcastLayer};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, info, warn};

use super::clock::SkewedClock;
use super::jitter::JitterQueue;
use super::speech::FrameUse;
use super::uplink::UplinkQueue;
use super::{PublisherCommand, PublisherOptions, RtpInPause, SentStats, SourceKind, SpeechPattern};
use crate::clip::{Clip, ClipCodec, ClipFrame};

const PUBLISHER: i32 = proto::SignalTarget::Publisher as i32;
/// Names that livekit-server gives to layers, smallest first.
const RIDS: [&str; 3] = ["q", "h", "f"];

/// A layer of a simulcast track below the largest one.
struct SmallerLayer {
    clip: Arc<Clip>,
    /// Until a key frame was sent, others are not.
    running: bool,
}

/// What is due of a track: each layer's bytes, with the layer's name where there are several.
struct DueFrame {
    mid: Mid,
    codec: ClipCodec,
    /// Position on the timeline that belongs to its RTP time in sender reports.
    reported: Duration,
    /// RTP time.
    rtp: Duration,
    layers: Vec<(Option<Rid>, Arc<[u8]>)>,
}

/// A publication on its way or there.
struct PublishedTrack {
    cid: String,
    from: SourceKind,
    clip: Arc<Clip>,
    smaller: Vec<SmallerLayer>,
    /// Which layers are sent, smallest first.
    sent_layers: [bool; RIDS.len()],
    /// Of several layers the largest: a key frame of it was sent.
    largest_running: bool,
    speech: Option<SpeechPattern>,
    /// Another clip to go on with at its next key frame.
    next_clip: Option<Arc<Clip>>,
    state: PublicationState,
    muted: bool,
    paused: Option<RtpInPause>,
    /// How far RTP time is behind the clip's, and where the frame after the last one would be in RTP time.
    behind: Duration,
    expected: Duration,
    /// How far RTP time has jumped ahead.
    jumped: Duration,
    /// The next frame goes on in RTP time where the last one ended.
    stood_still: bool,
    /// Counted over all loops of the clip.
    next: u64,
    /// Until a key frame was sent, others are not.
    running: bool,
    reply: Option<oneshot::Sender<Result<String>>>,
    sid: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum PublicationState {
    /// AddTrackRequest is out.
    Asked,
    /// The server gave a sid; the m-line has to be offered.
    Granted,
    /// In the offer that is out.
    Offered(Mid),
    Live(Mid),
    Ended,
}

/// State of the task.
pub struct Engine {
    clock: SkewedClock,
    rtc: Rtc,
    udp: UdpSocket,
    udp_address: SocketAddr,
    signal: SignalClient,
    signals: SignalEvents,
    inbox: mpsc::UnboundedReceiver<PublisherCommand>,
    sent: Arc<Mutex<SentStats>>,
    tracks: Vec<PublishedTrack>,
    pending: Option<SdpPendingOffer>,
    /// Something changed since the last offer.
    offer_due: bool,
    /// Candidates that came before the first answer.
    early: Vec<Candidate>,
    answered: bool,
    connected: bool,
    encrypted: bool,
    finds: Option<&'static str>,
    loss: f64,
    rng: SmallRng,
    dark: bool,
    uplink: UplinkQueue<(SocketAddr, Vec<u8>)>,
    /// Most that the path delays a packet.
    jitter: Duration,
    jittered: JitterQueue<(SocketAddr, Vec<u8>)>,
    dynacast: bool,
    offers: u32,
}

impl Engine {
    /// Connects the signalling; gives the task and the sid of the participant. `begins`: a whole second of [`super::epoch`].
    pub async fn join(
        url: &str,
        token: &str,
        publisher_options: &PublisherOptions,
        begins: Instant,
        inbox: mpsc::UnboundedReceiver<PublisherCommand>,
        sent: Arc<Mutex<SentStats>>,
    ) -> Result<(Self, String)> {
        let clock = SkewedClock::new(begins, publisher_options.clock_ahead, publisher_options.clock_ppm);

        let mut options = SignalOptions::default();
        options.auto_subscribe = false;
        options.protocol_version = 16;
        options.client_capabilities.clear();
        options.client_protocol = 0;
        options.region_failover = false;
        options.sdk_options.sdk = "stage".into();
        let (signal, joined, signals) = SignalClient::connect(url, token, options, None).await.context("signalling")?;
        let sid = joined.participant.map(|own| own.sid).unwrap_or_default();

        let mut config = RtcConfig::new()
            .clear_codecs()
            .enable_opus(true, false)
            .enable_pcmu(true, false)
            .enable_pcma(true, false)
            .enable_vp8(true)
            .enable_h265(true)
            .enable_vp9(true)
            .enable_av1(true);
        // One H264 only, what the clips are: with more, the server takes the first of its answer for ours and calls the
        // first packet a change of codec.
        config.codec_config().add_h264(108.into(), Some(109.into()), true, 0x42e01f);
        if !publisher_options.retransmits {
            config.codec_config().iter_mut().for_each(|params| params.set_fb_nack(false));
        }
        config = config.set_send_buffer_video(2000);
        let mut rtc = config.build(clock.local(Instant::now()));
        let udp = UdpSocket::bind("127.0.0.1:0").await.context("bind a UDP socket")?;
        let udp_address = udp.local_addr().context("our UDP address")?;
        rtc.add_local_candidate(Candidate::host(udp_address, "udp").context("our candidate")?);

        let mut engine = Self {
            clock,
            rtc,
            udp,
            udp_address,
            signal,
            signals,
            inbox,
            sent,
            tracks: Vec::new(),
            pending: None,
            offer_due: false,
            early: Vec::new(),
            answered: false,
            connected: false,
            encrypted: publisher_options.encrypted,
            finds: publisher_options.finds,
            loss: publisher_options.loss,
            rng: SmallRng::seed_from_u64(publisher_options.seed),
            dark: false,
            uplink: UplinkQueue::default(),
            jitter: Duration::ZERO,
            jittered: JitterQueue::default(),
            dynacast: publisher_options.dynacast,
            offers: 0,
        };
        // Without a channel a participant that publishes nothing would never connect and be thrown out.
        engine.offer(true).await;
        Ok((engine, sid))
    }

    /// Runs until the participant leaves or the server ends the session.
    pub async fn run(mut self, identity: String) {
        let why = loop {
            let wake = match self.drain().await {
                Ok(wake) => wake,
                Err(error) => break format!("{error:#}"),
            };
            self.send_queued().await;
            let waiting = self.uplink.next().into_iter().chain(self.jittered.next());
            let wake = self.next_due().into_iter().chain(waiting).fold(wake, Instant::min);
            if self.offer_due && self.pending.is_none() {
                self.offer(false).await;
                continue;
            }
            let mut datagram = [0u8; 2000];
            tokio::select! {
                received = self.udp.recv_from(&mut datagram) => {
                    if let Ok((length, source)) = received && let Err(error) = self.receive(source, &datagram[..length]) {
                        break format!("{error:#}");
                    }
                }
                event = self.signals.recv() => match event {
                    Some(SignalEvent::Message(message)) => {
                        if let Some(why) = self.on_signal(*message).await {
                            break why;
                        }
                    }
                    Some(SignalEvent::Close(why)) => break format!("signal connection closed: {why}"),
                    None => break "signal connection gone".into(),
                },
                command = self.inbox.recv() => match command {
                    Some(PublisherCommand::Leave { politely: false }) => break "vanished".into(),
                    Some(PublisherCommand::Leave { politely: true }) | None => {
                        self.signal.send(SignalRequest::Leave(proto::LeaveRequest {
                            reason: proto::DisconnectReason::ClientInitiated as i32,
                            ..Default::default()
                        })).await;
                        break "left".into();
                    }
                    Some(command) => self.on_command(command).await,
                },
                () = tokio::time::sleep_until(wake.into()) => {
                    let now = self.clock.local(Instant::now());
                    if let Err(error) = self.rtc.handle_input(Input::Timeout(now)) {
                        break format!("webrtc: {error}");
                    }
                    if let Err(error) = self.send_due().await {
                        break format!("{error:#}");
                    }
                }
            }
        };
        info!(identity, why, "publisher is over");
        self.signal.close().await;
    }

    /// Sends what str0m has ready; gives the machine time at which it must be polled again.
    async fn drain(&mut self) -> Result<Instant> {
        loop {
            match self.rtc.poll_output().context("webrtc")? {
                Output::Timeout(local) => return Ok(self.clock.machine(local)),
                Output::Transmit(packet) => {
                    let bytes: &[u8] = &packet.contents;
                    let rtp = bytes.len() > 12 && (128..192).contains(&bytes[0]) && !(192..=223).contains(&bytes[1]);
                    let lost = self.dark || (rtp && self.loss > 0.0 && self.rng.random_bool(self.loss));
                    {
                        let mut sent = self.sent.lock().expect("no panic while counting");
                        sent.packets += u64::from(rtp);
                        sent.dropped += u64::from(rtp && lost);
                    }
                    // RTP and RTCP wait in the queue; ICE and DTLS do not, for they would time out.
                    let waits = bytes.first().is_some_and(|byte| (128..192).contains(byte));
                    if lost {
                        continue;
                    }
                    if waits && !self.uplink.is_idle() {
                        self.uplink.push((packet.destination, bytes.to_vec()), Instant::now());
                    } else if waits && !self.jitter.is_zero() {
                        let delay = self.jitter.mul_f64(self.rng.random_range(0.0..1.0));
                        self.jittered.push((packet.destination, bytes.to_vec()), Instant::now() + delay);
                    } else {
                        // A full socket buffer is loss, as on any network.
                        let _ = self.udp.send_to(bytes, packet.destination).await;
                    }
                }
                Output::Event(Event::Connected) => {
                    debug!("publisher connected");
                    self.connected = true;
                }
                Output::Event(Event::KeyframeRequest(_)) => {
                    self.sent.lock().expect("no panic while counting").key_requests += 1;
                }
                Output::Event(_) => {}
            }
        }
    }

    /// Sends what has waited long enough in the queue of the uplink, or on its way.
    async fn send_queued(&mut self) {
        loop {
            let now = Instant::now();
            let Some((destination, bytes)) = self.uplink.pop(now).or_else(|| self.jittered.pop(now)) else { return };
            // As in `drain`.
            let _ = self.udp.send_to(&bytes, destination).await;
        }
    }

    fn receive(&mut self, source: SocketAddr, datagram: &[u8]) -> Result<()> {
        if self.dark {
            return Ok(());
        }
        let now = self.clock.local(Instant::now());
        // Anything but STUN, DTLS and RTP is ignored.
        let Ok(contents) = datagram.try_into() else { return Ok(()) };
        let receive = Receive { proto: Protocol::Udp, source, destination: self.udp_address, contents };
        self.rtc.handle_input(Input::Receive(now, receive)).context("webrtc")
    }

    async fn on_command(&mut self, command: PublisherCommand) {
        match command {
            PublisherCommand::Publish { clip, smaller, from, speech, reply } => {
                let cid = format!("stage-{}-{}", self.tracks.len(), self.rng.random_range(0..u32::MAX));
                let encryption =
                    if self.encrypted { proto::encryption::Type::Gcm } else { proto::encryption::Type::None };
                let request =
                    proto::AddTrackRequest { encryption: encryption.into(), ..add_track(&cid, &clip, &smaller, from) };
                self.signal.send(SignalRequest::AddTrack(request)).await;
                let (state, sid) = (PublicationState::Asked, String::new());
                self.tracks.push(PublishedTrack {
                    cid,
                    from,
                    clip,
                    sent_layers: [true; RIDS.len()],
                    smaller: smaller.into_iter().map(|clip| SmallerLayer { clip, running: false }).collect(),
                    largest_running: false,
                    speech,
                    next_clip: None,
                    state,
                    muted: false,
                    paused: None,
                    behind: Duration::ZERO,
                    expected: Duration::ZERO,
                    jumped: Duration::ZERO,
                    stood_still: false,
                    next: 0,
                    running: false,
                    reply: Some(reply),
                    sid,
                });
            }
            PublisherCommand::Mute { sid, muted } => {
                self.signal.send(SignalRequest::Mute(proto::MuteTrackRequest { sid: sid.clone(), muted })).await;
                for track in self.tracks.iter_mut().filter(|track| track.sid == sid) {
                    track.muted = muted;
                    track.restart();
                }
            }
            PublisherCommand::Unpublish { sid } => {
                for track in self.tracks.iter_mut().filter(|track| track.sid == sid) {
                    if let PublicationState::Live(mid) = track.state {
                        track.state = PublicationState::Ended;
                        let mut change = self.rtc.sdp_api();
                        change.set_direction(mid, Direction::Inactive);
                        if let Some((offer, pending)) = change.apply() {
                            self.offers += 1;
                            self.pending = Some(pending);
                            self.signal
                                .send(SignalRequest::Offer(description(offer.to_sdp_string(), self.offers)))
                                .await;
                        }
                    }
                }
            }
            PublisherCommand::Switch { sid, clip } => {
                for track in self.tracks.iter_mut().filter(|track| track.sid == sid) {
                    track.next_clip = Some(clip.clone());
                }
            }
            PublisherCommand::Pause { sid, rtp } => {
                for track in self.tracks.iter_mut().filter(|track| track.sid == sid) {
                    track.stood_still |= rtp == Some(RtpInPause::StandsStill);
                    track.paused = rtp;
                    track.restart();
                }
            }
            PublisherCommand::Layers { sid, count } => {
                for track in self.tracks.iter_mut().filter(|track| track.sid == sid) {
                    track.sent_layers = std::array::from_fn(|index| index < count);
                }
            }
            PublisherCommand::JumpRtp { sid, by } => {
                for track in self.tracks.iter_mut().filter(|track| track.sid == sid) {
                    track.jumped += by;
                }
            }
            PublisherCommand::SetClock { ahead } => self.clock.step(ahead),
            PublisherCommand::Uplink(delay) => self.uplink.head_for(delay, Instant::now()),
            PublisherCommand::Jitter(most) => self.jitter = most,
            PublisherCommand::Loss(share) => self.loss = share,
            PublisherCommand::Blackout(dark) => self.dark = dark,
            PublisherCommand::Leave { .. } => unreachable!("the loop leaves by itself"),
        }
    }

    /// Why it is over, if it is.
    async fn on_signal(&mut self, signal: SignalResponse) -> Option<String> {
        match signal {
            SignalResponse::TrackPublished(granted) => {
                let sid = granted.track.map(|track| track.sid).unwrap_or_default();
                if let Some(track) = self.tracks.iter_mut().find(|track| track.cid == granted.cid) {
                    track.sid = sid;
                    track.state = PublicationState::Granted;
                    self.offer_due = true;
                }
            }
            SignalResponse::Answer(answer) => {
                if let Err(error) = self.accept(&answer.sdp) {
                    return Some(format!("{error:#}"));
                }
            }
            SignalResponse::Trickle(trickle) if trickle.target == PUBLISHER => {
                let init: serde_json::Value = serde_json::from_str(&trickle.candidate_init).unwrap_or_default();
                let text = self.found(init["candidate"].as_str().unwrap_or_default());
                if let Ok(candidate) = Candidate::from_sdp_string(&text)
                    && candidate.proto() == Protocol::Udp
                {
                    if self.answered {
                        self.rtc.add_remote_candidate(candidate);
                    } else {
                        self.early.push(candidate);
                    }
                }
            }
            SignalResponse::SubscribedQualityUpdate(update) if self.dynacast => self.send_what_is_subscribed(&update),
            SignalResponse::Leave(leave) => return Some(format!("asked to leave: {:?}", leave.reason())),
            SignalResponse::RequestResponse(response) if response.reason != 0 => {
                warn!(reason = response.reason, message = response.message, "the server refuses");
            }
            _ => {}
        }
        None
    }

    /// Of a track in layers only those are sent that somebody is subscribed to (dynacast).
    fn send_what_is_subscribed(&mut self, update: &proto::SubscribedQualityUpdate) {
        let Some(track) = self.tracks.iter_mut().find(|track| track.sid == update.track_sid) else { return };
        let wanted = update.subscribed_codecs.iter().flat_map(|codec| &codec.qualities).filter(|it| it.enabled);
        // Qualities are numbered as layers are.
        let wanted: Vec<i32> = wanted.map(|it| it.quality).collect();
        track.sent_layers = std::array::from_fn(|index| wanted.contains(&(index as i32)));
    }

    async fn offer(&mut self, first: bool) {
        self.offer_due = false;
        let mut change = self.rtc.sdp_api();
        if first {
            change.add_channel("_reliable".into());
        }
        for track in self.tracks.iter_mut().filter(|track| track.state == PublicationState::Granted) {
            let kind = if track.clip.codec.is_video() { MediaKind::Video } else { MediaKind::Audio };
            let stream = if track.from == SourceKind::Camera || track.from == SourceKind::Microphone {
                "camera"
            } else {
                "screen"
            };
            let simulcast = (!track.smaller.is_empty()).then(|| {
                let mut simulcast = Simulcast::new();
                track.rids().for_each(|rid| simulcast.add_send_layer(SimulcastLayer::new(rid)));
                simulcast
            });
            let (stream, cid) = (Some(stream.into()), Some(track.cid.clone()));
            let mid = change.add_media(kind, Direction::SendOnly, stream, cid, simulcast);
            track.state = PublicationState::Offered(mid);
        }
        if let Some((offer, pending)) = change.apply() {
            self.offers += 1;
            self.pending = Some(pending);
            self.signal.send(SignalRequest::Offer(description(offer.to_sdp_string(), self.offers))).await;
        }
    }

    fn accept(&mut self, sdp: &str) -> Result<()> {
        let answer = SdpAnswer::from_sdp_string(&self.found(sdp)).context("read the answer")?;
        let Some(pending) = self.pending.take() else { return Ok(()) };
        self.rtc.sdp_api().accept_answer(pending, answer).context("accept the answer")?;
        self.answered = true;
        for candidate in self.early.drain(..) {
            self.rtc.add_remote_candidate(candidate);
        }
        for track in &mut self.tracks {
            if let PublicationState::Offered(mid) = track.state {
                track.state = PublicationState::Live(mid);
                if let Some(reply) = track.reply.take() {
                    // The caller may have given up waiting.
                    let _ = reply.send(Ok(track.sid.clone()));
                }
            }
        }
        Ok(())
    }

    /// Candidates where [`PublisherOptions::finds`] finds them.
    fn found(&self, candidates: &str) -> String {
        self.finds.map_or_else(|| candidates.to_owned(), |hidden| candidates.replace(hidden, "127.0.0.1"))
    }

    fn next_due(&self) -> Option<Instant> {
        let live =
            self.tracks.iter().filter(|track| matches!(track.state, PublicationState::Live(_)) && !track.is_quiet());
        if !self.connected {
            return None;
        }
        live.map(|track| self.clock.machine(self.clock.at(track.next_sent_at()))).min()
    }

    /// Sends every frame that is due. Frames that are late are sent late, not skipped.
    async fn send_due(&mut self) -> Result<()> {
        if !self.connected {
            return Ok(());
        }
        for index in 0..self.tracks.len() {
            while let Some(due) = self.tracks[index].take_due(self.clock.position(Instant::now())) {
                let pt = self.payload_type(due.mid, due.codec)?;
                let local = self.clock.at(due.reported);
                let ticks = (due.rtp.as_nanos() * u128::from(due.codec.clock_rate()) + 500_000_000) / 1_000_000_000;
                let time = MediaTime::new(ticks as u64, frequency(due.codec));
                for (rid, data) in due.layers {
                    if let Some(mut writer) = self.rtc.writer(due.mid) {
                        if let Some(rid) = rid {
                            writer = writer.rid(rid);
                        }
                        writer.write(pt, local, time, data).context("write a frame")?;
                        self.sent.lock().expect("no panic while counting").frames += 1;
                    }
                    self.drain().await?;
                }
            }
        }
        Ok(())
    }

    fn payload_type(&mut self, mid: Mid, codec: ClipCodec) -> Result<Pt> {
        let writer = self.rtc.writer(mid).context("a live track has a writer")?;
        let wanted = match codec {
            ClipCodec::H264 => str0m::format::Codec::H264,
            ClipCodec::H265 => str0m::format::Codec::H265,
            ClipCodec::Vp8 => str0m::format::Codec::Vp8,
            ClipCodec::Vp9 => str0m::format::Codec::Vp9,
            ClipCodec::Av1 => str0m::format::Codec::Av1,
            ClipCodec::Opus => str0m::format::Codec::Opus,
            ClipCodec::Pcmu => str0m::format::Codec::PCMU,
            ClipCodec::Pcma => str0m::format::Codec::PCMA,
        };
        let mut fitting = writer.payload_params().filter(|params| params.spec().codec == wanted);
        fitting.next().map(|params| params.pt()).ok_or_else(|| anyhow!("the server took no {}", codec.mime()))
    }
}

impl PublishedTrack {
    fn is_quiet(&self) -> bool {
        self.muted || self.paused.is_some()
    }

    /// What is sent next begins with a key frame.
    fn restart(&mut self) {
        (self.running, self.largest_running) = (false, false);
        self.smaller.iter_mut().for_each(|layer| layer.running = false);
    }

    /// The layers' names, smallest first.
    fn rids(&self) -> impl Iterator<Item = &'static str> + use<> {
        RIDS.into_iter().take(self.smaller.len() + 1)
    }

    /// Position on the timeline at which the next frame is sent.
    fn next_sent_at(&self) -> Duration {
        let at = frame_time(&self.clip, self.next);
        self.speech.map_or(at, |speech| speech.sent_at(at)) + self.clip.delay
    }

    /// The next frame that is due at `position`.
    fn take_due(&mut self, position: Duration) -> Option<DueFrame> {
        let PublicationState::Live(mid) = self.state else { return None };
        if self.is_quiet() {
            return None;
        }
        if !self.running {
            // Publication and the end of a mute begin at a key frame that is not over yet.
            self.next = upcoming(&self.clip, position, |frame| frame.key);
            self.running = true;
        }
        loop {
            if self.next_sent_at() > position {
                return None;
            }
            let at = frame_time(&self.clip, self.next);
            if let Some(next_clip) = &self.next_clip {
                let there = upcoming(next_clip, at, |_| true);
                if frame(next_clip, there).key {
                    self.clip = self.next_clip.take().expect("seen above");
                    self.next = there;
                }
            }
            if let Some(due) = self.take_next(mid) {
                return Some(due);
            }
        }
    }

    /// The next frame, unless nothing is sent of it.
    fn take_next(&mut self, mid: Mid) -> Option<DueFrame> {
        let (number, at, sent_at) = (self.next, frame_time(&self.clip, self.next), self.next_sent_at());
        self.next += 1;
        let length = frame_time(&self.clip, self.next).saturating_sub(at);
        let used = self.speech.map_or(FrameUse::Spoken, |speech| speech.use_of(at, length));
        if std::mem::take(&mut self.stood_still) {
            self.behind = at.saturating_sub(self.expected);
        }
        let layers = match used {
            FrameUse::Spoken => self.layers(number),
            // One byte: a packet without a frame (RFC 6716, 3.1), which is what libopus makes of silence with DTX.
            FrameUse::Update => {
                let toc = frame(&self.clip, number).data.first().map_or(0, |toc| toc & 0xfc);
                vec![(None, Arc::from([toc]))]
            }
            FrameUse::Silent => Vec::new(),
        };
        if layers.is_empty() && self.speech.is_some_and(|speech| speech.rtp == RtpInPause::StandsStill) {
            self.behind += length;
        }
        self.expected = frame_time(&self.clip, self.next).saturating_sub(self.behind);
        let shown = at + frame(&self.clip, number).shown - frame(&self.clip, number).at;
        let rtp = shown.saturating_sub(self.behind) + self.jumped;
        // Reports are counted from here, and must not speak of what was not sent yet.
        let reported = shown.min(sent_at);
        (!layers.is_empty()).then_some(DueFrame { mid, codec: self.clip.codec, reported, rtp, layers })
    }

    /// A frame in every layer that is sent.
    fn layers(&mut self, number: u64) -> Vec<(Option<Rid>, Arc<[u8]>)> {
        let largest = (frame(&self.clip, number).key, frame(&self.clip, number).data.clone());
        if self.smaller.is_empty() {
            return vec![(None, largest.1)];
        }
        let mut layers = Vec::new();
        let mut names = RIDS.into_iter().map(Rid::from);
        for (index, layer) in self.smaller.iter_mut().enumerate() {
            let (name, frame) = (names.next(), frame(&layer.clip, number));
            layer.running = self.sent_layers[index] && (layer.running || frame.key);
            if layer.running {
                layers.push((name, frame.data.clone()));
            }
        }
        self.largest_running = self.sent_layers[self.smaller.len()] && (self.largest_running || largest.0);
        if self.largest_running {
            layers.push((names.next(), largest.1));
        }
        layers
    }
}

fn frame(clip: &Clip, number: u64) -> &ClipFrame {
    &clip.frames[(number % clip.frames.len() as u64) as usize]
}

/// Where on the timeline a frame lies, loops included.
fn frame_time(clip: &Clip, number: u64) -> Duration {
    let rounds = number / clip.frames.len() as u64;
    clip.length * rounds as u32 + frame(clip, number).at
}

/// The first frame at or after `position` that `fits`.
fn upcoming(clip: &Clip, position: Duration, fits: impl Fn(&ClipFrame) -> bool) -> u64 {
    let rounds = (position.as_nanos() / clip.length.as_nanos()) as u64;
    let from = rounds * clip.frames.len() as u64;
    (from..)
        .find(|number| frame_time(clip, *number) >= position && fits(frame(clip, *number)))
        .expect("a clip begins with a key frame and never ends")
}

fn frequency(codec: ClipCodec) -> str0m::media::Frequency {
    match codec {
        ClipCodec::Opus => str0m::media::Frequency::FORTY_EIGHT_KHZ,
        ClipCodec::Pcmu | ClipCodec::Pcma => str0m::media::Frequency::EIGHT_KHZ,
        _ => str0m::media::Frequency::NINETY_KHZ,
    }
}

fn description(sdp: String, id: u32) -> proto::SessionDescription {
    proto::SessionDescription { r#type: "offer".into(), sdp, id, ..Default::default() }
}

fn add_track(cid: &str, clip: &Clip, smaller: &[Arc<Clip>], from: SourceKind) -> proto::AddTrackRequest {
    let video = clip.codec.is_video();
    let layer = |clip: &Clip, quality: proto::VideoQuality, rid: &str| proto::VideoLayer {
        quality: quality as i32,
        width: clip.size.0,
        height: clip.size.1,
        rid: rid.to_owned(),
        ..Default::default()
    };
    let qualities = [proto::VideoQuality::Low, proto::VideoQuality::Medium, proto::VideoQuality::High];
    let layers: Vec<proto::VideoLayer> = match smaller {
        _ if !video => Vec::new(),
        [] => vec![layer(clip, proto::VideoQuality::High, "")],
        smaller => {
            let sizes = smaller.iter().map(|clip| &**clip).chain([clip]);
            sizes.zip(qualities).zip(RIDS).map(|((clip, quality), rid)| layer(clip, quality, rid)).collect()
        }
    };
    let (_, codec) = clip.codec.mime().split_once('/').expect("a mime type has two parts");
    proto::AddTrackRequest {
        cid: cid.to_owned(),
        name: clip.name(),
        r#type: if video { proto::TrackType::Video } else { proto::TrackType::Audio } as i32,
        width: clip.size.0,
        height: clip.size.1,
        source: from.source() as i32,
        layers: layers.clone(),
        simulcast_codecs: vec![proto::SimulcastCodec {
            codec: codec.to_owned(),
            cid: cid.to_owned(),
            layers,
            ..Default::default()
        }],
        disable_red: true,
        audio_features: if video {
            Vec::new()
        } else {
            vec![proto::AudioTrackFeature::TfStereo as i32, proto::AudioTrackFeature::TfNoDtx as i32]
        },
        ..Default::default()
    }
}

// Callers that still wait for a publication get an error.
impl Drop for Engine {
    fn drop(&mut self) {
        let waiting: VecDeque<_> = self.tracks.iter_mut().filter_map(|track| track.reply.take()).collect();
        for reply in waiting {
            let _ = reply.send(Err(anyhow!("the publisher is over")));
        }
    }
}
