//! Stands in for `spillway-media` in the runner's tests: speaks the same messages over the same socket pair and writes real
//! files, but what it does is a script, and the script is the room's name: behaviours joined by `-`.
//!
//! `wait` never starts · `record` records until stopped · `die` aborts while recording · `exit3` leaves with a code ·
//! `mute` stops talking · `deaf` ignores the stop · `full`, `evicted`, `refused`, `closed` end that way · `degraded`,
//! `environment`, `nonsense` say so · `other` joins another room of the same name · `again` goes on in other files, as after
//! a change of codec · `two` writes two outputs, and with `lose1` the second one fails alone · `nofile` writes no file · `mp4`
//! writes as the muxer of MP4 does, and with `boxes` what can be read as one · `fast` writes ten megabytes a second. An HLS
//! output of the plan has segments of 100 ms, an image output an image each 100 ms; with `late` both begin 300 ms after the
//! first media. Streams are connected at once, or with `wedge` tried again and again; `fail1` fails the stream of that id,
//! after 300 ms. `stillborn` dies before it joins the room, `unopened`
//! when its files are made and empty. With `once` faults are those of the first process alone, and with
//! `away` the process that takes its place finds nobody, and waits. Faults come 300 ms after the first media, with `aged` 1.5 s.
//! `tokens` says how often a newer token was given before.

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use spillway_ipc::framing::{EventWriter, media_endpoint};
use spillway_ipc::{
    MediaCommand, MediaEndReason, MediaEvent, Quality, SpoolError, SpoolFile, StreamLag, StreamState, TrackFacts,
    image_file, segment_file,
};
use spillway_plan::segment_name::SegmentFormat;
use spillway_plan::{Container, ImageCodec, OutputKind, Secret};

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

/// A file while it is written.
struct ScriptedFile {
    number: u32,
    output: u32,
    spool: SpoolFile,
    container: Container,
    began: Instant,
    started_at: i64,
}

impl ScriptedFile {
    fn wrote(&self) -> MediaEvent {
        MediaEvent::Wrote {
            file: self.number,
            end: self.spool.end(),
            sealed_to: self.spool.written().sealed_to(),
            media_ns: self.began.elapsed().as_nanos() as u64,
        }
    }

    /// Answers when it ended.
    fn close(mut self, boxes: bool, degraded: Vec<String>, writer: &EventWriter) -> Result<i64, Box<dyn Error>> {
        if self.container == Container::Mp4 && self.spool.end() > 0 {
            let index = if boxes { boxed(b"moov", &[b'M'; 191]) } else { vec![b'M'; 199] };
            self.spool.append(&index)?;
            self.spool.write_at(32, &mdat(1234))?;
        }
        // A file without media has no length.
        let length = if self.spool.end() == 0 { Duration::ZERO } else { self.began.elapsed() };
        let (started_at, ended_at) = (self.started_at, self.started_at + length.as_nanos() as i64);
        let quality = Quality { media_ms: length.as_millis() as u64, degraded, ..Quality::default() };
        let (file, bytes) = (self.number, self.spool.end());
        writer.send(&MediaEvent::Closed { file, bytes, started_at, ended_at, quality })?;
        Ok(ended_at)
    }
}

fn stream(id: u32, state: StreamState, message: &str) -> MediaEvent {
    MediaEvent::Stream { id, state, message: message.to_owned(), retries: 0, lag_ms: 0 }
}

/// The segments of an HLS output.
struct ScriptedSegments {
    output: u32,
    folder: PathBuf,
    n: u32,
    at_ns: u64,
    /// Of the open one; 0: none is open.
    bytes: u64,
}

