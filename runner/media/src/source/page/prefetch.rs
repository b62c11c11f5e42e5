//! Chromium's files, read in one go before it is started: from a cold disk it would fetch 350 MB a few pages at a time. What is
//! in memory already is left alone. On a thread of its own, for which nothing waits.

use std::fs::{self, File};
use std::io::{self, IoSliceMut, Read};
use std::path::Path;
use std::thread::Builder;
use std::time::Instant;

use rustix::io::{Errno, ReadWriteFlags, preadv2};
use tracing::{debug, info};

/// Smaller files are read soon enough when they are asked for.
const MIN_BYTES: u64 = 1 << 20;
const BUFFER_BYTES: usize = 1 << 20;
/// Places of a file that are looked at.
const SAMPLES: u64 = 32;

/// Reads what lies beside `program`, and the program itself.
pub(super) fn start(program: &Path) {
    let Some(folder) = program.parent().map(Path::to_owned) else { return };
    let run = move || {
        let begun = Instant::now();
        match read(&folder) {
            Ok(0) => {}
            Ok(bytes) => info!(bytes, took = ?begun.elapsed(), "the browser was read from its disk"),
            // Its start will tell why.
            Err(error) => debug!(%error, "the browser's files are not read"),
        }
    };
    if let Err(error) = Builder::new().name("page prefetch".to_owned()).spawn(run) {
        debug!(%error, "no thread reads the browser's files");
    }
}

/// Gives the bytes that were read.
fn read(folder: &Path) -> io::Result<u64> {
    let (mut buffer, mut bytes) = (Vec::new(), 0);
    for entry in fs::read_dir(folder)? {
        // One that we may not read, Chromium does not read either.
        let Ok(mut file) = File::open(entry?.path()) else { continue };
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.len() < MIN_BYTES || is_in_memory(&file, metadata.len()) {
            continue;
        }
        buffer.resize(BUFFER_BYTES, 0);
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                count => bytes += count as u64,
            }
        }
    }
    Ok(bytes)
}

/// By samples. A file system that cannot say counts as memory: nothing is read for nothing.
fn is_in_memory(file: &File, length: u64) -> bool {
    (0..SAMPLES).all(|sample| {
        let mut byte = [0];
        let mut place = [IoSliceMut::new(&mut byte)];
        preadv2(file, &mut place, length / SAMPLES * sample, ReadWriteFlags::NOWAIT) != Err(Errno::AGAIN)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_memory_is_not_read_again() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("large"), vec![1; 3 << 20]).unwrap();
        fs::write(folder.path().join("small"), b"x").unwrap();
        fs::create_dir(folder.path().join("locales")).unwrap();
        assert_eq!(read(folder.path()).unwrap(), 0);
        assert!(read(&folder.path().join("missing")).is_err());
        start(Path::new("/nonexistent/chromium"));
    }
}
