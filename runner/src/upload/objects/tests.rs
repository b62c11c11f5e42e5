//! Objects in virtual time, with real files.

use spillway_process::LocalRoot;
use spillway_storage::unreliable::{Fault, FaultMode};
use spillway_storage::{RamStorage, Unreliable};

use super::*;

struct ObjectLab {
    folder: tempfile::TempDir,
    ram: RamStorage,
    link: Unreliable,
    backup: RamStorage,
    objects: ObjectUploads,
}

impl ObjectLab {
    fn new(with_backup: bool) -> Self {
        let ram = RamStorage::new();
        Self::over(Unreliable::new(Arc::new(ram.clone())), ram, with_backup)
    }

    fn over(link: Unreliable, ram: RamStorage, with_backup: bool) -> Self {
        let backup = RamStorage::new();
        let second: Arc<dyn Storage> = Arc::new(backup.clone());
        let store = ObjectStore::Remote(Arc::new(link.clone()));
        let objects =
            ObjectUploads::new(store, with_backup.then_some(second), String::new(), UploadSettings::default());
        Self { folder: tempfile::tempdir().unwrap(), ram, link, backup, objects }
    }

    fn put(&mut self, number: u32) {
        let path = self.folder.path().join(format!("{number}.ts"));
        fs::write(&path, number.to_string()).unwrap();
        let (name, meta) = (format!("d/{number}.ts"), Meta::of("video/mp2t"));
        self.objects.put_file(ObjectFile { number, name, path, meta });
    }

    fn text(&mut self, text: &'static str) {
        self.objects.put_text("d/a.m3u8".into(), Bytes::from_static(text.as_bytes()), Meta::of("m"));
    }