impl ScriptedSegments {
    /// Records a little.
    fn step(&mut self, now_ns: u64, writer: &EventWriter) -> Result<(), Box<dyn Error>> {
        if self.bytes > 0 && now_ns >= self.at_ns + 100_000_000 {
            self.close(now_ns, writer)?;
        }
        let (output, n) = (self.output, self.n);
        if self.bytes == 0 {
            let facts = (n == 0).then(TrackFacts::default);
            writer.send(&MediaEvent::SegmentOpen { output, n, at_ns: self.at_ns, facts })?;
        }
        let path = self.folder.join(segment_file::name(output, n, SegmentFormat::MpegTs));
        std::fs::File::options().create(true).append(true).open(path)?.write_all(&[0x47; 1880])?;
        self.bytes += 1880;
        writer.send(&MediaEvent::SegmentWrote { output, n, bytes: self.bytes })?;
        Ok(())
    }

    fn close(&mut self, now_ns: u64, writer: &EventWriter) -> Result<(), Box<dyn Error>> {
        let (output, n, at_ns, bytes) = (self.output, self.n, self.at_ns, self.bytes);
        writer.send(&MediaEvent::Segment { output, n, at_ns, length_ns: now_ns - at_ns, bytes, gap: false })?;
        (self.n, self.at_ns, self.bytes) = (n + 1, now_ns, 0);
        Ok(())
    }

    fn end(mut self, now_ns: u64, writer: &EventWriter) -> Result<(), Box<dyn Error>> {
        if self.bytes > 0 {
            self.close(now_ns, writer)?;
        }
        let quality = Quality { media_ms: now_ns / 1_000_000, ..Quality::default() };
        Ok(writer.send(&MediaEvent::SegmentsEnded { output: self.output, quality })?)
    }
}

/// The images of an image output.
struct ScriptedImages {
    output: u32,
    folder: PathBuf,
    codec: ImageCodec,
    n: u32,
    first_n: u32,
}

impl ScriptedImages {
    /// Records a little.
    fn step(&mut self, now_ns: u64, writer: &EventWriter) -> Result<(), Box<dyn Error>> {
        let (output, n) = (self.output, self.n);
        if now_ns < u64::from(n - self.first_n) * 100_000_000 {
            return Ok(());
        }
        let content = format!("image {n}");
        std::fs::write(self.folder.join(image_file::name(output, n, self.codec)), &content)?;
        let facts = (n == 0).then(|| TrackFacts { publisher_identity: "ann".to_owned(), ..TrackFacts::default() });
        self.n += 1;
        Ok(writer.send(&MediaEvent::Image { output, n, at_ns: now_ns, bytes: content.len() as u64, facts })?)
    }

    fn end(self, now_ns: u64, writer: &EventWriter) -> Result<(), Box<dyn Error>> {
        let quality = Quality { media_ms: now_ns / 1_000_000, ..Quality::default() };
        Ok(writer.send(&MediaEvent::ImagesEnded { output: self.output, quality })?)
    }
}

fn facts() -> TrackFacts {
    TrackFacts { publisher_identity: "ann".into(), track_id: "TR_1".into(), ..TrackFacts::default() }
}

/// Asks for files, each with its output, and opens those that the runner makes; `None`: it says something else, or is gone.
fn open_files(
    commands: &Receiver<MediaCommand>,
    writer: &EventWriter,
    asked: &[(u32, u32)],
    container: Container,
) -> Result<Option<Vec<ScriptedFile>>, Box<dyn Error>> {
    for (file, output) in asked {
        writer.send(&MediaEvent::Opening { file: *file, output: Some(*output), container, facts: facts() })?;
    }
    let mut files = vec![];
    for _ in asked {
        let (number, path, id) = match commands.recv() {
            Ok(MediaCommand::WriteTo { file, path, id }) => (file, path, id),
            Ok(MediaCommand::NoFile { .. }) => continue,
            _ => return Ok(None),
        };
        let Some((_, output)) = asked.iter().find(|(file, _)| *file == number) else { return Ok(None) };
        let spool = SpoolFile::claimed(&path, id, container)?;
        files.push(ScriptedFile { number, output: *output, spool, container, began: Instant::now(), started_at: 0 });
    }
    Ok(Some(files))
}

