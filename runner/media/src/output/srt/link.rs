//! Connections to SRT servers: a pipeline `appsrc ! srtsink` for each. It is opened and closed on threads that may block;
//! packets and questions come from the stream's task and wait for nothing.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, Once, PoisonError};

use bytes::Bytes;
use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as gst_app;
use spillway_guard::Guard;
use spillway_plan::SrtUrl;

use super::fault::SrtFault;
use crate::element::{PipelineError, build, make};
use crate::output::stream_dial::DialError;

/// What libsrt counts of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SrtStats {
    /// Acknowledgements from the server.
    pub acks: u64,
    /// How long after its sending the server hands a packet on; until then it is sent again when it is lost. Milliseconds.
    pub latency_ms: u64,
    /// Round trip, milliseconds.
    pub rtt_ms: u64,
}

/// A connection that is being made, or is made.
pub trait SrtLink: Send + Sync {
    /// `None`: there is no connection yet, or none any more.
    fn stats(&self) -> Option<SrtStats>;

    /// The first error, as the element says it. Nothing is sent after it.
    fn error(&self) -> Option<String>;

    /// Bytes that libsrt has not taken.
    fn waiting_bytes(&self) -> u64;

    /// Whole packets of MPEG-TS, at most one datagram. What is sent before the connection is made is dropped.
    fn send(&self, packets: Bytes);

    /// Ends the connection. What is lost on the way is not sent again.
    fn close(self) -> impl Future<Output = ()> + Send;
}

/// Opens connections; GStreamer's, or something in memory in tests.
pub trait SrtDial: Send + Sync {
    /// A connection.
    type Link: SrtLink;

    /// Begins a connection to the URL's host; it is made later. The caller bounds the time.
    ///
    /// # Errors
    ///
    /// The host is refused or has no address, or the socket takes no option of the URL.
    fn dial(&self, url: &SrtUrl) -> impl Future<Output = Result<Self::Link, SrtFault>> + Send;
}

/// Connections of `srtsink`, to what this guard lets through.
pub struct GstDial(pub Guard);

impl SrtDial for GstDial {
    type Link = GstLink;

    async fn dial(&self, url: &SrtUrl) -> Result<GstLink, SrtFault> {
        // Not by GStreamer, whose resolver cannot be given up, and asks again after the guard has looked.
        let found = self.0.resolve(url.host(), url.port()).await.map_err(DialError::from)?;
        let address = found[0];
        let url = url.clone();
        let opened = tokio::task::spawn_blocking(move || GstLink::open(&url, address)).await;
        opened.unwrap_or_else(|error| Err(SrtFault::Open { message: error.to_string() }))
    }
}

/// A connection of `srtsink`. Dropping it ends it, on a thread of its own.
pub struct GstLink(Option<GstConnection>);

/// Its elements. Dropping them closes the socket, which may block.
struct GstConnection {
    pipeline: gst::Pipeline,
    input: gst_app::AppSrc,
    sink: gst::Element,
    error: Arc<Mutex<Option<String>>>,
}

impl GstLink {
    fn open(url: &SrtUrl, address: SocketAddr) -> Result<Self, SrtFault> {
        hide_secrets();
        let failed =
            |error: &dyn std::fmt::Display| SrtFault::Open { message: url.without_secrets(&error.to_string()) };
        let connection = GstConnection::new(url, address).map_err(|error| failed(&error))?;
        if let Err(error) = connection.pipeline.set_state(gst::State::Playing) {
            return Err(connection.error().map_or_else(|| failed(&error), |said| failed(&said)));
        }
        Ok(Self(Some(connection)))
    }
}

