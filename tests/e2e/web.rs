//! Web pages as they are recorded: rows Web of livekit/egress' own tests, and what a page may do: say when it begins and ends,
//! not load, crash, stop to answer, know secrets, be the template of a room. Chromium paints on this machine: one at a time,
//! and small.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::{Value, json};
use spillway_tests::analyser::sync::offset;
use spillway_tests::assets::built_template;
use spillway_tests::egress::{Egress, connected, nanos};
use spillway_tests::process::{below, eventually, running};
use spillway_tests::secret_search::SecretSearch;
use spillway_tests::servers::TestServers;
use spillway_tests::servers::page_server::PageServer;
use spillway_tests::servers::srt_server::SrtServer;

use crate::foreign::is_there;
use crate::harness::{E2eHarness, block_on, exclusive, exclusive_case, needing, signal, tidy};
use crate::hls::{PICTURE, finished, folder, of_disk, probe, recorded};
use crate::images::{each_second, images};
use crate::kinds::small;
use crate::publishers::person;
use crate::recording_probe::RecordingProbe;
use crate::rtmp::{ended, publisher, seen};

/// Looked for wherever it must not stand.
const CANARY: &str = "canaryOfThePage";
/// Where Debian's packages have them.
const PROGRAMS: [&str; 2] = ["/usr/lib/chromium/chromium", "/usr/bin/Xvfb"];
/// An egress records.
const SECONDS: u64 = 8;

pub fn cases() -> Vec<Trial> {
    let cases = vec![
        exclusive_case("web::files", |harness| async move { files(&harness).await }),
        exclusive_case("web::an_srt_stream", |harness| async move { stream(&harness).await }),
        exclusive_case("web::hls_beside_a_file", |harness| async move { hls(&harness).await }),
        exclusive_case("web::images", |harness| async move { stills(&harness).await }),
        exclusive_case("web::a_page_that_says_when", |harness| async move { says_when(&harness).await }),
        exclusive_case("web::pages_that_do_not_load", |harness| async move { not_loaded(&harness).await }),
        exclusive_case("web::a_page_that_stops_to_answer", |harness| async move { hangs(&harness).await }),
        exclusive_case("web::a_template_of_a_room", |harness| async move { template(&harness).await }),
        exclusive("web::the_built_in_template", || block_on(built_in())),
        exclusive("web::a_page_that_crashes", || block_on(dies(RENDERER))),
        exclusive("web::a_display_that_dies", || block_on(dies(DISPLAY))),
        exclusive("web::a_gpu_process_that_dies", || block_on(dies(GPU))),
        exclusive("web::no_secret_is_told", || block_on(secrets())),
    ];
    cases.into_iter().map(|case| needing(&PROGRAMS, case)).collect()
}

fn mp4(harness: &E2eHarness, name: &str) -> Value {
    json!([{ "filepath": harness.file(name).to_string_lossy(), "file_type": "MP4" }])
}

/// The page's flashes, at 640×360. A file has a picture whenever the page paints one.
fn is_seen(probe: &RecordingProbe) -> Result<()> {
    let video = probe.video()?;
    let fits = video["codec_name"] == "h264" && video["width"] == 640 && video["height"] == 360;
    ensure!(fits, "not H264 of 640x360: {video}");
    let rate = probe.pictures.as_ref().map_or(0, |pictures| pictures.all.len()) as f64 / probe.seconds();
    ensure!((25.0..31.0).contains(&rate), "{rate:.2} pictures a second in {}", probe.name());
    is_there("p0", "flashes", probe, &probe.flashes("p0")?)?;
    probe.moves("p0", 20.0)
}

fn is_heard(probe: &RecordingProbe) -> Result<()> {
    let beeps: Vec<f64> = probe.beeps("p0")?.iter().map(|beep| beep.at).collect();
    is_there("p0", "beeps", probe, &beeps)
}

/// Pictures fit the sound. The prototype's median was 17 to 18 ms off (page.md), half a picture of which is the page's own;
/// 51 ms were seen where Chromium painted in software beside two encoders on two cores. The figure is `cargo bench-egress
/// --only pages`; here only what no machine explains is a fault.
fn in_sync(probe: &RecordingProbe) -> Result<()> {
    let beeps: Vec<f64> = probe.beeps("p0")?.iter().map(|beep| beep.at).collect();
    let offset = offset(&probe.flashes("p0")?, &beeps);
    println!("{} p0 picture - sound {offset}", probe.name());
    ensure!(offset.pairs >= 3 && offset.median_ms.abs() <= 80.0 && offset.p99_ms <= 150.0, "{offset}");
    Ok(())
}