fn main() -> Result<(), Box<dyn Error>> {
    let (mut reader, writer) = media_endpoint()?;
    let (send, commands) = mpsc::channel();
    std::thread::spawn(move || {
        while let Ok(Some(command)) = reader.recv() {
            let _ = send.send(command);
        }
    });
    let Ok(MediaCommand::Start(start)) = commands.recv() else { return Ok(()) };
    let script = start.plan.room_name.clone();
    let says = |behaviour: &str| script.split('-').any(|part| part == behaviour);
    let is_well = says("once") && start.resume.is_some();
    let does = |behaviour: &str| {
        let is_fault = ["stillborn", "unopened", "die", "exit3", "mute"].contains(&behaviour);
        says(behaviour) && !(is_fault && is_well)
    };
    let resume = start.resume.clone().unwrap_or_default();
    let emit = |event: MediaEvent| writer.send(&event);
    let alive = |media_ns| MediaEvent::Alive { media_ns, lag_ms: 0, backlog_bytes: 0, streams: vec![] };

    emit(alive(0))?;
    if does("stillborn") {
        std::process::abort();
    }
    if does("environment") {
        let mut names: Vec<String> = std::env::vars().map(|(name, _)| name).collect();
        names.sort();
        let score = std::fs::read_to_string("/proc/self/oom_score_adj")?;
        emit(MediaEvent::Noted { message: format!("environment {} oom {}", names.join(" "), score.trim()) })?;
    }
    if does("nonsense") {
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
    if does("tokens") {
        let count = start.token.reveal().matches("-newer").count();
        emit(MediaEvent::Noted { message: format!("{count} newer tokens") })?;
    }
    emit(MediaEvent::Token { token: Secret::new(format!("{}-newer", start.token.reveal())) })?;
    if does("wait") || (does("away") && start.resume.is_some()) {
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

    let bytes = if does("fast") { 200_000 } else { 100 };
    let container = if does("mp4") { Container::Mp4 } else { Container::Ogg };
    let open = |asked: &[(u32, u32)]| open_files(&commands, &writer, asked, container);
    // The second one first: the order of results is the request's.
    let outputs: &[u32] = match (does("nofile") || start.plan.files().next().is_none(), does("two")) {
        (true, _) => &[],
        (false, true) => &[1, 0],
        (false, false) => &[0],
    };
    let going = outputs.iter().filter(|output| !resume.ended_outputs.contains(output));
    let number = |output: &u32| (*resume.first_files.get(output).unwrap_or(output), *output);
    let asked: Vec<(u32, u32)> = going.map(number).collect();
    let Some(mut files) = open(&asked)? else { return Ok(()) };
    if does("unopened") {
        std::process::abort();
    }
    let ahead_ns = start.clock_ahead_ns;
    let unix_ns = || SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_nanos() as i64 + ahead_ns);
    let started_at = unix_ns()?;
    let began = Instant::now();
    for file in &mut files {
        (file.started_at, file.began) = (started_at, began);
    }
    let degraded = if does("degraded") { vec!["frozen for 3.0 s".to_owned()] } else { vec![] };
    let mut changes = u32::from(does("again"));
    let hls = (0u32..).zip(&start.plan.outputs).find(|(_, output)| output.kind() == OutputKind::Segments);
    let first_n = |output: u32| resume.first_numbers.get(&output).copied().unwrap_or_default();
    let mut segments = hls.zip(start.spool.clone()).map(|((output, _), folder)| ScriptedSegments {
        output,
        folder,
        n: first_n(output),
        at_ns: 0,
        bytes: 0,
    });
    let of_images = start.plan.images().zip(std::iter::repeat(start.spool.clone()));
    let mut images: Vec<ScriptedImages> = of_images
        .filter_map(|((output, images), folder)| {
            let first_n = first_n(output);
            Some(ScriptedImages { output, folder: folder?, codec: images.codec, n: first_n, first_n })
        })
        .collect();
    // Outputs take the first unit before it is told of.
    if let Some(segments) = segments.as_mut().filter(|_| !does("late")) {
        segments.step(0, &writer)?;
    }
    emit(MediaEvent::Started { at: started_at, facts: Some(facts()) })?;
    let connected = |id| {
        let at = unix_ns()?;
        let wedged = does("wedge").then(|| stream(id, StreamState::Retrying { at }, "no answer"));
        emit(stream(id, StreamState::Connecting, ""))?;
        emit(wedged.unwrap_or_else(|| stream(id, StreamState::Active { at }, "")))?;
        Ok::<(), Box<dyn Error>>(())
    };
    let mut live: Vec<u32> = start.streams.iter().map(|stream| stream.id).collect();
    for id in &live {
        connected(*id)?;
    }
    let failing: Vec<u32> = script.split('-').filter_map(|part| part.strip_prefix("fail")?.parse().ok()).collect();
    let elapsed_ns = || began.elapsed().as_nanos() as u64;
    let why = loop {
        let old_enough = began.elapsed() > Duration::from_millis(if says("aged") { 1500 } else { 300 });
        let is_mute = old_enough && does("mute");
        for file in &mut files {
            if does("boxes") {
                fragment(&mut file.spool, bytes)?;
            } else {
                step(&mut file.spool, container, bytes)?;
            }
            if !is_mute {
                emit(file.wrote())?;
            }
        }
        if !does("late") || old_enough {
            if let Some(segments) = &mut segments {
                segments.step(elapsed_ns(), &writer)?;
            }
            for images in &mut images {
                images.step(elapsed_ns(), &writer)?;
            }
        }
        if !is_mute {
            let streams = live.iter().map(|id| StreamLag { id: *id, lag_ms: 40 }).collect();
            emit(MediaEvent::Alive { media_ns: elapsed_ns(), lag_ms: 0, backlog_bytes: 0, streams })?;
        }
        if old_enough && changes > 0 {
            changes -= 1;
            let behind = resume.next_file.max(start.plan.outputs.len() as u32);
            let next: Vec<(u32, u32)> = (behind..).zip(files.iter().map(|file| file.output)).collect();
            let mut ended_at = 0;
            for file in files.drain(..) {
                ended_at = file.close(does("boxes"), degraded.clone(), &writer)?;
            }
            let Some(opened) = open(&next)? else { return Ok(()) };
            files = opened;
            files.iter_mut().for_each(|file| file.started_at = ended_at);
        }
        if old_enough
            && does("lose1")
            && let Some(at) = files.iter().position(|file| file.output == 1)
        {
            let (lost, message) = (files.remove(at), "no space left on the disk".to_owned());
            let (output, file) = (lost.output, Some(lost.number));
            emit(MediaEvent::OutputFailed { output, file, full: true, code: "internal".into(), message })?;
            lost.close(does("boxes"), degraded.clone(), &writer)?;
        }
        if old_enough {
            for id in live.extract_if(.., |id| failing.contains(id)) {
                let state = StreamState::Failed { at: unix_ns()?, code: "unavailable".into() };
                emit(stream(id, state, "the server refused the stream"))?;
            }
        }
        match commands.recv_timeout(STEP) {
            Ok(MediaCommand::AddStream(start)) => {
                live.push(start.id);
                connected(start.id)?;
            }
            Ok(MediaCommand::RemoveStream { id }) => {
                if let Some(at) = live.iter().position(|live| *live == id) {
                    emit(stream(live.remove(at), StreamState::Finished { at: unix_ns()? }, ""))?;
                }
            }
            Ok(MediaCommand::Stop) if !does("deaf") => break MediaEndReason::Stopped,
            Ok(MediaCommand::CloseOutput { output }) => {
                if let Some(at) = files.iter().position(|file| file.output == output) {
                    files.remove(at).close(does("boxes"), degraded.clone(), &writer)?;
                }
            }
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
    for id in live {
        emit(stream(id, StreamState::Finished { at: unix_ns()? }, ""))?;
    }
    for file in files {
        file.close(does("boxes"), degraded.clone(), &writer)?;
    }
    if let Some(segments) = segments {
        segments.end(elapsed_ns(), &writer)?;
    }
    for images in images {
        images.end(elapsed_ns(), &writer)?;
    }
    Ok(emit(MediaEvent::Ended { why })?)
}
