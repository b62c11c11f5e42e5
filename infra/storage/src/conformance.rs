//! The suite that every store has to pass (cargo feature `testing`). A store's own tests implement [`StorageSubject`] for a
//! server they have started and call [`all`]; a failed check panics with the difference.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use crate::checksum::{hex, md5};
use crate::error::StorageErrorKind;
use crate::storage::*;

/// A store under test, and ways to look into its bucket that do not go through it.
#[async_trait]
pub trait StorageSubject: Send + Sync {
    /// A new handle on the same bucket, as another process would open it.
    async fn storage(&self) -> Arc<dyn Storage>;

    /// The object as a reader finds it; `None`: there is none.
    async fn read(&self, name: &str) -> Option<Bytes>;

    /// The object's content type; `None`: this store keeps none.
    async fn content_type(&self, name: &str) -> Option<String>;

    /// Unfinished uploads in the whole bucket; `None`: they cannot be counted.
    async fn open_uploads(&self) -> Option<usize>;

    /// Stores that cannot be used (wrong key, no such bucket), each with the kind its calls must fail with.
    async fn broken(&self) -> Vec<(Arc<dyn Storage>, StorageErrorKind)>;
}

/// Every check.
pub async fn all(subject: &dyn StorageSubject) {
    without_fencing(subject).await;
    an_aborted_upload_leaves_nothing(subject).await;
    a_zombie_writes_nothing_after_the_end(subject).await;
    a_zombie_writes_nothing_after_an_abort(subject).await;
    a_repeated_complete_succeeds(subject).await;
    a_stale_part_is_refused(subject).await;
}

/// All checks but those of calls after an upload has ended, for a server that answers them without looking at upload ids or
/// tags (s3s-fs).
pub async fn without_fencing(subject: &dyn StorageSubject) {
    a_small_object_is_stored_and_replaced(subject).await;
    names_of_any_kind_are_kept(subject).await;
    parts_in_any_order_make_the_object(subject).await;
    a_part_sent_again_counts(subject).await;
    one_small_part_is_enough(subject).await;
    another_process_continues(subject).await;
    nothing_is_seen_before_the_end(subject).await;
    two_uploads_of_one_name_do_not_mix(subject).await;
    parts_at_once_are_all_kept(subject).await;
    a_store_that_cannot_be_used_says_why(subject).await;
}

const TYPE: &str = "video/mp4";

fn meta() -> Meta {
    Meta::of(TYPE)
}

/// Bytes that differ by seed and position.
fn content(seed: u32, length: u64) -> Bytes {
    let mut state = u64::from(seed) + 1;
    let mut bytes = BytesMut::with_capacity(length as usize + 8);
    while (bytes.len() as u64) < length {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length as usize);
    bytes.freeze()
}

fn big(storage: &dyn Storage) -> u64 {
    storage.rules().min_part_bytes.max(1000)
}

async fn send(storage: &dyn Storage, upload: &Upload, number: u32, generation: u32, bytes: &Bytes) -> Part {
    let expected = storage.expected_tag(number, generation, bytes);
    let tag = storage.put_part(upload, number, generation, bytes.clone()).await.expect("the part is taken");
    assert!(expected.as_ref().is_none_or(|expected| *expected == tag), "expected was {expected:?}, it is {tag:?}");
    assert_eq!(tag.bytes, bytes.len() as u64, "part {number}");
    Part { number, generation, tag }
}

async fn begin(storage: &dyn Storage, name: &str) -> Upload {
    storage.begin(name, &meta()).await.expect("the upload begins")
}

async fn a_small_object_is_stored_and_replaced(subject: &dyn StorageSubject) {
    let storage = subject.storage().await;
    let name = "small/playlist.m3u8";
    assert_eq!(storage.head(name).await.expect("the store answers"), None);
    for text in ["first", "second, and longer"] {
        let stored = storage.put(name, Bytes::from(text), &meta()).await.expect("stored");
        assert_eq!(stored.bytes, text.len() as u64);
        assert_eq!(stored.location, storage.location(name));
        assert_eq!(subject.read(name).await.as_deref(), Some(text.as_bytes()));
        let object = storage.head(name).await.expect("the store answers").expect("it is there");
        assert_eq!(object.bytes, text.len() as u64);
        let read = storage.read_small(name).await.expect("the store answers");
        assert_eq!(read.as_deref(), Some(text.as_bytes()));
    }
    assert_eq!(storage.read_small("small/nothing").await.expect("the store answers"), None);
    if let Some(kept) = subject.content_type(name).await {
        assert_eq!(kept, TYPE);
    }
    for _ in 0..2 {
        storage.delete(name).await.expect("deleted, or not there");
        assert_eq!(storage.head(name).await.expect("the store answers"), None);
    }
}