/// Both versions of the API: picture and sound, and each of them alone.
async fn files(harness: &E2eHarness) -> Result<()> {
    let pages = PageServer::start().await?;
    let url = pages.page("");
    let web = |only: &str, name: &str| {
        let mut source = json!({ "url": url });
        if !only.is_empty() {
            source[only] = json!(true);
        }
        let file = json!({ "filepath": harness.file(name).to_string_lossy() });
        json!({ "web": source, "outputs": [{ "file": file }], "advanced": small() })
    };
    let first = json!({
        "url": url, "video_only": true, "advanced": small(), "file_outputs": mp4(harness, "web_{time}.mp4"),
    });
    for (method, request, has_picture, has_sound) in [
        ("StartWebEgress", first, true, false),
        ("StartEgress", web("", "web_v2_{time}.mp4"), true, true),
        ("StartEgress", web("video_only", "web_v2_video_{time}.mp4"), true, false),
        ("StartEgress", web("audio_only", "web_v2_audio_{time}.ogg"), false, true),
    ] {
        let info = recorded(harness, method, request, SECONDS).await?;
        ensure!(info["room_name"] == "", "{info}");
        let probe = RecordingProbe::open(&info)?;
        ensure!((probe.pictures.is_some(), probe.sound.is_some()) == (has_picture, has_sound), "{}", probe.probed);
        // It is ACTIVE when it records, and the stop takes a moment.
        ensure!((SECONDS as f64 - 0.5..SECONDS as f64 + 2.0).contains(&probe.seconds()), "{:.2} s", probe.seconds());
        if has_picture {
            is_seen(&probe)?;
        }
        if has_sound {
            is_heard(&probe)?;
        }
        if has_picture && has_sound {
            probe.is_audio("aac", "44100", 2)?;
            in_sync(&probe)?;
        }
        probe.has_manifest()?;
    }
    Ok(())
}

async fn stream(harness: &E2eHarness) -> Result<()> {
    let (pages, server) = (PageServer::start().await?, SrtServer::start("")?);
    let mut advanced = small();
    advanced["key_frame_interval"] = json!(2.0);
    let request = json!({
        "url": pages.page(""), "advanced": advanced,
        "stream_outputs": [{ "protocol": "SRT", "urls": [server.url("streamid=page")] }],
    });
    let egress = Egress::start(harness.api(), "StartWebEgress", request).await?;
    egress.active().await?;
    connected(&egress, 1).await?;
    let probe = seen(server.watch(SECONDS as u32).await?, SECONDS as u32)?;
    probe.is_streamed_h264("Main", 640, 360)?;
    probe.is_audio("aac", "44100", 2)?;
    is_there("p0", "flashes", &probe, &probe.flashes("p0")?)?;
    in_sync(&probe)?;
    ended(&egress.complete().await?, &["FINISHED"])
}

async fn hls(harness: &E2eHarness) -> Result<()> {
    const SEGMENT: u64 = 2;
    let pages = PageServer::start().await?;
    let folder = folder(harness, "web");
    let request = json!({
        "url": pages.page(""), "advanced": small(), "segment_outputs": of_disk(&folder, SEGMENT),
        "file_outputs": mp4(harness, "web_hls_{time}.mp4"),
    });
    let info = recorded(harness, "StartWebEgress", request, SECONDS).await?;
    let hls = finished(&folder, &info, SEGMENT, PICTURE)?;
    for probe in [probe(&hls, &info)?, RecordingProbe::open(&info)?] {
        is_seen(&probe)?;
        is_heard(&probe)?;
        in_sync(&probe)?;
    }
    Ok(())
}

async fn stills(harness: &E2eHarness) -> Result<()> {
    let pages = PageServer::start().await?;
    let folder = harness.file("images-web");
    let request = json!({
        "url": pages.page(""), "video_only": true, "advanced": small(),
        "image_outputs": [each_second(&folder.join("page"))],
    });
    let info = recorded(harness, "StartWebEgress", request, SECONDS).await?;
    let images = images(&folder, "page_", ".jpeg")?;
    let counted = nanos(&info["image_results"][0]["image_count"]);
    ensure!(counted as usize == images.len() && (7..=11).contains(&images.len()), "{counted} of {images:?}");
    let sizes: Vec<u64> = images.iter().map(|image| std::fs::metadata(image).map_or(0, |image| image.len())).collect();
    ensure!(sizes.iter().all(|size| *size > 1000), "{sizes:?} bytes");
    Ok(())
}

