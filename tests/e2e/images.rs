//! Images of a composite and of tracks: how many, when, how large, under which names, and what is said of them. And the poster,
//! contact sheet and thumbnails beside a file.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use spillway_tests::analyser::copied::compare;
use spillway_tests::analyser::picture::{self, TileReading};
use spillway_tests::analyser::{probe, stream};
use spillway_tests::assets::{clip, person as test_person};
use spillway_tests::egress::{Egress, complete_all, nanos};
use spillway_tests::every_output::TestRoom;
use spillway_tests::process::eventually;
use spillway_tests::publisher::{Publisher, PublisherOptions, SourceKind};
use spillway_tests::servers::TestServers;
use spillway_tests::servers::bucket::TestBucket;

use crate::harness::{E2eHarness, alone, block_on, case, tidy};
use crate::publishers::person;
use crate::recording_probe::RecordingProbe;

/// Of a clip, a second.
const FRAMES: i32 = 30;
/// Frames of a clip, which then begins anew.
const LOOP: i32 = 600;
const SECONDS: u64 = 8;

pub fn cases() -> Vec<Trial> {
    vec![
        case("images::room_composite", |harness| async move { room_composite(&harness).await }),
        case("images::every_format_and_name", |harness| async move { every_format_and_name(&harness).await }),
        case("images::tracks_beside_a_copy", |harness| async move { tracks_beside_a_copy(&harness).await }),
        case("images::larger_than_the_picture", |harness| async move { larger(&harness).await }),
        case("images::participant_alone", |harness| async move { participant_alone(&harness).await }),
        case("images::beside_an_mp4_and_hls", |harness| async move { beside_an_mp4_and_hls(&harness).await }),
        alone("images::on_s3", || block_on(on_s3())),
        alone("images::thumbnails", || block_on(thumbnails())),
    ]
}

/// A folder of the shared servers for a case's output.
fn folder(harness: &E2eHarness, kind: &str) -> PathBuf {
    harness.file(&format!("images-{kind}"))
}

/// An image each second.
pub fn each_second(prefix: &Path) -> Value {
    json!({ "capture_interval": 1, "filename_prefix": prefix.to_string_lossy() })
}

/// Starts an egress, lets it record, and gives its final info.
async fn recorded(harness: &E2eHarness, method: &str, request: Value) -> Result<Value> {
    let egress = Egress::start(harness.api(), method, request).await?;
    egress.active().await?;
    tokio::time::sleep(Duration::from_secs(SECONDS)).await;
    egress.complete().await
}

/// Files of a folder whose names begin so and end so, in order of their names.
pub fn images(folder: &Path, begins: &str, ends: &str) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("no folder {}", folder.display()))?;
    let mut images = vec![];
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with(begins) && name.ends_with(ends) {
            images.push(folder.join(name));
        }
    }
    images.sort();
    Ok(images)
}

/// What one image shows of p0. It has this codec and size.
fn looked_at(image: &Path, codec: &str, (width, height): (u64, u64)) -> Result<TileReading> {
    let probed = probe(image)?;
    let video = stream(&probed, "video").with_context(|| format!("{} is no picture", image.display()))?;
    ensure!(video["codec_name"] == codec, "{}: {video}", image.display());
    ensure!(video["width"] == width && video["height"] == height, "{}: {video}", image.display());
    let pictures = picture::analyse(image)?;
    let (_, reading) = pictures.of(test_person("p0")).next().context("no frame")?;
    reading.with_context(|| format!("p0 is not in {}", image.display()))
}

/// Each image shows p0 a second later than the one before it, as many as there were seconds.
fn a_second_apart(images: &[PathBuf], codec: &str, size: (u64, u64)) -> Result<()> {
    let readings = images.iter().map(|image| looked_at(image, codec, size)).collect::<Result<Vec<_>>>()?;
    ensure!((SECONDS as usize..=SECONDS as usize + 2).contains(&readings.len()), "{} images", readings.len());
    let numbers: Vec<i32> = readings.iter().filter_map(|reading| reading.number).map(i32::from).collect();
    println!("{}: frames {numbers:?}", images[0].display());
    ensure!(numbers.len() + 1 >= readings.len(), "bar codes cannot be read: {readings:?}");
    let steps: Vec<i32> = numbers.windows(2).map(|pair| (pair[1] - pair[0]).rem_euclid(LOOP)).collect();
    // A code that could not be read makes one step of two seconds.
    let other = |step: &&i32| (**step - FRAMES).abs() > 2 && (**step - 2 * FRAMES).abs() > 2;
    ensure!(!steps.iter().any(|step| other(&step)), "steps {steps:?}");
    Ok(())
}