async fn names_of_any_kind_are_kept(subject: &dyn StorageSubject) {
    let storage = subject.storage().await;
    for name in ["names/my file.mp4", "names/café.mp4", "names/a+b=c&d?e#f%41.mp4", "names/日本/語.mp4"] {
        storage.put(name, Bytes::from(name), &meta()).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(subject.read(name).await.as_deref(), Some(name.as_bytes()), "{name}");
        let upload = begin(&*storage, &format!("{name}.parts")).await;
        let part = send(&*storage, &upload, 1, 0, &Bytes::from(name)).await;
        storage.complete(&upload, &[part], &meta()).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(subject.read(&format!("{name}.parts")).await.as_deref(), Some(name.as_bytes()), "{name}");
    }
}

async fn parts_in_any_order_make_the_object(subject: &dyn StorageSubject) {
    let storage = subject.storage().await;
    let name = "parts/order.mp4";
    let upload = begin(&*storage, name).await;
    let pieces = [content(1, big(&*storage)), content(2, big(&*storage)), content(3, 777)];
    let mut parts = Vec::new();
    for number in [3, 1, 2] {
        parts.push(send(&*storage, &upload, number, 0, &pieces[number as usize - 1]).await);
    }
    parts.sort_by_key(|part| part.number);
    let stored = storage.complete(&upload, &parts, &meta()).await.expect("completed");
    let whole = pieces.concat();
    assert_eq!(stored.bytes, whole.len() as u64);
    assert_eq!(stored.location, storage.location(name));
    assert!(subject.read(name).await.is_some_and(|read| read == whole), "the object is what was sent");
    if let Some(kept) = subject.content_type(name).await {
        assert_eq!(kept, TYPE);
    }
}

/// As an MP4 recording ends: its first part is sent last, with the sizes that are known at the end only.
async fn a_part_sent_again_counts(subject: &dyn StorageSubject) {
    let storage = subject.storage().await;
    let name = "parts/again.mp4";
    let upload = begin(&*storage, name).await;
    let (old, new) = (content(1, big(&*storage)), content(10, big(&*storage)));
    send(&*storage, &upload, 1, 0, &old).await;
    // The tail grows under the same number.
    for (generation, length) in [(0, 100), (1, 200)] {
        send(&*storage, &upload, 2, generation, &content(2, length)).await;
    }
    let tail = content(2, 300);
    let last = send(&*storage, &upload, 2, 2, &tail).await;
    let first = send(&*storage, &upload, 1, 1, &new).await;
    storage.complete(&upload, &[first, last], &meta()).await.expect("completed");
    let whole = [new, tail].concat();
    assert!(subject.read(name).await.is_some_and(|read| read == whole), "the last bytes of each number count");
}

async fn one_small_part_is_enough(subject: &dyn StorageSubject) {
    let storage = subject.storage().await;
    let upload = begin(&*storage, "parts/tiny.ogg").await;
    let part = send(&*storage, &upload, 1, 0, &Bytes::from_static(b"x")).await;
    assert_eq!(storage.complete(&upload, &[part], &meta()).await.expect("completed").bytes, 1);
    assert_eq!(subject.read("parts/tiny.ogg").await.as_deref(), Some(&b"x"[..]));
}