/// It is not recorded before it says so, and its end is the egress' end. Beside that it asks for what it may not reach.
async fn says_when(harness: &E2eHarness) -> Result<()> {
    const RECORDED_S: f64 = 6.0;
    let pages = PageServer::start().await?;
    let request = json!({
        "url": pages.page("start=3&end=9&fetch=1"), "await_start_signal": true, "advanced": small(),
        "file_outputs": mp4(harness, "web_says_{time}.mp4"),
    });
    let egress = Egress::start(harness.api(), "StartWebEgress", request).await?;
    let waited = egress.active().await?;
    ensure!(waited > Duration::from_secs(3), "ACTIVE after {waited:.1?}");
    let info = egress.over(Duration::from_secs(30)).await?;
    ensure!(info["status"] == "EGRESS_COMPLETE", "{info}");
    let details = info["details"].as_str().unwrap_or_default();
    ensure!(details.contains("10.0.0.5 is refused"), "what it may not reach is not told: {info}");
    let probe = RecordingProbe::open(&info)?;
    ensure!((probe.seconds() - RECORDED_S).abs() < 0.3, "{:.2} s", probe.seconds());
    is_seen(&probe)?;
    is_heard(&probe)?;
    in_sync(&probe)
}

/// Each is told at once, as what it is, and leaves nothing behind.
async fn not_loaded(harness: &E2eHarness) -> Result<()> {
    let pages = PageServer::start().await?;
    let nothing_there = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").context("bind a port")?;
        format!("http://{}/?secret={CANARY}", listener.local_addr().context("ask for the port")?)
    };
    for (url, said) in [
        (pages.missing(), "page load error: Not Found"),
        (nothing_there, "page load error: cannot connect to 127.0.0.1"),
        (pages.page("error=1"), "template error: no such room"),
    ] {
        let asked = Instant::now();
        let request = json!({ "url": url, "file_outputs": mp4(harness, "web_not_loaded_{time}.mp4") });
        let egress = Egress::start(harness.api(), "StartWebEgress", request).await?;
        let info = egress.over(Duration::from_secs(30)).await?;
        let error = info["error"].as_str().unwrap_or_default();
        println!("FAILED after {:.1?}: {error}", asked.elapsed());
        ensure!(info["status"] == "EGRESS_FAILED" && info["error_code"] == 400, "{info}");
        ensure!(error.starts_with(said) && !info.to_string().contains(CANARY), "not {said:?}: {info}");
    }
    Ok(())
}

/// The first time it is loaded again; the second time the egress fails and its file is kept.
async fn hangs(harness: &E2eHarness) -> Result<()> {
    const HANGS_AFTER_S: f64 = 5.0;
    let pages = PageServer::start().await?;
    let request = json!({
        "url": pages.page(&format!("hang={HANGS_AFTER_S}")), "advanced": small(),
        "file_outputs": mp4(harness, "web_hangs_{time}.mp4"),
    });
    let egress = Egress::start(harness.api(), "StartWebEgress", request).await?;
    egress.active().await?;
    let info = egress.over(Duration::from_secs(60)).await?;
    let error = info["error"].as_str().unwrap_or_default();
    ensure!(info["status"] == "EGRESS_FAILED" && error.contains("did not answer"), "{info}");
    let details = info["details"].as_str().unwrap_or_default();
    ensure!(details.contains("was loaded again"), "the gap is not named: {info}");
    let probe = RecordingProbe::open(&info)?;
    let flashes = probe.flashes("p0")?;
    println!("{} lasts {:.1} s: {error}; {details}; flashes at {flashes:.1?}", probe.name(), probe.seconds());
    // What stands before the reload was found out to be a hang counts as missing, what was shown after it does not.
    let (first, last) = (flashes.first().context("no flash")?, flashes.last().context("no flash")?);
    ensure!(*first < HANGS_AFTER_S && *last > 2.0 * HANGS_AFTER_S - 2.0, "{flashes:.1?}");
    nothing_is_left().await
}