impl GstConnection {
    fn new(url: &SrtUrl, address: SocketAddr) -> Result<Self, PipelineError> {
        let pipeline = gst::Pipeline::new();
        let caps = gst::Caps::builder("video/mpegts").field("systemstream", true).field("packetsize", 188).build();
        let input = gst_app::AppSrc::builder().caps(&caps).is_live(true).max_bytes(0).build();
        let sink = make("srtsink", |s| s)?;
        // First: it resets all others. Nothing secret is in it.
        sink.set_property("uri", uri(url, address));
        for (name, secret) in [("passphrase", url.passphrase()), ("streamid", url.stream_id())] {
            if let Some(secret) = secret {
                sink.set_property(name, secret.reveal().as_str());
            }
        }
        for name in ["wait-for-connection", "auto-reconnect", "sync", "async"] {
            sink.set_property(name, false);
        }
        pipeline.add(&input).map_err(build)?;
        pipeline.add(&sink).map_err(build)?;
        input.link(&sink).map_err(build)?;
        let error: Arc<Mutex<Option<String>>> = Arc::default();
        let said = error.clone();
        let bus = pipeline.bus().ok_or_else(|| build("no bus"))?;
        bus.set_sync_handler(move |_, message| {
            if let gst::MessageView::Error(message) = message.view() {
                let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
                // Not its debug text, which names files of GStreamer's.
                said.get_or_insert_with(|| message.error().message().to_owned());
            }
            gst::BusSyncReply::Drop
        });
        Ok(Self { pipeline, input, sink, error })
    }

    fn error(&self) -> Option<String> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for GstConnection {
    fn drop(&mut self) {
        // Going down cannot fail for these elements.
        let _ = self.pipeline.set_state(gst::State::Null);
        if let Some(bus) = self.pipeline.bus() {
            bus.unset_sync_handler();
        }
    }
}

impl SrtLink for GstLink {
    fn stats(&self) -> Option<SrtStats> {
        let stats = self.0.as_ref()?.sink.property::<gst::Structure>("stats");
        // libsrt counts for sockets that are connected, and for no others.
        let acks = stats.get::<i32>("packet-ack-received").ok()?;
        let latency_ms = stats.get::<i32>("negotiated-latency-ms").unwrap_or(0);
        let rtt_ms = stats.get::<f64>("rtt-ms").unwrap_or(0.0).ceil() as u64;
        let count = |number: i32| u64::try_from(number).unwrap_or(0);
        Some(SrtStats { acks: count(acks), latency_ms: count(latency_ms), rtt_ms })
    }

    fn error(&self) -> Option<String> {
        self.0.as_ref()?.error()
    }

    fn waiting_bytes(&self) -> u64 {
        self.0.as_ref().map_or(0, |connection| connection.input.current_level_bytes())
    }

    fn send(&self, packets: Bytes) {
        if let Some(connection) = &self.0 {
            // Refused only after an error, which is told by the element.
            let _ = connection.input.push_buffer(gst::Buffer::from_slice(packets));
        }
    }

    async fn close(mut self) {
        if let Some(connection) = self.0.take() {
            // A runtime that ends meanwhile drops it as well.
            let _ = tokio::task::spawn_blocking(move || drop(connection)).await;
        }
    }
}

impl Drop for GstLink {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            // Where the system has no thread left it is dropped here.
            let _ = std::thread::Builder::new().name("srt-close".into()).spawn(move || drop(connection));
        }
    }
}

/// At the level of debugging GStreamer's SRT prints passphrases and stream ids, whatever the environment asks for. Its errors
/// come over the bus.
fn hide_secrets() {
    static HIDDEN: Once = Once::new();
    HIDDEN.call_once(|| gst::log::set_threshold_for_name("srt*", gst::DebugLevel::None));
}

/// For `srtsink`, without what is secret.
fn uri(url: &SrtUrl, address: SocketAddr) -> String {
    let number = |number: u32| i64::from(number);
    let known = [("latency", url.latency_ms().map(number)), ("pbkeylen", url.key_bytes().map(number))];
    let known = known.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let options = known.chain(url.options().iter().copied());
    options.fold(format!("srt://{address}?mode=caller"), |uri, (name, value)| format!("{uri}&{name}={value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_elements_uri_has_every_option_and_no_secret() {
        let url = SrtUrl::parse(
            "srt://h:9000?passphrase=canary-0123&latency=250&streamid=canary&pbkeylen=16&maxbw=-1&x=y&tlpktdrop=no",
        )
        .unwrap();
        let address: SocketAddr = "[::1]:9000".parse().unwrap();
        let expected = "srt://[::1]:9000?mode=caller&latency=250&pbkeylen=16&maxbw=-1&tlpktdrop=0";
        assert_eq!(uri(&url, address), expected);
        assert_eq!(uri(&SrtUrl::parse("srt://h").unwrap(), address), "srt://[::1]:9000?mode=caller");
    }
}