/// Salvage: another process knows what was stored in Redis and nothing else.
async fn another_process_continues(subject: &dyn StorageSubject) {
    let name = "parts/salvaged.mp4";
    let (first, second) = (content(1, big(&*subject.storage().await)), content(2, 500));
    let (kept_upload, kept_part) = {
        let storage = subject.storage().await;
        let upload = begin(&*storage, name).await;
        let part = send(&*storage, &upload, 1, 0, &first).await;
        send(&*storage, &upload, 2, 0, &second).await;
        (serde_kept(&upload), part)
    };
    let storage = subject.storage().await;
    let listed = storage.list_parts(&kept_upload).await.expect("the store answers");
    let second_part = match listed {
        Some(listed) => {
            let sizes: Vec<_> = listed.iter().map(|part| (part.number, part.tag.bytes)).collect();
            assert_eq!(sizes, [(1, first.len() as u64), (2, 500)]);
            listed[1].clone()
        }
        None => send(&*storage, &kept_upload, 2, 1, &second).await,
    };
    // A part without ETag (s3s-fs lists none) cannot be completed.
    let second_part =
        if second_part.tag.etag.is_empty() { send(&*storage, &kept_upload, 2, 1, &second).await } else { second_part };
    storage.complete(&kept_upload, &[kept_part, second_part], &meta()).await.expect("completed");
    let whole = [first, second].concat();
    assert!(subject.read(name).await.is_some_and(|read| read == whole));
}

/// An upload as it comes back from Redis.
fn serde_kept(upload: &Upload) -> Upload {
    use serde::Deserialize;
    use serde::de::value::{Error, MapDeserializer};
    let mut fields = vec![("id", upload.id.clone()), ("key", upload.key.clone())];
    let replaces = upload.replaces.clone();
    let mut kept = Upload::deserialize(MapDeserializer::<_, Error>::new(fields.drain(..))).expect("plain fields");
    kept.replaces = replaces;
    kept
}

async fn nothing_is_seen_before_the_end(subject: &dyn StorageSubject) {
    let storage = subject.storage().await;
    let name = "parts/unseen.mp4";
    let upload = begin(&*storage, name).await;
    let part = send(&*storage, &upload, 1, 0, &Bytes::from_static(b"unseen")).await;
    assert_eq!(subject.read(name).await, None);
    assert_eq!(storage.head(name).await.expect("the store answers"), None);
    storage.complete(&upload, &[part], &meta()).await.expect("completed");
}

async fn an_aborted_upload_leaves_nothing(subject: &dyn StorageSubject) {
    let storage = subject.storage().await;
    let name = "parts/aborted.mp4";
    let before = subject.open_uploads().await;
    let upload = begin(&*storage, name).await;
    send(&*storage, &upload, 1, 0, &content(1, 1000)).await;
    for _ in 0..2 {
        storage.abort(&upload).await.expect("aborted");
    }
    // A write check: begun and aborted, no part sent.
    let probe = begin(&*storage, name).await;
    storage.abort(&probe).await.expect("aborted");
    assert_eq!(subject.open_uploads().await, before);
    assert_eq!(subject.read(name).await, None);
}

async fn a_zombie_writes_nothing_after_the_end(subject: &dyn StorageSubject) {
    let (zombie, salvage) = (subject.storage().await, subject.storage().await);
    let name = "parts/zombie.mp4";
    let upload = begin(&*zombie, name).await;
    let object = Bytes::from_static(b"the object");
    let part = send(&*zombie, &upload, 1, 0, &object).await;
    salvage.complete(&upload, std::slice::from_ref(&part), &meta()).await.expect("completed");

    let late = zombie.put_part(&upload, 1, 1, Bytes::from_static(b"late other bytes")).await;
    assert_eq!(late.expect_err("refused").kind, StorageErrorKind::Gone);
    let etag = hex(&md5(b"other bytes"));
    let other = Part { number: 1, generation: 1, tag: PartTag { bytes: 16, etag, ..part.tag.clone() } };
    let late = zombie.complete(&upload, &[other], &meta()).await;
    assert_eq!(late.expect_err("refused").kind, StorageErrorKind::Gone);
    assert_eq!(subject.read(name).await, Some(object));
}