/// Count and times of `image_results` are those of the files.
pub fn as_told(told: &Value, prefix: &Path, count: usize) -> Result<()> {
    ensure!(nanos(&told["image_count"]) as usize == count, "{count} images, said was {told}");
    ensure!(told["filename_prefix"] == *prefix.to_string_lossy(), "{told}");
    let span = (nanos(&told["ended_at"]) - nanos(&told["started_at"])) as f64 / 1e9;
    ensure!((span - (count as f64 - 1.0)).abs() < 0.1, "{count} images in {span} s: {told}");
    Ok(())
}

fn manifest(info: &Value, folder: &Path) -> Result<Value> {
    let id = info["egress_id"].as_str().unwrap_or_default();
    let path = folder.join(format!("{id}.json"));
    serde_json::from_slice(&std::fs::read(&path).context("no manifest")?).context("read the manifest")
}

async fn room_composite(harness: &E2eHarness) -> Result<()> {
    let (room, folder) = (harness.room("images"), folder(harness, "room"));
    let _p0 = person(harness, &room, "p0", "p0-360.h264").await?;
    let prefix = folder.join("pic");
    let request = json!({
        "room_name": room, "layout": "speaker", "image_outputs": [each_second(&prefix)],
    });
    let egress = Egress::start(harness.api(), "StartRoomCompositeEgress", request).await?;
    egress.active().await?;
    eventually("two images are there while more are made", Duration::from_secs(10), || async {
        Ok((images(&folder, "pic_", ".jpeg").map_or(0, |images| images.len()) >= 2).then_some(()))
    })
    .await?;
    tokio::time::sleep(Duration::from_secs(SECONDS - 2)).await;
    let info = egress.complete().await?;
    let images = images(&folder, "pic_", ".jpeg")?;
    ensure!(images[0].ends_with("pic_00000.jpeg"), "{images:?}");
    a_second_apart(&images, "mjpeg", (1280, 720))?;
    as_told(&info["image_results"][0], &prefix, images.len())?;
    ensure!(info["file_results"].as_array().is_none_or(Vec::is_empty), "{info}");
    let manifest = manifest(&info, &folder)?;
    let listed = manifest["images"].as_array().context("no images in the manifest")?;
    ensure!(listed.len() == images.len() && manifest["quality"].is_object(), "{manifest}");
    ensure!(listed[0]["location"] == *images[0].to_string_lossy(), "{manifest}");
    ensure!(info["manifest_location"].as_str().is_some_and(|at| at.starts_with(&*folder.to_string_lossy())), "{info}");
    Ok(())
}

/// Three outputs of one egress.
async fn every_format_and_name(harness: &E2eHarness) -> Result<()> {
    let (room, folder) = (harness.room("images-names"), folder(harness, "names"));
    let _p0 = person(harness, &room, "p0", "p0-360.h264").await?;
    let prefixes = ["time", "small.png", "latest.webp"].map(|name| folder.join(name));
    let mut outputs = prefixes.each_ref().map(|prefix| each_second(prefix));
    outputs[0]["filename_suffix"] = json!("IMAGE_SUFFIX_TIMESTAMP");
    (outputs[1]["width"], outputs[1]["height"]) = (json!(640), json!(480));
    outputs[2]["filename_suffix"] = json!("IMAGE_SUFFIX_NONE_OVERWRITE");
    (outputs[2]["width"], outputs[2]["height"]) = (json!(640), json!(360));
    let request = json!({ "room_name": room, "layout": "speaker", "image_outputs": outputs });
    let info = recorded(harness, "StartRoomCompositeEgress", request).await?;
    let by_time = images(&folder, "time_", ".jpeg")?;
    // `time_` and 17 digits.
    let lengths = by_time.iter().filter_map(|image| image.file_name()).map(|name| name.len());
    ensure!(lengths.clone().all(|length| length == 27), "{by_time:?}");
    a_second_apart(&by_time, "mjpeg", (1280, 720))?;
    let small = images(&folder, "small_", ".png")?;
    a_second_apart(&small, "png", (640, 480))?;
    let latest = images(&folder, "latest", ".webp")?;
    ensure!(latest.len() == 1, "{latest:?}");
    looked_at(&latest[0], "webp", (640, 360))?;
    let told = info["image_results"].as_array().context("no image_results")?;
    ensure!(told.len() == 3, "{info}");
    as_told(&told[0], &prefixes[0], by_time.len())?;
    as_told(&told[1], &prefixes[1], small.len())?;
    ensure!(nanos(&told[2]["image_count"]) >= SECONDS as i64 / 2, "{}", told[2]);
    Ok(())
}

