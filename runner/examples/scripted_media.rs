//! Stands in for `spillway-media` in the runner's tests: speaks the same messages over the same socket pair and writes real
//! files, but what it does is a script, and the script is the room's name: behaviours joined by `-`.
//!
//! `wait` never starts · `record` records until stopped · `die` aborts while recording · `exit3` leaves with a code ·
//! `mute` stops talking · `deaf` ignores the stop · `full`, `evicted`, `refused`, `closed` end that way · `degraded`,
//! `environment`, `nonsense` say so. `mp4` writes as the muxer of MP4 does, and with `boxes`
//! what can be read as one; `fast` writes ten megabytes a second.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use spillway_ipc::framing::media_endpoint;
use spillway_ipc::{MediaCommand, MediaEndReason, MediaEvent, Quality, SpoolError, SpoolFile, TrackFacts};
use spillway_plan::Container;

/// How often the script records a little.
const STEP: Duration = Duration::from_millis(20);

/// What byte `at` of every file is, where nothing else is written: an object in the wrong order is noticed.
fn media(at: u64) -> u8 {
    (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

fn mdat(size: u32) -> [u8; 16] {
    let mut head = *b"\0\0\0\x08free\0\0\0\0mdat";
    head[8..12].copy_from_slice(&size.to_be_bytes());
    head
}

fn boxed(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
    [&(content.len() as u32 + 8).to_be_bytes(), &name[..], content].concat()
}

/// A fragment that says where its data lies, behind everything that describes.
fn fragment(file: &mut SpoolFile, bytes: u64) -> Result<(), SpoolError> {
    if file.end() == 0 {
        let parts = [boxed(b"ftyp", &[b'f'; 24]), boxed(b"free", &[0; 8]), boxed(b"moov", &[b'm'; 200])];
        file.append(&parts.concat())?;
    }
    file.append(&mdat(0))?;
    let at = file.end();
    let tfhd = boxed(b"tfhd", &[&[0, 0, 0, 1, 0, 0, 0, 1][..], &at.to_be_bytes()].concat());
    let moof = boxed(b"moof", &boxed(b"traf", &tfhd));
    let data = (at..at + bytes).map(media).chain(moof).collect::<Vec<u8>>();
    file.append(&data)?;
    file.write_at(at - 16, &mdat(bytes as u32 + 8))
}

fn step(file: &mut SpoolFile, container: Container, bytes: u64) -> Result<(), SpoolError> {
    if container == Container::Mp4 {
        if file.end() == 0 {
            file.append(&[b'f'; 300])?;
        }
        file.append(&mdat(0))?;
    }
    let at = file.end();
    file.append(&(at..at + bytes).map(media).collect::<Vec<u8>>())?;
    if container == Container::Mp4 {
        file.write_at(at - 16, &mdat(bytes as u32 + 8))?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut reader, writer) = media_endpoint()?;
    let (send, commands) = mpsc::channel();
    std::thread::spawn(move || {
        while let Ok(Some(command)) = reader.recv() {
            let _ = send.send(command);
        }
    });
    let Ok(MediaCommand::Start(start)) = commands.recv() else { return Ok(()) };
    let script = start.plan.room_name.clone();
    let does = |behaviour: &str| script.split('-').any(|part| part == behaviour);
    let emit = |event: MediaEvent| writer.send(&event);
    let alive = |media_ns| MediaEvent::Alive { media_ns, lag_ms: 0, backlog_bytes: 0 };

    emit(alive(0))?;
    if does("environment") {
        let mut names: Vec<String> = std::env::vars().map(|(name, _)| name).collect();
        names.sort();
        let score = std::fs::read_to_string("/proc/self/oom_score_adj")?;
        emit(MediaEvent::Noted { message: format!("environment {} oom {}", names.join(" "), score.trim()) })?;
    }
    if does("nonsense") {
        use std::io::Write;
        use std::os::fd::AsFd;
        let mut raw = std::os::unix::net::UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
        raw.write_all(b"{\"event\":\"of a newer version\"}\n")?;
    }
    if does("refused") {
        let why = MediaEndReason::Failed { code: "unauthenticated".into(), message: "server refuses the token".into() };
        return Ok(emit(MediaEvent::Ended { why })?);
    }
    let room_id = if does("other") { "RM_other" } else { "RM_scripted" };
    emit(MediaEvent::Joined { room_id: room_id.into(), room_name: script.clone() })?;
    if does("wait") {
        emit(MediaEvent::Waiting { what: "waiting for the first track".into() })?;
        loop {
            match commands.recv_timeout(Duration::from_millis(200)) {
                Ok(MediaCommand::Stop) if does("deaf") => {}
                Ok(MediaCommand::Stop) => return Ok(emit(MediaEvent::Ended { why: MediaEndReason::Stopped })?),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => emit(alive(0))?,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    let facts = TrackFacts { publisher_identity: "ann".into(), track_id: "TR_1".into(), ..TrackFacts::default() };
    let container = if does("mp4") { Container::Mp4 } else { Container::Ogg };
    let bytes = if does("fast") { 200_000 } else { 100 };
    emit(MediaEvent::Opening { file: 0, container, facts })?;
    let Ok(MediaCommand::WriteTo { file: 0, path, id }) = commands.recv() else { return Ok(()) };
    let mut file = SpoolFile::claimed(&path, id, container)?;
    let started_at = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as i64 + start.clock_ahead_ns;
    emit(MediaEvent::Started { at: started_at })?;
    let began = Instant::now();
    let why = loop {
        if does("boxes") {
            fragment(&mut file, bytes)?;
        } else {
            step(&mut file, container, bytes)?;
        }
        let media_ns = began.elapsed().as_nanos() as u64;
        if !does("mute") {
            emit(MediaEvent::Wrote { file: 0, end: file.end(), sealed_to: file.written().sealed_to(), media_ns })?;
            emit(alive(media_ns))?;
        }
        let old_enough = began.elapsed() > Duration::from_millis(300);
        match commands.recv_timeout(STEP) {
            Ok(MediaCommand::Stop) if !does("deaf") => break MediaEndReason::Stopped,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
            _ if !old_enough => {}
            _ if does("die") => std::process::abort(),
            _ if does("exit3") => std::process::exit(3),
            _ if does("full") => break MediaEndReason::Full { message: "no space left on the disk".into() },
            _ if does("evicted") => break MediaEndReason::Evicted,
            _ if does("closed") => break MediaEndReason::SourceClosed { message: "the room was closed".into() },
            _ => {}
        }
    };
    if container == Container::Mp4 {
        let index = if does("boxes") { boxed(b"moov", &[b'M'; 191]) } else { vec![b'M'; 199] };
        file.append(&index)?;
        file.write_at(32, &mdat(1234))?;
    }
    let degraded = if does("degraded") { vec!["frozen for 3.0 s".to_owned()] } else { vec![] };
    let ended_at = started_at + began.elapsed().as_nanos() as i64;
    let quality = Quality { media_ms: began.elapsed().as_millis() as u64, degraded, ..Quality::default() };
    emit(MediaEvent::Closed { file: 0, bytes: file.end(), started_at, ended_at, quality })?;
    Ok(emit(MediaEvent::Ended { why })?)
}