    /// What comes within this time.
    async fn events(&mut self, within: Duration) -> Vec<String> {
        let until = Instant::now() + within;
        let mut events = vec![];
        while let Ok(event) = tokio::time::timeout_at(until, self.objects.next()).await {
            events.push(match event {
                ObjectEvent::Stored { number, on_backup, .. } => format!("{number} {on_backup}"),
                ObjectEvent::Lost { number, .. } => format!("{number} lost"),
                ObjectEvent::Text { result, .. } => format!("text {}", result.is_ok()),
                ObjectEvent::BackupUsed => "backup".to_owned(),
            });
        }
        events
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn files_become_objects_and_leave_the_spool() {
    let mut lab = ObjectLab::new(false);
    (0..9).for_each(|number| lab.put(number));
    let mut events = lab.events(SECOND).await;
    events.sort();
    assert_eq!(events.len(), 9);
    assert_eq!((events[8].as_str(), lab.ram.keys().len()), ("8 false", 9));
    assert_eq!(lab.ram.meta("d/3.ts").unwrap().content_type, "video/mp2t");
    let left = || fs::read_dir(lab.folder.path()).unwrap().count();
    for _ in 0..100 {
        if left() > 0 {
            tokio::task::yield_now().await;
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    assert_eq!(left(), 0);
}

#[tokio::test(start_paused = true)]
async fn no_more_files_are_on_their_way_than_the_settings_allow() {
    for (at_once, on_their_way) in [(4, 4), (2, 2), (0, 1)] {
        let mut lab = ObjectLab::new(false);
        lab.objects.settings.at_once = at_once;
        lab.link.set_fault_mode(FaultMode::Far(SECOND));
        (0..9).for_each(|number| lab.put(number));
        assert!(lab.events(Duration::from_millis(500)).await.is_empty());
        assert_eq!((lab.objects.files_in_flight(), lab.objects.waiting.len()), (on_their_way, 9 - on_their_way));
        // A text does not wait for them.
        lab.text("1");
        assert_eq!(lab.events(30 * SECOND).await.len(), 10);
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_text_only_the_newest_is_sent_and_never_two_at_once() {
    let mut lab = ObjectLab::new(false);
    lab.link.set_fault_mode(FaultMode::Far(SECOND));
    lab.text("1");
    assert!(lab.events(Duration::from_millis(100)).await.is_empty());
    lab.text("2");
    lab.text("3");
    assert_eq!(lab.events(20 * SECOND).await, ["text true", "text true"]);
    assert_eq!((lab.ram.object("d/a.m3u8").unwrap().as_ref(), lab.ram.counts().puts), (&b"3"[..], 2));
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_waited_for_while_the_recording_goes_on() {
    let mut lab = ObjectLab::new(false);
    lab.link.set_fault_mode(FaultMode::Down);
    (0..3).for_each(|number| lab.put(number));
    lab.text("1");
    // A text is not repeated: its owner has a newer one by then.
    assert_eq!(lab.events(3600 * SECOND).await, ["text false"]);
    assert!(lab.objects.error().contains("RAM upload failed"), "{}", lab.objects.error());
    lab.link.set_fault_mode(FaultMode::Fine);
    let mut events = lab.events(60 * SECOND).await;
    events.sort();
    assert_eq!((events, lab.objects.error()), (["0 false", "1 false", "2 false"].map(str::to_owned).to_vec(), ""));
}

#[tokio::test(start_paused = true)]
async fn the_backup_takes_over_after_a_minute_or_a_refusal() {
    for (mode, seconds) in [(FaultMode::Down, 62), (FaultMode::Refusing(StorageErrorKind::Denied), 5)] {
        let mut lab = ObjectLab::new(true);
        lab.put(0);
        assert_eq!(lab.events(SECOND).await, ["0 false"]);
        lab.link.set_fault_mode(mode);
        (1..3).for_each(|number| lab.put(number));
        let mut events = lab.events(seconds * SECOND).await;
        events.sort();
        assert_eq!(events, ["1 true", "2 true", "backup"], "{mode:?}");
        assert_eq!(lab.backup.keys(), ["d/1.ts", "d/2.ts"]);
        assert!(lab.objects.on_backup() && lab.objects.has_backup());
    }
}

#[tokio::test(start_paused = true)]
async fn after_the_end_everything_is_given_up_in_time() {
    let mut lab = ObjectLab::new(false);
    lab.link.set_fault_mode(FaultMode::Down);
    (0..2).for_each(|number| lab.put(number));
    assert!(lab.events(60 * SECOND).await.is_empty());
    lab.objects.close();
    let outage = Duration::from_millis(UploadSettings::default().max_outage_ms);
    let mut events = lab.events(outage + 5 * SECOND).await;
    events.sort();
    assert_eq!(events, ["0 lost", "1 lost"]);
    assert!(lab.objects.files_given_up().unwrap().contains("RAM upload failed"));
    assert_eq!(lab.objects.given_up(), None, "a text may still be taken");
    lab.text("1");
    lab.put(2);
    let mut events = lab.events(SECOND).await;
    events.sort();
    assert_eq!(events, ["2 lost", "text false"]);
    assert!(lab.objects.given_up().unwrap().contains("RAM upload failed"));
    lab.text("2");
    assert_eq!(lab.events(SECOND).await, ["text false"]);
    assert!(lab.folder.path().join("0.ts").exists(), "what is not stored stays");
}

/// A store that takes texts and no files.
#[tokio::test(start_paused = true)]
async fn texts_are_still_sent_when_files_are_given_up() {
    let mut lab = ObjectLab::new(false);
    lab.objects.close();
    lab.link.set_fault_mode(FaultMode::Refusing(StorageErrorKind::Denied));
    lab.put(0);
    assert_eq!(lab.events(5 * SECOND).await, ["0 lost"]);
    lab.link.set_fault_mode(FaultMode::Fine);
    lab.text("1");
    assert_eq!(lab.events(SECOND).await, ["text true"]);
    assert!(lab.objects.files_given_up().is_some() && lab.objects.given_up().is_none());
    // All files are stored, and the last texts only just.
    let mut lab = ObjectLab::new(false);
    lab.objects.close();
    lab.link.set_fault_mode(FaultMode::Refusing(StorageErrorKind::Denied));
    for _ in 0..2 {
        lab.text("1");
        assert_eq!(lab.events(SECOND).await, ["text false"]);
    }
    lab.link.set_fault_mode(FaultMode::Fine);
    lab.text("1");
    assert_eq!(lab.events(SECOND).await, ["text true"]);
    assert!(lab.objects.files_given_up().is_none() && lab.objects.given_up().is_none());
}

#[tokio::test(start_paused = true)]
async fn what_no_retry_helps_is_lost_alone() {
    let ram = RamStorage::new();
    let link = Unreliable::scripted(Arc::new(ram.clone()), [Some(Fault::Reset), None, Some(Fault::LostAnswer)]);
    let mut lab = ObjectLab::over(link, ram, false);
    // Its file is gone.
    let path = lab.folder.path().join("none.ts");
    lab.objects.put_file(ObjectFile { number: 0, name: "d/0.ts".into(), path, meta: Meta::default() });
    (1..4).for_each(|number| lab.put(number));
    let mut events = lab.events(30 * SECOND).await;
    events.sort();
    assert_eq!(events, ["0 lost", "1 false", "2 false", "3 false"]);
}

/// As a network disk whose server is away: nothing is written into the pipe that is to be read.
#[tokio::test(start_paused = true)]
async fn what_is_never_answered_is_given_up_after_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("0-0.ts");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let store = ObjectStore::Disk(LocalRoot::confined(folder.path().join("out")));
    let mut objects = ObjectUploads::new(store, None, String::new(), UploadSettings::default());
    objects.put_file(ObjectFile { number: 0, name: "0.ts".into(), path: path.clone(), meta: Meta::default() });
    tokio::select! {
        biased;
        event = objects.next() => panic!("{event:?}"),
        () = tokio::task::yield_now() => {}
    }
    objects.close();
    // Time stands still while a thread waits for the disk.
    let outage = Duration::from_millis(UploadSettings::default().max_outage_ms) + SECOND;
    let (event, ()) = tokio::join!(objects.next(), tokio::time::advance(outage));
    assert!(matches!(event, ObjectEvent::Lost { number: 0, .. }), "{event:?}");
    assert_eq!(objects.files_given_up(), Some("Local upload failed: no answer"));
    drop(fs::File::options().write(true).open(&path).unwrap());
}

#[tokio::test]
async fn a_folder_is_a_store_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let root = LocalRoot::confined(folder.path().join("out"));
    let store = ObjectStore::Disk(root);
    let mut objects = ObjectUploads::new(store.clone(), None, String::new(), UploadSettings::default());
    let path = folder.path().join("0-0.ts");
    fs::write(&path, b"segment").unwrap();
    objects.put_file(ObjectFile { number: 0, name: "a/../b/0.ts".into(), path: path.clone(), meta: Meta::default() });
    assert!(matches!(objects.next().await, ObjectEvent::Stored { number: 0, bytes: 7, on_backup: false }));
    for text in ["1", "2"] {
        objects.put_text("b/a.m3u8".into(), Bytes::from_static(text.as_bytes()), Meta::default());
        let ObjectEvent::Text { result, .. } = objects.next().await else { panic!("no answer") };
        assert_eq!(result.unwrap(), folder.path().join("out/b/a.m3u8").display().to_string());
    }
    assert_eq!((store.bytes("b/0.ts").await, store.bytes("b/1.ts").await), (Some(7), None));
    assert_eq!(fs::read(folder.path().join("out/b/a.m3u8")).unwrap(), b"2");
    let names = fs::read_dir(folder.path().join("out/b")).unwrap().count();
    assert_eq!(names, 2, "nothing unfinished is left");
}