/// The file is a copy as without images, and these are as large as the published picture.
async fn tracks_beside_a_copy(harness: &E2eHarness) -> Result<()> {
    let (room, folder) = (harness.room("images-tracks"), folder(harness, "tracks"));
    let (_p0, video, audio) = person(harness, &room, "p0", "p0-360.h264").await?;
    let file = harness.file("images-tracks-{time}.mp4");
    let request = json!({
        "room_name": room, "video_track_id": video, "audio_track_id": audio,
        "image_outputs": [each_second(&folder.join("tc_{publisher_identity}_h264"))],
        "file_outputs": [{ "filepath": file.to_string_lossy(), "file_type": "MP4" }],
    });
    let info = recorded(harness, "StartTrackCompositeEgress", request).await?;
    let images = images(&folder, "tc_p0_h264_", ".jpeg")?;
    a_second_apart(&images, "mjpeg", (640, 360))?;
    as_told(&info["image_results"][0], &folder.join("tc_p0_h264"), images.len())?;
    let mp4 = RecordingProbe::open(&info)?;
    let comparison = compare(&mp4.path, &*clip("p0-360.h264")?)?;
    println!("{} {comparison}", mp4.name());
    ensure!(comparison.perfect(), "{comparison:?}");
    mp4.shows("p0", &mp4.whole(), &[])?;
    mp4.in_sync("p0")?;
    let manifest = mp4.has_manifest()?;
    ensure!(manifest["images"].as_array().map(Vec::len) == Some(images.len()), "{manifest}");
    Ok(())
}

/// Of a composite in 360p and of a media source without sound.
async fn larger(harness: &E2eHarness) -> Result<()> {
    let (room, folder) = (harness.room("images-larger"), folder(harness, "larger"));
    let (_p0, video, _) = person(harness, &room, "p0", "p0-360.h264").await?;
    let [composed, chosen] = ["composed", "chosen"].map(|name| {
        let mut output = each_second(&folder.join(name));
        output["filename_suffix"] = json!("IMAGE_SUFFIX_TIMESTAMP");
        (output["width"], output["height"]) = (json!(1280), json!(720));
        output
    });
    let requests = [
        (
            "StartRoomCompositeEgress",
            json!({
                "room_name": room, "layout": "speaker", "advanced": { "width": 640, "height": 360 },
                "image_outputs": [composed],
            }),
        ),
        (
            "StartEgress",
            json!({ "room_name": room, "media": { "video_track_id": video }, "outputs": [{ "images": chosen }] }),
        ),
    ];
    let mut egresses = vec![];
    for (method, request) in requests {
        egresses.push(Egress::start(harness.api(), method, request).await?);
    }
    for egress in &egresses {
        egress.active().await?;
    }
    // The first one has begun a second or two before the second.
    tokio::time::sleep(Duration::from_secs(SECONDS - 1)).await;
    let infos = complete_all(&egresses).await?;
    for (info, name) in infos.iter().zip(["composed", "chosen"]) {
        let images = images(&folder, &format!("{name}_"), ".jpeg")?;
        a_second_apart(&images, "mjpeg", (1280, 720))?;
        as_told(&info["image_results"][0], &folder.join(name), images.len())?;
    }
    Ok(())
}

