//! RAM and disk pass what every store passes.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use spillway_plan::destination::Local;
use spillway_plan::{Destination, Provider, Store};
use spillway_storage::conformance::{self, StorageSubject};
use spillway_storage::{DiskStorage, Meta, Options, RamStorage, Storage, StorageErrorKind, open};

struct Ram(RamStorage);

#[async_trait]
impl StorageSubject for Ram {
    async fn storage(&self) -> Arc<dyn Storage> {
        Arc::new(self.0.clone())
    }

    async fn read(&self, name: &str) -> Option<Bytes> {
        self.0.object(name)
    }

    async fn content_type(&self, name: &str) -> Option<String> {
        self.0.meta(name).map(|meta| meta.content_type)
    }

    async fn open_uploads(&self) -> Option<usize> {
        Some(self.0.open_uploads())
    }

    async fn broken(&self) -> Vec<(Arc<dyn Storage>, StorageErrorKind)> {
        Vec::new()
    }
}

struct Disk(tempfile::TempDir);

#[async_trait]
impl StorageSubject for Disk {
    async fn storage(&self) -> Arc<dyn Storage> {
        Arc::new(DiskStorage::new(self.0.path()))
    }

    async fn read(&self, name: &str) -> Option<Bytes> {
        std::fs::read(self.0.path().join(name)).ok().map(Bytes::from)
    }

    async fn content_type(&self, _: &str) -> Option<String> {
        None
    }

    async fn open_uploads(&self) -> Option<usize> {
        Some(DiskStorage::new(self.0.path()).open_uploads())
    }

    async fn broken(&self) -> Vec<(Arc<dyn Storage>, StorageErrorKind)> {
        let file = self.0.path().join("a-file");
        std::fs::write(&file, b"").expect("a file");
        vec![(Arc::new(DiskStorage::new(file)), StorageErrorKind::NotFound)]
    }
}

#[tokio::test]
async fn ram_conforms() {
    let ram = RamStorage::new();
    conformance::all(&Ram(ram.clone())).await;
    assert_eq!(ram.open_uploads(), 0);
}

#[tokio::test]
async fn disk_conforms() {
    let disk = Disk(tempfile::tempdir().unwrap());
    conformance::all(&disk).await;
    assert_eq!(disk.open_uploads().await, Some(0));
}

#[tokio::test]
async fn a_small_part_in_the_middle_is_refused_as_s3_does() {
    let ram = RamStorage::new();
    let upload = ram.begin("a", &Meta::default()).await.unwrap();
    let mut parts = Vec::new();
    for number in [1, 2] {
        let tag = ram.put_part(&upload, number, 0, Bytes::from_static(b"small")).await.unwrap();
        parts.push(spillway_storage::Part { number, generation: 0, tag });
    }
    let error = ram.complete(&upload, &parts, &Meta::default()).await.unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::Invalid);
    assert!(error.message.contains("EntityTooSmall"));
}

fn store(provider: Provider, prefix: &str, presign: bool) -> Destination {
    Destination::Store(Box::new(Store { provider, prefix: prefix.to_owned(), presign }))
}

#[tokio::test]
async fn prefix_and_links_are_the_installations() {
    let folder = tempfile::tempdir().unwrap();
    let local = || Provider::Local(Local { root: folder.path().to_owned() });
    let storage = open(&store(local(), "tenant", true), &Options::default()).await.unwrap();
    let stored = storage.put("a b.json", Bytes::from_static(b"{}"), &Meta::default()).await.unwrap();
    assert!(stored.location.starts_with("file:///") && stored.location.ends_with("/tenant/a%20b.json"), "{stored:?}");
    assert_eq!(std::fs::read(folder.path().join("tenant/a b.json")).unwrap(), b"{}");
    let upload = storage.begin("b.mp4", &Meta::default()).await.unwrap();
    assert_eq!(upload.key, "tenant/b.mp4");
    storage.abort(&upload).await.unwrap();
}

#[tokio::test]
async fn a_directory_is_never_left() {
    let folder = tempfile::tempdir().unwrap();
    let disk = DiskStorage::new(folder.path().join("root"));
    for name in ["../evil", "a/../../evil", "", "/", ".spillway-uploads/x"] {
        let error = disk.put(name, Bytes::new(), &Meta::default()).await.unwrap_err();
        assert_eq!(error.kind, StorageErrorKind::Invalid, "{name}");
    }
}

#[tokio::test]
async fn a_folder_that_may_not_be_written_to_is_denied() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o500)).unwrap();
    if std::fs::create_dir(folder.path().join("probe")).is_ok() {
        // Root may write anywhere; what it cannot do is make folders in /proc.
        let error = DiskStorage::new("/proc/spillway").begin("a", &Meta::default()).await.unwrap_err();
        assert!(matches!(error.kind, StorageErrorKind::NotFound | StorageErrorKind::Denied), "{error}");
        return;
    }
    let error = DiskStorage::new(folder.path()).begin("a", &Meta::default()).await.unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::Denied, "{error}");
}

#[cfg(feature = "azure")]
#[tokio::test]
async fn the_password_of_an_endpoint_is_in_no_location_and_no_error() {
    use spillway_plan::Secret;
    use spillway_plan::destination::Azure;
    let opened = async |endpoint: &str, key: &str| {
        let (endpoint, key) = (endpoint.to_owned(), Secret::new(key.to_owned()));
        let azure = Azure { endpoint, key, container: "c".into(), ..Azure::default() };
        open(&store(Provider::Azure(azure), "", false), &Options::default()).await
    };
    let storage = opened("https://me:canary@blob.example:10000/", "a2V5").await.unwrap();
    assert_eq!(storage.location("a b.mp4"), "https://blob.example:10000/c/a%20b.mp4");
    let refused = opened("https://me:canary@blob.example:port", "a2V5").await.unwrap_err();
    assert_eq!(refused.to_string(), "Azure upload failed: open: the endpoint is no URL: invalid port number");
    // Azure's crate wants TLS for an identity, and quotes the URL.
    let storage = opened("http://me:canary@blob.example", "").await.unwrap();
    let refused = storage.put("a", Bytes::new(), &Meta::default()).await.unwrap_err();
    assert!(!format!("{refused} {refused:?}").contains("canary"), "{refused:?}");
}

#[cfg(not(feature = "s3"))]
#[tokio::test]
async fn what_was_left_out_of_the_build_names_its_feature() {
    use spillway_plan::destination::{AliOss, S3};
    for provider in [Provider::S3(Box::new(S3::default())), Provider::AliOss(AliOss::default())] {
        let error = open(&store(provider, "", false), &Options::default()).await.unwrap_err();
        assert_eq!(error.kind, StorageErrorKind::NotBuilt);
        assert!(error.to_string().contains("`s3`"), "{error}");
    }
}