/// The part of a page that dies, and what is told of it; nothing where the recording does not notice.
#[derive(Clone, Copy)]
struct Death {
    /// In the command line of the processes that are killed.
    part: &'static str,
    told: Option<&'static str>,
    /// Longest time without a flash, seconds.
    longest_s: f64,
}

const RENDERER: Death = Death { part: "--type=renderer", told: Some("crashed"), longest_s: 8.0 };
const DISPLAY: Death = Death { part: "Xvfb", told: Some("display"), longest_s: 8.0 };
/// Chromium starts another one by itself.
const GPU: Death = Death { part: "--type=gpu-process", told: None, longest_s: 3.5 };

/// Neither processes of a browser nor the folder of a page, in which a profile was.
async fn nothing_is_left() -> Result<()> {
    const FOLDERS: &str = "spillway-page-";
    let left = || {
        let browsers = running().into_iter().map(|(_, command)| command).filter(|command| command.contains(FOLDERS));
        let places = [Path::new("/dev/shm"), &std::env::temp_dir()].map(std::fs::read_dir);
        let folders = places.into_iter().flatten().flatten().flatten();
        let folders = folders.map(|entry| entry.path().display().to_string()).filter(|path| path.contains(FOLDERS));
        browsers.chain(folders).next()
    };
    let clean = || std::future::ready(Ok(left().is_none().then_some(())));
    let over = eventually("nothing of the page is left", Duration::from_secs(5), clean).await;
    over.with_context(|| format!("there is {:?}", left()))
}

/// The recording goes on with the page loaded again, and says what is missing.
async fn dies(death: Death) -> Result<()> {
    let (pages, servers) = (PageServer::start().await?, TestServers::start("").await?);
    let _dispatcher = servers.dispatcher("dispatcher", "").await?;
    let path = servers.folder().join("web_dies.mp4");
    let request = json!({
        "url": pages.page(""), "advanced": small(), "file_outputs": [{ "filepath": path.to_string_lossy() }],
    });
    let egress = Egress::start(&servers.api, "StartWebEgress", request).await?;
    egress.active().await?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let media = *servers.pids("spillway-media").first().context("nothing records")?;
    let parts = || -> Vec<i32> {
        let parts = below(media).into_iter().filter(|(_, command)| command.contains(death.part));
        parts.map(|(pid, _)| pid).collect()
    };
    let killed = parts();
    ensure!(!killed.is_empty(), "there is no {}", death.part);
    for pid in &killed {
        signal(*pid, Signal::KILL)?;
    }
    let again = || std::future::ready(Ok(parts().into_iter().find(|pid| !killed.contains(pid))));
    eventually("there is another one", Duration::from_secs(15), again).await?;
    tokio::time::sleep(Duration::from_secs(6)).await;
    let info = egress.complete().await?;
    let details = info["details"].as_str().unwrap_or_default();
    let is_told = death.told.is_some_and(|told| details.contains(told));
    ensure!(is_told == details.contains("was loaded again") && is_told == death.told.is_some(), "{info}");
    let probe = RecordingProbe::open(&info)?;
    let flashes = probe.flashes("p0")?;
    let longest = flashes.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
    println!("{} without {}: {longest:.1} s without a flash; {details}", probe.name(), death.part);
    ensure!(longest < death.longest_s, "{longest:.1} s without a flash: {flashes:.1?}");
    ensure!(flashes.last().is_some_and(|last| probe.seconds() - last < 1.7), "it stands at the end: {flashes:.1?}");
    // Neither Chromium's picture of a crash nor a black one is in the file.
    let pictures = probe.pictures.as_ref().context("no pictures")?;
    let absent: Vec<f64> = pictures
        .of(spillway_tests::assets::person("p0"))
        // It is recorded from its load on, and painted a moment later.
        .filter_map(|(at, reading)| (reading.is_none() && at > 0.3).then_some(at))
        .collect();
    ensure!(absent.is_empty() || death.told.is_none(), "the page is not in the picture at {absent:.2?}");
    tidy(&servers, None).await?;
    nothing_is_left().await
}