/// VP8, which is decoded; nothing is encoded but images.
async fn participant_alone(harness: &E2eHarness) -> Result<()> {
    let (room, folder) = (harness.room("images-participant"), folder(harness, "participant"));
    let _p0 = person(harness, &room, "p0", "p0-360.vp8.ivf").await?;
    let prefix = folder.join("p");
    let request = json!({ "room_name": room, "identity": "p0", "image_outputs": [each_second(&prefix)] });
    let info = recorded(harness, "StartParticipantEgress", request).await?;
    let images = images(&folder, "p_", ".jpeg")?;
    a_second_apart(&images, "mjpeg", (640, 360))?;
    as_told(&info["image_results"][0], &prefix, images.len())
}

/// One composition for all.
async fn beside_an_mp4_and_hls(harness: &E2eHarness) -> Result<()> {
    let (room, folder) = (harness.room("images-file"), folder(harness, "file"));
    let _p0 = person(harness, &room, "p0", "p0-360.h264").await?;
    let (file, prefix) = (harness.file("images-file-{time}.mp4"), folder.join("pic"));
    let request = json!({
        "room_name": room, "layout": "speaker", "image_outputs": [each_second(&prefix)],
        "file_outputs": [{ "filepath": file.to_string_lossy(), "file_type": "MP4" }],
        "segment_outputs": [{ "filename_prefix": folder.join("part").to_string_lossy(), "segment_duration": 2 }],
    });
    let info = recorded(harness, "StartRoomCompositeEgress", request).await?;
    let images = images(&folder, "pic_", ".jpeg")?;
    a_second_apart(&images, "mjpeg", (1280, 720))?;
    as_told(&info["image_results"][0], &prefix, images.len())?;
    ensure!(nanos(&info["segment_results"][0]["segment_count"]) >= 3, "{info}");
    let mp4 = RecordingProbe::open(&info)?;
    mp4.is_h264("Main", 1280, 720)?;
    mp4.shows("p0", &mp4.whole(), &[])?;
    mp4.moves("p0", 29.0)?;
    mp4.in_sync("p0")?;
    let begun = nanos(&info["file_results"][0]["started_at"]);
    let first = nanos(&info["image_results"][0]["started_at"]);
    ensure!((first - begun).abs() < 50_000_000, "the first image is {} ns after the file's beginning", first - begun);
    Ok(())
}

async fn on_s3() -> Result<()> {
    let servers = TestServers::start("").await?;
    let bucket = TestBucket::s3().await?;
    let spool = servers.folder().join("spool");
    let more = format!("runner: {{ checkpoint: 2s, spool_dir: {} }}\n", spool.display());
    let _dispatcher = servers.dispatcher("dispatcher", &more).await?;
    let _room = TestRoom::open(&servers.api, "images").await?;
    let mut output = each_second(Path::new("calls/pic"));
    if let Some((provider, upload)) = bucket.upload() {
        output[provider] = upload;
    }
    let request = json!({ "room_name": "images", "layout": "speaker", "image_outputs": [output] });
    let egress = Egress::start(&servers.api, "StartRoomCompositeEgress", request).await?;
    egress.active().await?;
    eventually("an image is stored while more are made", Duration::from_secs(5), || async {
        Ok(bucket.read("calls/pic_00001.jpeg").await?.map(|_| ()))
    })
    .await?;
    tokio::time::sleep(Duration::from_secs(SECONDS - 2)).await;
    let (info, took) = egress.stop().await?;
    ensure!(info["status"] == "EGRESS_COMPLETE" && info["backup_storage_used"] == false, "{info}");
    println!("COMPLETE {took:.2?} after the stop");
    let folder = servers.folder().join("fetched");
    std::fs::create_dir_all(&folder).context("make a folder")?;
    let mut images = vec![];
    while let Some(bytes) = bucket.read(&format!("calls/pic_{:05}.jpeg", images.len())).await? {
        let path = folder.join(format!("pic_{:05}.jpeg", images.len()));
        std::fs::write(&path, &bytes)?;
        images.push(path);
    }
    a_second_apart(&images, "mjpeg", (1280, 720))?;
    as_told(&info["image_results"][0], Path::new("calls/pic"), images.len())?;
    let store = bucket.store().await?;
    let key = format!("calls/{}.json", egress.id);
    ensure!(info["manifest_location"] == store.location(&key).as_str(), "{info}");
    let manifest = bucket.read(&key).await?.context("no manifest")?;
    let manifest: Value = serde_json::from_slice(&manifest).context("read the manifest")?;
    let listed = manifest["images"].as_array().context("no images in the manifest")?;
    ensure!(listed.len() == images.len() && listed[0]["filename"] == "calls/pic_00000.jpeg", "{manifest}");
    ensure!(listed[0]["location"] == store.location("calls/pic_00000.jpeg").as_str(), "{manifest}");
    tidy(&servers, Some(&bucket)).await
}

