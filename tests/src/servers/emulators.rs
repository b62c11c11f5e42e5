//! Emulators of the clouds' stores, as the set-up installs them: moto (S3, STS), s3s-fs (S3 that checks signatures),
//! Azurite, a Google JSON API. Each on a free loopback port and empty.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::ports::free_port;
use crate::assets::cache;
use crate::process::Process;

/// Python imports for seconds before it listens, more on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Access key of [`Emulator::s3s`].
pub const KEY: &str = "AKIDSTAGE00000000000";
/// Of `KEY`.
pub const SECRET: &str = "stage-secret";

/// Azurite's only account.
pub const AZURE_ACCOUNT: &str = "devstoreaccount1";
/// Its published key.
pub const AZURE_KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// One running emulator; ends when dropped.
pub struct Emulator {
    // Dropped in this order.
    process: Process,
    folder: TempDir,
    /// `127.0.0.1:port`
    pub address: String,
}

impl Emulator {
    /// S3 and STS that accept any key. A bucket is created by a request.
    pub fn moto() -> Result<Self> {
        python("moto", "s3.py", include_str!("../../assets/emulators/s3.py"))
    }

    /// Google's JSON API with a bucket `recordings`. [`moto`](Self::moto) stands in for the XML API.
    pub fn google() -> Result<Self> {
        python("google", "gcs.py", include_str!("../../assets/emulators/gcs.py"))
    }

    /// S3 that accepts [`KEY`] with [`SECRET`] only. Buckets are folders below [`folder`](Self::folder).
    pub fn s3s() -> Result<Self> {
        let program = installed(cache().join("bin/s3s-fs"))?;
        start("s3s-fs", program, |command, port, folder| {
            command.args(["--host", "127.0.0.1", "--port", port, "--access-key", KEY, "--secret-key", SECRET]);
            command.arg(folder.join("buckets"));
        })
    }

    /// Azure Blob Storage. The account is part of the path: `/devstoreaccount1`.
    pub fn azurite() -> Result<Self> {
        let script = installed(cache().join("npm-azurite/node_modules/azurite/dist/src/blob/main.js"))?;
        start("azurite", PathBuf::from("/usr/bin/env"), |command, port, _| {
            command.arg("node").arg(&script).args(["--blobHost", "127.0.0.1", "--blobPort", port]);
            command.args(["--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--silent"]);
        })
    }

    /// `http://` and the address.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Folder of the buckets of [`s3s`](Self::s3s).
    pub fn folder(&self) -> PathBuf {
        self.folder.path().join("buckets")
    }

    /// End of its log.
    pub fn tail(&self) -> String {
        self.process.tail()
    }
}

fn python(name: &str, file: &str, script: &str) -> Result<Emulator> {
    let program = installed(cache().join("venv-emulators/bin/python"))?;
    start(name, program, |command, port, folder| {
        let path = folder.join(file);
        std::fs::write(&path, script).expect("the folder of the emulator is writable");
        command.arg(path).arg(port);
    })
}

fn installed(path: PathBuf) -> Result<PathBuf> {
    ensure!(path.exists(), "no {}: `cargo verify` installs it", path.display());
    Ok(path)
}

fn start(
    name: &str,
    program: PathBuf,
    prepare: impl FnOnce(&mut std::process::Command, &str, &std::path::Path),
) -> Result<Emulator> {
    let folder = tempfile::Builder::new().prefix("spillway-store-").tempdir().context("make a folder")?;
    std::fs::create_dir(folder.path().join("buckets")).context("make a folder")?;
    let address = format!("127.0.0.1:{}", free_port()?);
    let port = address.rsplit(':').next().unwrap_or_default().to_owned();
    let mut process =
        Process::start(name, &program, folder.path(), "emulator", |command| prepare(command, &port, folder.path()))?;
    process.wait_until(START_TIMEOUT, || std::net::TcpStream::connect(&address).is_ok())?;
    Ok(Emulator { process, folder, address })
}
