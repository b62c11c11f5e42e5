//! Facts about streams → `EgressInfo.stream_results`. A stream ends once, FINISHED or FAILED; nothing changes it afterwards.
//! Methods answer whether the change is worth an update: livekit-server calls webhooks for each one, so a connection that
//! is lost every few seconds is told of once a minute.

use livekit_protocol as livekit;
use livekit_protocol::stream_info::Status;
use serde::{Deserialize, Serialize};

use super::results::{MAX_RESULTS, bounded};
use crate::requested::RedactedUrl;

/// Between two updates about retries of one stream, as livekit/egress does it.
const RETRY_UPDATE_INTERVAL_NS: u64 = 60_000_000_000;

/// What is not in the StreamInfo of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LedgerStream {
    id: u32,
    /// Stands for the start of a stream that never connected.
    added_at: i64,
    /// When an update about a retry was sent last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_sent_at: Option<i64>,
    /// The last update that was sent has the text of a retry.
    #[serde(default)]
    retry_shown: bool,
}

impl LedgerStream {
    fn new(id: u32, added_at: i64) -> Self {
        Self { id, added_at, retry_sent_at: None, retry_shown: false }
    }
}

/// `stream_results` and what the ledger keeps beside each of them: equally long, in order of their ids.
pub(super) struct StreamResults<'a> {
    shown: &'a mut Vec<livekit::StreamInfo>,
    kept: &'a mut Vec<LedgerStream>,
}

impl<'a> StreamResults<'a> {
    /// Entries of `shown` that have none in `kept` get one with the next id and `added_at`: an older version has written
    /// the ledger meanwhile, or it is new.
    pub(super) fn new(shown: &'a mut Vec<livekit::StreamInfo>, kept: &'a mut Vec<LedgerStream>, added_at: i64) -> Self {
        kept.truncate(shown.len());
        while kept.len() < shown.len() {
            let id = kept.last().map_or(0, |last| last.id.saturating_add(1));
            kept.push(LedgerStream::new(id, added_at));
        }
        Self { shown, kept }
    }

    /// A new stream, or the form in which a known one is shown from now on.
    pub(super) fn add(&mut self, id: u32, url: RedactedUrl, at: i64) -> bool {
        let url = url.into_string();
        let Err(place) = self.kept.binary_search_by_key(&id, |kept| kept.id) else {
            let Some((shown, _)) = self.live(id) else { return false };
            let changed = shown.url != url;
            shown.url = url;
            return changed;
        };
        if self.kept.len() >= MAX_RESULTS {
            return false;
        }
        self.shown.insert(place, livekit::StreamInfo { url, ..livekit::StreamInfo::default() });
        self.kept.insert(place, LedgerStream::new(id, at));
        true
    }

    /// The first connection has the start time. A later one is worth an update if users were told of the retry.
    pub(super) fn connected(&mut self, id: u32, at: i64) -> bool {
        let Some((shown, kept)) = self.live(id) else { return false };
        shown.error.clear();
        if shown.started_at != 0 {
            return kept.retry_shown;
        }
        // 0 is "not connected".
        shown.started_at = at.max(1);
        true
    }

    /// `now` is the time of the update, if there is one.
    pub(super) fn retried(&mut self, id: u32, at: i64, message: &str, now: i64) -> bool {
        let Some((shown, kept)) = self.live(id) else { return false };
        shown.retries = shown.retries.saturating_add(1);
        shown.last_retry_at = at;
        shown.error = bounded(message);
        let due = kept.retry_sent_at.is_none_or(|sent_at| now.abs_diff(sent_at) >= RETRY_UPDATE_INTERVAL_NS);
        if due {
            kept.retry_sent_at = Some(now);
        }
        due
    }

    pub(super) fn ended(&mut self, id: u32, at: i64, failure: Option<&str>) -> bool {
        let Some((shown, kept)) = self.live(id) else { return false };
        end(shown, kept, at, failure.map(bounded));
        true
    }

    /// The end of the egress is the end of every stream; one that fails fails them all.
    pub(super) fn end_all(&mut self, at: i64, failure: Option<&str>) {
        for (shown, kept) in self.shown.iter_mut().zip(self.kept.iter_mut()) {
            if shown.status() == Status::Active {
                end(shown, kept, at, failure.map(str::to_owned));
            }
        }
    }

    /// An update goes out with the results as they are now.
    pub(super) fn sent(&mut self) {
        for (shown, kept) in self.shown.iter().zip(self.kept.iter_mut()) {
            kept.retry_shown = shown.status() == Status::Active && !shown.error.is_empty();
        }
    }

    fn live(&mut self, id: u32) -> Option<(&mut livekit::StreamInfo, &mut LedgerStream)> {
        let place = self.kept.binary_search_by_key(&id, |kept| kept.id).ok()?;
        let (shown, kept) = (self.shown.get_mut(place)?, self.kept.get_mut(place)?);
        (shown.status() == Status::Active).then_some((shown, kept))
    }
}

fn end(shown: &mut livekit::StreamInfo, kept: &LedgerStream, at: i64, failure: Option<String>) {
    let connected = shown.started_at != 0;
    if !connected {
        // Clients expect both times in every result that is over.
        shown.started_at = kept.added_at.max(1);
    }
    shown.ended_at = at.max(shown.started_at);
    // A stream that never connected has lasted for no time.
    shown.duration = if connected { shown.ended_at.saturating_sub(shown.started_at) } else { 0 };
    shown.set_status(if failure.is_some() { Status::Failed } else { Status::Finished });
    // FAILED has always a text, FINISHED never has that of an earlier retry.
    shown.error = match failure {
        Some(message) if message.is_empty() => "failed".to_owned(),
        Some(message) => message,
        None => String::new(),
    };
}
