//! Small whole objects of one output: the segments and playlists of an HLS output. Files of the spool and texts come in;
//! what became of them comes out of [`ObjectUploads::next`]. Owned and polled by the task of that output: requests run beside
//! it, with files `at_once` at most. Of a text that is replaced again and again only the newest is sent, and never two of
//! one name at once: they could be stored in the wrong order.
//!
//! A store that fails is tried again for as long as the recording goes on. After `backup_after_ms`, or at once when it
//! refuses, the backup takes over. After the end of the recording all is given up within `max_outage_ms`: files first, so that
//! a store that takes texts still gets those that say so.

mod giving_up;
mod store;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use spillway_storage::{Meta, Storage, StorageErrorKind, Stored};
use tokio::task::{Id, JoinError, JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::attempts::put_small;
use super::outage::StoreOutage;
use super::settings::UploadSettings;
use store::{LOCAL, PutError};

pub use store::{ObjectFile, ObjectStore};

/// How often deadlines are looked at while the store fails, and after the end of the recording.
const TICK: Duration = Duration::from_millis(250);
const IDLE: Duration = Duration::from_secs(3600);
/// For the store to say whether it has an object.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// Looks at once.
const LOOKS: usize = 16;

/// What became of an object.
#[derive(Debug)]
pub enum ObjectEvent {
    /// A file is an object now.
    Stored {
        /// Of the file.
        number: u32,
        /// Size.
        bytes: u64,
        /// It is in the backup.
        on_backup: bool,
    },
    /// A file will never be one. It stays in the spool.
    Lost {
        /// Of the file.
        number: u32,
        /// Why, for the user.
        message: String,
    },
    /// A request with a text was answered. It is not repeated: a newer text may be there by now.
    Text {
        /// Of the object.
        name: String,
        /// Its location, or why it is not stored.
        result: Result<String, String>,
    },
    /// The primary store is given up; whatever is put from now on goes to the backup, whose objects these will be alone.
    BackupUsed,
}

/// The uploads of one output.
#[derive(Debug)]
pub struct ObjectUploads {
    store: ObjectStore,
    backup: Option<Arc<dyn Storage>>,
    on_backup: bool,
    /// Why the primary store was given up.
    primary_error: String,
    settings: UploadSettings,
    waiting: BTreeMap<u32, ObjectFile>,
    /// By the object's name: the newest text that was not sent.
    texts: BTreeMap<String, (Bytes, Meta)>,
    sending: HashMap<Id, ObjectPut>,
    requests: JoinSet<Result<Stored, PutError>>,
    /// When the last request was answered, or one began with no other on its way.
    progress_at: Instant,
    events: VecDeque<ObjectEvent>,
    outage: StoreOutage,
    closed_at: Option<Instant>,
    files_given_up: Option<FilesGivenUp>,
    given_up: Option<String>,
}

/// No file is sent any more; texts are.
#[derive(Debug)]
struct FilesGivenUp {
    message: String,
    /// There were some.
    any: bool,
    /// If texts still fail then, they are given up as well.
    texts_until: Instant,
}

/// A request on its way, and whether to the backup.
#[derive(Debug)]
struct ObjectPut {
    content: PutContent,
    on_backup: bool,
}

#[derive(Debug)]
enum PutContent {
    File(ObjectFile),
    Text(String),
}

impl ObjectUploads {
    /// Nothing is sent yet. `primary_error` is not empty where the primary store has refused before: `store` is the backup
    /// then.
    pub fn new(
        store: ObjectStore,
        backup: Option<Arc<dyn Storage>>,
        primary_error: String,
        settings: UploadSettings,
    ) -> Self {
        Self {
            store,
            backup,
            on_backup: !primary_error.is_empty(),
            primary_error,
            outage: StoreOutage::new(&settings),
            settings,
            waiting: BTreeMap::new(),
            texts: BTreeMap::new(),
            sending: HashMap::new(),
            requests: JoinSet::new(),
            progress_at: Instant::now(),
            events: VecDeque::new(),
            closed_at: None,
            files_given_up: None,
            given_up: None,
        }
    }

    /// A file becomes an object; answered by [`ObjectEvent::Stored`] or [`ObjectEvent::Lost`].
    pub fn put_file(&mut self, file: ObjectFile) {
        match &mut self.files_given_up {
            Some(given_up) => {
                given_up.any = true;
                let message = given_up.message.clone();
                self.events.push_back(ObjectEvent::Lost { number: file.number, message });
            }
            None => {
                self.waiting.insert(file.number, file);
            }
        }
    }

    /// A text replaces the object `name`. What is on its way there is waited for; what waits is replaced.
    pub fn put_text(&mut self, name: String, text: Bytes, meta: Meta) {
        match &self.given_up {
            Some(message) => {
                self.events.push_back(ObjectEvent::Text { name, result: Err(message.clone()) });
            }
            None => {
                self.texts.insert(name, (text, meta));
            }
        }
    }

    /// The recording has ended: the last attempts begin at once, and they are not repeated for ever.
    pub fn close(&mut self) {
        self.closed_at.get_or_insert_with(Instant::now);
        self.outage.until = None;
    }

    /// Nothing waits to be taken from [`Self::next`] now.
    pub fn is_drained(&self) -> bool {
        self.events.is_empty()
    }

    /// URL or path of an object in the store in use, for people; never a presigned link.
    pub fn location(&self, name: &str) -> String {
        self.store.location(name)
    }

    /// Bytes of an object in the store in use; `None` where there is none, or the store does not tell.
    pub async fn bytes(&self, name: &str) -> Option<u64> {
        self.store.bytes(name).await
    }

    /// The same, for ten seconds at most and not after `give_up`: then the store does not tell.
    pub async fn bytes_by(&self, name: &str, give_up: Instant) -> Option<u64> {
        timeout_at(give_up.min(Instant::now() + LOOK_TIMEOUT), self.bytes(name)).await.ok().flatten()
    }

    /// Stores a small object in the store in use and answers its location; transient errors are retried for so long.
    ///
    /// # Errors
    /// The store's message, for the user. All retries are done.
    pub async fn put_small(&self, name: &str, bytes: Bytes, meta: &Meta, limit: Duration) -> Result<String, String> {
        let stored = match &self.store {
            ObjectStore::Disk(_) => self.store.put_text(name, bytes, meta).await,
            ObjectStore::Remote(store) => put_small(&**store, &self.settings, (name, bytes, meta), limit).await,
        };
        stored.map(|stored| stored.location).map_err(|error| error.to_string())
    }

    /// Why files were given up at the end, if any was.
    pub fn files_given_up(&self) -> Option<&str> {
        self.files_given_up.as_ref().filter(|given_up| given_up.any).map(|given_up| given_up.message.as_str())
    }

    /// Why nothing more is sent.
    pub fn given_up(&self) -> Option<&str> {
        self.given_up.as_deref()
    }

    /// The store's error while it fails; else empty.
    pub fn error(&self) -> &str {
        &self.outage.message
    }

    /// Something is in the backup, or will be.
    pub fn on_backup(&self) -> bool {
        self.on_backup
    }

    /// There is a second destination.
    pub fn has_backup(&self) -> bool {
        self.backup.is_some() || self.on_backup
    }

    /// What comes of it next. Cancel-safe; waits for ever while nothing is to be sent.
    pub async fn next(&mut self) -> ObjectEvent {
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            self.start_requests();
            let is_bounded = self.outage.since.is_some() || self.closed_at.is_some();
            let wake = Instant::now() + if is_bounded { TICK } else { IDLE };
            tokio::select! {
                Some(answered) = self.requests.join_next_with_id() => self.answered(answered),
                () = sleep_until(wake) => self.check_deadlines(),
            }
        }
    }

    fn start_requests(&mut self) {
        let busy = |name: &String| {
            self.sending.values().any(|put| matches!(&put.content, PutContent::Text(sent) if sent == name))
        };
        let ready: Vec<String> = self.texts.keys().filter(|name| !busy(name)).cloned().collect();
        for name in ready {
            let Some((text, meta)) = self.texts.remove(&name) else { continue };
            let (store, object) = (self.store.clone(), name.clone());
            let put = async move { store.put_text(&object, text, &meta).await.map_err(PutError::Store) };
            self.send(PutContent::Text(name), put);
        }
        if self.outage.until.is_some_and(|until| Instant::now() < until) {
            return;
        }
        // While the store fails, one request at a time finds out when that is over. Texts are small and come on top.
        let at_once = if self.outage.since.is_some() { 1 } else { self.settings.at_once.max(1) };
        while self.files_in_flight() < at_once
            && let Some((_, file)) = self.waiting.pop_first()
        {
            let (store, sent) = (self.store.clone(), file.clone());
            self.send(PutContent::File(file), async move { store.put_file(&sent).await });
        }
    }

    fn send(&mut self, content: PutContent, put: impl Future<Output = Result<Stored, PutError>> + Send + 'static) {
        if self.sending.is_empty() {
            self.progress_at = Instant::now();
        }
        let id = self.requests.spawn(put).id();
        self.sending.insert(id, ObjectPut { content, on_backup: self.on_backup });
    }

    fn files_in_flight(&self) -> usize {
        self.sending.values().filter(|put| matches!(put.content, PutContent::File(_))).count()
    }

    fn answered(&mut self, answered: Result<(Id, Result<Stored, PutError>), JoinError>) {
        let (id, result) = match answered {
            Ok(answer) => answer,
            Err(panicked) => (panicked.id(), Err(PutError::Spool(io::Error::other(panicked)))),
        };
        let Some(ObjectPut { content, on_backup }) = self.sending.remove(&id) else { return };
        self.progress_at = Instant::now();
        match result {
            Ok(stored) => {
                if on_backup == self.on_backup {
                    self.outage = StoreOutage::new(&self.settings);
                }
                self.stored(content, stored, on_backup);
            }
            Err(PutError::Spool(error)) => self.lost(content, format!("{LOCAL} upload failed: {error}")),
            Err(PutError::Store(error)) => {
                match content {
                    // Not the store's state but this object's: no retry helps.
                    PutContent::File(_) if error.kind == StorageErrorKind::Invalid => {
                        return self.lost(content, error.to_string());
                    }
                    PutContent::File(file) => {
                        if let Some(given_up) = &mut self.files_given_up {
                            given_up.any = true;
                            return self.lost(PutContent::File(file), error.to_string());
                        }
                        self.waiting.insert(file.number, file);
                    }
                    PutContent::Text(name) => {
                        self.events.push_back(ObjectEvent::Text { name, result: Err(error.to_string()) });
                    }
                }
                if on_backup == self.on_backup {
                    self.failed(&error);
                }
            }
        }
    }

    fn stored(&mut self, content: PutContent, stored: Stored, on_backup: bool) {
        self.events.push_back(match content {
            PutContent::Text(name) => ObjectEvent::Text { name, result: Ok(stored.location) },
            PutContent::File(file) => {
                // Not its folder: the next file may be made in it just now.
                spawn_blocking(move || fs::remove_file(&file.path));
                ObjectEvent::Stored { number: file.number, bytes: stored.bytes, on_backup }
            }
        });
    }

    fn lost(&mut self, content: PutContent, message: String) {
        self.events.push_back(match content {
            PutContent::Text(name) => ObjectEvent::Text { name, result: Err(message) },
            PutContent::File(file) => ObjectEvent::Lost { number: file.number, message },
        });
    }
}

/// What all of `looks` answer, in their order, a few at a time.
pub(crate) async fn joined_in_parts<T, F: Future<Output = T>>(looks: impl Iterator<Item = F>) -> Vec<T> {
    let mut looks = looks.peekable();
    let mut answers = vec![];
    while looks.peek().is_some() {
        answers.extend(join_all(looks.by_ref().take(LOOKS)).await);
    }
    answers
}

#[cfg(test)]
mod tests;