/// A template of the user's, which joins the room by itself; a layout that is updated reaches it.
async fn template(harness: &E2eHarness) -> Result<()> {
    let pages = PageServer::start().await?;
    let room = harness.room("web-template");
    let _p0 = person(harness, &room, "p0", "p0-360.h264").await?;
    let request = json!({
        "room_name": room, "custom_base_url": pages.template(&format!("secret={CANARY}"))?,
        "layout": "mine", "advanced": small(), "file_outputs": mp4(harness, "web_template_{time}.mp4"),
    });
    let egress = Egress::start(harness.api(), "StartRoomCompositeEgress", request).await?;
    egress.active().await?;
    tokio::time::sleep(Duration::from_secs(SECONDS)).await;
    harness.api().egress("UpdateLayout", json!({ "egress_id": egress.id, "layout": "over" })).await?;
    let info = egress.over(Duration::from_secs(15)).await?;
    ensure!(info["status"] == "EGRESS_COMPLETE" && !info.to_string().contains(CANARY), "{info}");
    shows_the_room(&RecordingProbe::open(&info)?)
}

/// Decoders, jitter buffers and the painting of a browser are between picture and sound.
fn shows_the_room(probe: &RecordingProbe) -> Result<()> {
    is_seen(probe)?;
    is_heard(probe)?;
    let beeps: Vec<f64> = probe.beeps("p0")?.iter().map(|beep| beep.at).collect();
    let offset = offset(&probe.flashes("p0")?, &beeps);
    println!("{} p0 picture - sound {offset}", probe.name());
    ensure!(offset.median_ms.abs() <= 100.0, "{offset}");
    Ok(())
}

/// Where every room composite is to be a page, one that names no template has ours.
async fn built_in() -> Result<()> {
    let servers = TestServers::start("").await?;
    let folder = built_template()?.join("site");
    let settings = format!("composite_engine: page\nrunner: {{ template_folder: \"{}\" }}\n", folder.display());
    let _dispatcher = servers.dispatcher("dispatcher", &settings).await?;
    let _p0 = publisher(&servers, "web-built-in").await?;
    let path = servers.folder().join("web_built_in.mp4");
    let request = json!({
        "room_name": "web-built-in", "layout": "speaker", "advanced": small(),
        "file_outputs": [{ "filepath": path.to_string_lossy() }],
    });
    let egress = Egress::start(&servers.api, "StartRoomCompositeEgress", request).await?;
    egress.active().await?;
    tokio::time::sleep(Duration::from_secs(SECONDS)).await;
    let info = egress.complete().await?;
    ensure!(info["details"].as_str().is_some_and(|told| told.contains("composite engine: page")), "{info}");
    shows_the_room(&RecordingProbe::open(&info)?)?;
    tidy(&servers, None).await
}

/// The query of a page stands neither in a command line nor in Redis, EgressInfo or a log, where the page itself writes it.
async fn secrets() -> Result<()> {
    let pages = PageServer::start().await?;
    let mut servers = TestServers::start("").await?;
    servers.set("SPILLWAY_LOG", "trace");
    let dispatcher = servers.dispatcher("dispatcher", "").await?;
    let path = servers.folder().join("web_secrets.mp4");
    let request = json!({
        "url": pages.page(&format!("secret={CANARY}-1")), "advanced": small(),
        "file_outputs": [{ "filepath": path.to_string_lossy() }],
    });
    let egress = Egress::start(&servers.api, "StartWebEgress", request).await?;
    egress.active().await?;
    let mut search = SecretSearch::of(CANARY);
    search.processes(&servers);
    // Chromium's are not marked: their environment is empty.
    let browsers: Vec<String> = running().into_iter().map(|(_, command)| command).collect();
    let browsers: Vec<&String> = browsers.iter().filter(|command| command.contains("--user-data-dir")).collect();
    browsers.iter().for_each(|command| search.bytes("a command line of the browser", command.as_bytes()));
    search.bytes("Redis", &servers.redis_dump()?);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let info = egress.complete().await?;
    search.bytes("EgressInfo", info.to_string().as_bytes());
    let Some(shown) = info["web"]["url"].as_str() else { bail!("no URL: {info}") };
    ensure!(shown.ends_with("/page.html?secret={...}"), "shown as {shown}");
    // Killed with the servers it would leave its folder to the cases after this one.
    tidy(&servers, None).await?;
    nothing_is_left().await?;
    drop(dispatcher);
    let looked = search.logs(servers.folder(), "the page knows")?;
    ensure!(search.found().is_empty(), "the query stands in {:?}", search.found());
    ensure!(looked > 0 && !browsers.is_empty(), "{looked} logs, {} browsers were looked at", browsers.len());
    Ok(())
}