/// Beside a composed file and beside a copied one, whose pictures are decoded for nothing else.
async fn thumbnails() -> Result<()> {
    let servers = TestServers::start("").await?;
    let spool = servers.folder().join("spool");
    let settings = format!("spool_dir: {}, poster: true, contact_sheet: true, thumbnails: 1s", spool.display());
    let _dispatcher = servers.dispatcher("dispatcher", &format!("runner: {{ {settings} }}\n")).await?;
    let p0 = Publisher::join(&servers.api, "sheets", "p0", PublisherOptions::default()).await?;
    let picture = p0.publish(&clip("p0-360.h264")?, SourceKind::Camera).await?;
    let sound = p0.publish(&clip("p0.opus")?, SourceKind::Microphone).await?;
    let folder = servers.folder().join("files");
    let file = |name: &str| json!([{ "filepath": folder.join(name).to_string_lossy(), "file_type": "MP4" }]);
    let composed = json!({ "room_name": "sheets", "layout": "speaker", "file_outputs": file("all of #1.mp4") });
    let copied = json!({
        "room_name": "sheets", "video_track_id": picture, "audio_track_id": sound, "file_outputs": file("p0.mp4"),
    });
    let composed = Egress::start(&servers.api, "StartRoomCompositeEgress", composed).await?;
    let copied = Egress::start(&servers.api, "StartTrackCompositeEgress", copied).await?;
    composed.active().await?;
    copied.active().await?;
    tokio::time::sleep(Duration::from_secs(SECONDS)).await;
    let (composed, copied) = (composed.complete().await?, copied.complete().await?);
    let composed = has_sheets(&composed, (1280, 720))?;
    composed.is_h264("Main", 1280, 720)?;
    composed.in_sync("p0")?;
    let copied = has_sheets(&copied, (640, 360))?;
    let comparison = compare(&copied.path, &*clip("p0-360.h264")?)?;
    ensure!(comparison.perfect(), "{comparison:?}");
    tidy(&servers, None).await
}

/// A thumbnail as a player reads it.
#[derive(Debug)]
struct ListedThumbnail {
    /// Seconds in the file.
    from: f64,
    to: f64,
    /// Its sprite sheet, and where it stands there: left, upper edge, width, height.
    sheet: PathBuf,
    area: Vec<u32>,
}