async fn a_zombie_writes_nothing_after_an_abort(subject: &dyn StorageSubject) {
    let (zombie, other) = (subject.storage().await, subject.storage().await);
    let name = "parts/zombie-aborted.mp4";
    let upload = begin(&*zombie, name).await;
    let part = send(&*zombie, &upload, 1, 0, &Bytes::from_static(b"aborted bytes")).await;
    other.abort(&upload).await.expect("aborted");
    let late = zombie.complete(&upload, &[part], &meta()).await;
    assert_eq!(late.expect_err("refused").kind, StorageErrorKind::Gone);
    assert_eq!(subject.read(name).await, None);
}

/// As after a lost answer.
async fn a_repeated_complete_succeeds(subject: &dyn StorageSubject) {
    let storage = subject.storage().await;
    let name = "parts/twice.mp4";
    let upload = begin(&*storage, name).await;
    let pieces = [content(1, big(&*storage)), content(2, 10)];
    let parts = [send(&*storage, &upload, 1, 0, &pieces[0]).await, send(&*storage, &upload, 2, 0, &pieces[1]).await];
    let first = storage.complete(&upload, &parts, &meta()).await.expect("completed");
    let again = storage.complete(&upload, &parts, &meta()).await.expect("completed before");
    assert_eq!((first.bytes, &first.location), (again.bytes, &again.location));
}

/// A checkpoint that is older than the part: `complete` must refuse its tag, so that the caller tries another.
async fn a_stale_part_is_refused(subject: &dyn StorageSubject) {
    let storage = subject.storage().await;
    let name = "parts/stale.mp4";
    let upload = begin(&*storage, name).await;
    let stale = send(&*storage, &upload, 1, 0, &content(1, 1000)).await;
    let fresh = send(&*storage, &upload, 1, 1, &content(2, 2000)).await;
    match storage.complete(&upload, &[stale], &meta()).await {
        Err(refused) => {
            assert_eq!(refused.kind, StorageErrorKind::Invalid, "{refused}");
            assert_eq!(storage.complete(&upload, &[fresh], &meta()).await.expect("still open").bytes, 2000);
        }
        // Azure keeps both generations: then the object is what was asked for.
        Ok(stored) => {
            assert_eq!(stored.bytes, 1000);
            assert!(subject.read(name).await.is_some_and(|read| read == content(1, 1000)));
        }
    }
}

async fn two_uploads_of_one_name_do_not_mix(subject: &dyn StorageSubject) {
    let storage = subject.storage().await;
    let name = "parts/rivals.mp4";
    let (one, two) = (begin(&*storage, name).await, begin(&*storage, name).await);
    let part = send(&*storage, &one, 1, 0, &Bytes::from_static(b"one")).await;
    send(&*storage, &two, 1, 0, &Bytes::from_static(b"the other")).await;
    storage.complete(&one, &[part], &meta()).await.expect("completed");
    assert_eq!(subject.read(name).await.as_deref(), Some(&b"one"[..]));
    storage.abort(&two).await.expect("aborted");
    assert_eq!(subject.read(name).await.as_deref(), Some(&b"one"[..]));
}

async fn parts_at_once_are_all_kept(subject: &dyn StorageSubject) {
    let storage = subject.storage().await;
    let name = "parts/at-once.mp4";
    let upload = begin(&*storage, name).await;
    let pieces = [1, 2, 3, 4].map(|number| content(number, big(&*storage)));
    let (a, b, c, d) = tokio::join!(
        send(&*storage, &upload, 1, 0, &pieces[0]),
        send(&*storage, &upload, 2, 0, &pieces[1]),
        send(&*storage, &upload, 3, 0, &pieces[2]),
        send(&*storage, &upload, 4, 0, &pieces[3]),
    );
    storage.complete(&upload, &[a, b, c, d], &meta()).await.expect("completed");
    let whole = pieces.concat();
    assert!(subject.read(name).await.is_some_and(|read| read == whole));
}

async fn a_store_that_cannot_be_used_says_why(subject: &dyn StorageSubject) {
    for (broken, kind) in subject.broken().await {
        let error = broken.begin("denied.mp4", &meta()).await.expect_err("refused");
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.to_string().starts_with(&format!("{} upload failed: ", broken.name())), "{error}");
        let error = broken.put("denied.json", Bytes::from_static(b"{}"), &meta()).await.expect_err("refused");
        assert_eq!(error.kind, kind, "{error}");
    }
}