/// Each thumbnail shows what the file shows at its time; all else is there too. Gives the file.
fn has_sheets(info: &Value, (width, height): (u64, u64)) -> Result<RecordingProbe> {
    let mp4 = RecordingProbe::open(info)?;
    let stem = mp4.path.with_extension("");
    let beside = |end: &str| PathBuf::from(format!("{}{end}", stem.display()));
    looked_at(&beside(".jpg"), "mjpeg", (width, height))?;

    let listed = listed_thumbnails(&beside("-thumbnails.vtt"))?;
    // One a second of the file: it goes on while its sibling is stopped.
    ensure!(listed.len().abs_diff(mp4.seconds().round() as usize) <= 1, "{} s: {listed:?}", mp4.seconds());
    let near = |a: f64, b: f64, seconds: f64| (a - b).abs() < seconds;
    ensure!(near(listed[0].from, 0.0, 1e-6), "{listed:?}");
    ensure!(near(listed[listed.len() - 1].to, mp4.seconds(), 0.5), "{} s: {listed:?}", mp4.seconds());
    ensure!(listed.windows(2).all(|pair| near(pair[0].to, pair[1].from, 1e-6)), "holes in {listed:?}");
    let pictures = mp4.pictures.as_ref().context("no pictures")?;
    let recorded: Vec<(f64, i32)> =
        pictures.of(test_person("p0")).filter_map(|(at, reading)| Some((at, i32::from(reading?.number?)))).collect();
    let mut read = vec![];
    for thumbnail in &listed {
        let Some(number) = number_of(thumbnail)? else { continue };
        // The first one is shown from the beginning on, wherever it was captured.
        let then = recorded.iter().min_by(|a, b| (a.0 - thumbnail.from).abs().total_cmp(&(b.0 - thumbnail.from).abs()));
        let (at, then) = *then.context("no picture of the file can be read")?;
        let step = (number - then + LOOP / 2).rem_euclid(LOOP) - LOOP / 2;
        ensure!(step.abs() <= 2, "at {at:.3} s the file shows frame {then}, the thumbnail {number}");
        read.push(number);
    }
    println!("{}: thumbnails show frames {read:?}", mp4.name());
    ensure!(read.len() + 2 >= listed.len(), "bar codes cannot be read: {read:?} of {listed:?}");

    // Up to 16 looks are all on the contact sheet.
    let columns = (1..).find(|columns| columns * columns >= listed.len()).unwrap_or(1);
    let rows = listed.len().div_ceil(columns);
    let probed = probe(&beside("-contact.jpg"))?;
    let sheet = stream(&probed, "video").context("the contact sheet is no picture")?;
    ensure!(
        sheet["width"] == 320 * columns && sheet["height"] == 180 * rows,
        "{columns} columns, {rows} rows: {sheet}"
    );

    let manifest = mp4.has_manifest()?;
    let sheets = manifest["sheets"].as_array().context("no sheets in the manifest")?;
    let kinds: Vec<&str> = sheets.iter().filter_map(|sheet| sheet["kind"].as_str()).collect();
    ensure!(kinds == ["poster", "contact_sheet", "sprite_sheet", "thumbnails"], "{manifest}");
    for sheet in sheets {
        ensure!(sheet["location"].as_str().is_some_and(|at| Path::new(at).is_file()), "{sheet}");
    }
    Ok(mp4)
}

/// Reads a WebVTT file.
fn listed_thumbnails(path: &Path) -> Result<Vec<ListedThumbnail>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("no {}", path.display()))?;
    ensure!(text.starts_with("WEBVTT\n\n"), "{text}");
    let seconds = |time: &str| {
        time.split(':').try_fold(0.0, |sum, part| Some(sum * 60.0 + part.parse::<f64>().ok()?)).context("no time")
    };
    let mut listed = vec![];
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some((from, to)) = line.split_once(" --> ") else { continue };
        let (sheet, area) = lines.next().and_then(|line| line.split_once("#xywh=")).context("no sheet")?;
        let sheet = path.with_file_name(sheet.replace("%23", "#"));
        let area = area.split(',').map(str::parse).collect::<Result<Vec<u32>, _>>().context("no area")?;
        ensure!(area.len() == 4, "{line}");
        listed.push(ListedThumbnail { from: seconds(from)?, to: seconds(to)?, sheet, area });
    }
    Ok(listed)
}

/// The frame of p0's clip that a thumbnail shows; `None`: its bar code cannot be read.
fn number_of(thumbnail: &ListedThumbnail) -> Result<Option<i32>> {
    let [x, y, width, height] = thumbnail.area[..] else { return Ok(None) };
    let cut = thumbnail.sheet.with_extension(format!("{x}-{y}.png"));
    let status = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-y", "-i"])
        .arg(&thumbnail.sheet)
        .args(["-vf", &format!("crop={width}:{height}:{x}:{y}"), "-frames:v", "1"])
        .arg(&cut)
        .status()
        .context("start ffmpeg")?;
    ensure!(status.success(), "{} has no part {:?}", thumbnail.sheet.display(), thumbnail.area);
    let pictures = picture::analyse(&cut)?;
    let (_, reading) = pictures.of(test_person("p0")).next().context("no frame")?;
    Ok(reading.with_context(|| format!("p0 is not in {}", cut.display()))?.number.map(i32::from))
}
