//! The console of a real dispatcher on its ports, and `spillway` on the command line against it, over a real Redis.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in the harness too")]

#[path = "program/ground.rs"]
#[allow(dead_code, reason = "tests of the other program use the rest")]
mod ground;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use ground::{Ground, Ran, Running, bill, eventually, free_port, id};
use prost::Message;
use serde_json::Value;
use spillway_bus::lifecycle::{LaunchEvent, RunnerStage};
use spillway_bus::{Bus, Heartbeat, Heartbeats, Registry, Tasks};
use spillway_protocol::ledger::{EgressLedger, Fact};

const READS: &str = "reads-reads-reads-reads-";
const STOPS: &str = "stops-stops-stops-stops-";
const TARGETS: &str = "targets: [{ name: near, launcher: simulated }, { name: far, launcher: simulated }]\n";

fn with_console() -> String {
    format!("{TARGETS}console: {{ token: {READS}, stop_token: {STOPS} }}\n")
}

fn program(url: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spillway"));
    command.env_clear().env("SPILLWAY_URL", url).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn ran(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { ok: output.status.success(), out: text(output.stdout), error: text(output.stderr) }
}

fn url(running: &Running) -> String {
    format!("http://127.0.0.1:{}", running.port())
}

fn spillway(running: &Running, token: &str, arguments: &[&str]) -> Ran {
    ran(program(&url(running)).env("SPILLWAY_TOKEN", token).args(arguments))
}

fn json(ran: &Ran) -> Value {
    assert!(ran.ok, "{ran:?}");
    serde_json::from_str(&ran.out).unwrap()
}

/// What a runner does that has taken over: of the simulated platform's tasks none does.
async fn record(bus: &Bus, egress: &str) {
    let registry = Registry::new(bus);
    registry.apply(&id(egress), &LaunchEvent::TookOver { attempt: 1 }).await.unwrap();
    let record = registry.get(&id(egress)).await.unwrap().unwrap();
    let mut ledger: EgressLedger = serde_json::from_str(&record.ledger).unwrap();
    let at = (record.accepted_at + 1000) * 1_000_000;
    ledger.on(Fact::Active { started_at: at }, at);
    let (info, ledger) = (ledger.info().encode_to_vec(), serde_json::to_string(&ledger).unwrap());
    let report = LaunchEvent::Reported { attempt: 1, info, ledger, stage: RunnerStage::Going };
    registry.apply(&id(egress), &report).await.unwrap();
}

async fn beat(bus: &Bus, egress: &str) {
    let files = [("a.mp4".to_owned(), 2_000_000)].into();
    let beat = Heartbeat { media_ns: 61_000_000_000, lag_ms: 300, files, ..Heartbeat::default() };
    Heartbeats::new(bus).beat(&id(egress), 1, &beat, Duration::from_secs(60)).await.unwrap();
}

fn line<'a>(text: &'a str, name: &str) -> &'a str {
    text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in\n{text}"))
}

/// On several threads: livekit-server's side answers while a program is waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn egresses_are_listed_watched_and_stopped_from_the_command_line() {
    let ground = Ground::start().await;
    let dispatcher = ground.dispatcher(&ground.config(&with_console())).await;
    let livekit = ground.livekit().await;
    for name in ["EG_one", "EG_two"] {
        livekit.start_composite(name).await.unwrap();
    }
    let state = |name: &str| {
        let view = json(&spillway(&dispatcher, READS, &["ls", "--json"]));
        let row = view["egresses"].as_array().unwrap().iter().find(|row| row["id"] == name).cloned();
        row.map(|row| row["state"].as_str().unwrap().to_owned())
    };
    eventually("both are launched", async || {
        ["EG_one", "EG_two"].iter().all(|name| state(name).as_deref() == Some("launched"))
    })
    .await;
    let bus = ground.bus().await;
    record(&bus, "EG_one").await;
    let mut list = None;
    eventually("one records", async || {
        beat(&bus, "EG_one").await;
        let told = spillway(&dispatcher, READS, &["ls", "--room", "ROO", "--type", "room_composite"]);
        // On a busy machine the heartbeat may be old by then.
        list = Some(told).filter(|told| told.out.contains("good"));
        list.is_some()
    })
    .await;
    let list = list.unwrap();
    assert!(list.ok && list.error.is_empty(), "{list:?}");
    let one = line(&list.out, "EG_one");
    for part in [" room ", "running", "good", "0:01:01", "2.0 MB", "0.3s", "near"] {
        assert!(one.contains(part), "{part} in {one}");
    }
    assert!(list.out.ends_with("so far\n") && line(&list.out, "EG_two").contains("launched"), "{}", list.out);
    let none = spillway(&dispatcher, READS, &["ls", "--tenant", "nobody"]);
    assert!(none.ok && none.out.ends_with("\n0 live, 0.0000 so far\n"), "{none:?}");

    let shown = spillway(&dispatcher, READS, &["show", "EG_one"]);
    assert!(shown.ok && shown.out.starts_with("EG_one\n") && shown.out.contains("running, "), "{shown:?}");
    let shown = json(&spillway(&dispatcher, READS, &["show", "EG_one", "--json"]));
    assert_eq!((&shown["egress"]["target"], &shown["info"]["egressId"]), (&"near".into(), &"EG_one".into()), "{shown}");

    let refused = spillway(&dispatcher, READS, &["stop", "EG_two"]);
    assert!(!refused.ok && refused.error.contains("may look and not stop"), "{refused:?}");
    let watching = program(&url(&dispatcher)).env("SPILLWAY_TOKEN", READS).args(["watch", "EG_two"]).spawn().unwrap();
    // It connects meanwhile; a change before that would be in its first list.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let stopped = spillway(&dispatcher, STOPS, &["stop", "EG_two"]);
    assert_eq!((stopped.ok, stopped.out.as_str()), (true, "EG_two is aborted\n"), "{stopped:?}");
    let watched = watching.wait_with_output().unwrap();
    let watched = (watched.status.success(), String::from_utf8(watched.stdout).unwrap());
    assert!(watched.0 && watched.1.lines().all(|line| line.starts_with("EG_two  ")), "{watched:?}");
    assert!(watched.1.contains("launched") && watched.1.lines().count() >= 2, "{watched:?}");
    // Its runner does not answer: the dispatcher leaves the stop in the record, and says so.
    let stopped = spillway(&dispatcher, STOPS, &["stop", "EG_one"]);
    assert_eq!((stopped.ok, stopped.out.as_str()), (true, "EG_one is ending\n"), "{stopped:?}");

    let targets = spillway(&dispatcher, READS, &["targets"]);
    assert!(
        line(&targets.out, "near").contains("simulated") && line(&targets.out, "far").contains("open"),
        "{targets:?}"
    );
    let gone = spillway(&dispatcher, READS, &["watch", "EG_nosuch"]);
    assert!(!gone.ok && gone.error.contains("EG_nosuch does not live"), "{gone:?}");
    for (arguments, message) in [
        (["show", "EG_nosuch"], "egress does not exist, or is forgotten (status 404)"),
        (["show", "../status"], "is no egress"),
        (["stop", ""], "is no egress"),
    ] {
        let wrong = spillway(&dispatcher, STOPS, &arguments);
        assert!(!wrong.ok && wrong.out.is_empty() && wrong.error.contains(message), "{wrong:?}");
    }
}

#[tokio::test]
async fn bills_and_prices_are_those_of_the_dispatchers_own_commands() {
    let ground = Ground::start().await;
    let config = ground.config(&with_console());
    let dispatcher = ground.dispatcher(&config).await;
    // A console without a port is refused, also where nothing is served.
    let config = format!("{config}health: 127.0.0.1:1\n");
    let tasks = Tasks::new(&ground.bus().await);
    bill(&tasks, "EG_1", "acme/daily", "acme", "near", 0.25).await;
    bill(&tasks, "EG_2", "acme/daily", "acme", "far", 0.5).await;
    bill(&tasks, "EG_3", "=SUM(A1),\"x\"", "evil", "near", 1.0).await;
    for arguments in
        [vec!["bill"], vec!["bill", "--by", "tenant", "--since", "1d"], vec!["bill", "--by", "egress", "--csv"]]
    {
        let here = ground.run(&config, &arguments);
        let there = spillway(&dispatcher, READS, &arguments);
        assert!(here.ok && there.ok && here.out == there.out, "{here:?} {there:?}");
    }
    let acme = json(&spillway(&dispatcher, READS, &["bill", "--by", "target", "--tenant", "acme", "--json"]));
    assert_eq!((&acme["total"]["tasks"], &acme["total"]["amount"]), (&2.into(), &0.75.into()), "{acme}");
    let shown = spillway(&dispatcher, READS, &["show", "EG_3"]);
    assert!(shown.ok && shown.out.contains("at near, 0:02:00 billed, 1.00 USD: egress_complete"), "{shown:?}");
    let wrong = spillway(&dispatcher, READS, &["bill", "--since", "yesterday"]);
    assert!(!wrong.ok && wrong.error.contains("\"yesterday\" is no time"), "{wrong:?}");

    let request = ground
        .file("request.yaml", "room_composite: { room_name: r, layout: grid, file_outputs: [{ filepath: a.mp4 }] }");
    let priced = spillway(&dispatcher, READS, &["price", "--request", &request]);
    let here = ground.run(&config, &["price", "--request", &request]);
    let amount = |text: &str, name: &str| line(text, name).split_whitespace().rev().nth(1).unwrap().to_owned();
    assert!(priced.ok && here.ok, "{priced:?} {here:?}");
    assert_eq!(amount(&priced.out, "near "), amount(&here.out, "near "));
    let quotes = json(&spillway(&dispatcher, READS, &["price", "--request", &request, "--minutes", "5", "--json"]));
    assert_eq!((quotes["quotes"].as_array().unwrap().len(), &quotes["minutes"]), (2, &5.0.into()), "{quotes}");
    let missing = spillway(&dispatcher, READS, &["price", "--request", "/nowhere.yaml"]);
    assert!(!missing.ok && missing.error.contains("read /nowhere.yaml"), "{missing:?}");
}

#[tokio::test]
async fn the_token_comes_from_the_environment_or_a_file_and_opens_nothing_else() {
    let ground = Ground::start().await;
    let dispatcher = ground.dispatcher(&ground.config(&with_console())).await;
    let file = ground.file("token", &format!("{READS}\n"));
    let from_file = ran(program(&url(&dispatcher)).args(["ls", "--token-file", &file]));
    assert!(from_file.ok && from_file.out.ends_with("0 live, 0.0000 so far\n"), "{from_file:?}");
    let from_file = ran(program(&format!("{}/console/", url(&dispatcher))).env("SPILLWAY_TOKEN_FILE", &file).arg("ls"));
    assert!(from_file.ok, "{from_file:?}");
    for token in ["", "wrong"] {
        let refused = spillway(&dispatcher, token, &["ls"]);
        assert!(!refused.ok && refused.error.contains("(status 401)"), "{refused:?}");
    }
    let unknown = spillway(&dispatcher, READS, &["--token", READS, "ls"]);
    assert!(!unknown.ok && unknown.error.contains("--token"), "a token on the command line is none: {unknown:?}");

    dispatcher.reload(&ground.config(TARGETS));
    eventually("the console is off", async || {
        spillway(&dispatcher, READS, &["ls"]).error.contains("there is no console here (status 404)")
    })
    .await;
    dispatcher.reload(&ground.config(&with_console().replace("reads", "again")));
    eventually("it opens to another token", async || {
        spillway(&dispatcher, &READS.replace("reads", "again"), &["ls"]).ok
    })
    .await;
    assert!(spillway(&dispatcher, READS, &["ls"]).error.contains("(status 401)"));
    drop(dispatcher);
    let gone = ran(program("http://127.0.0.1:1").env("SPILLWAY_TOKEN", READS).arg("ls"));
    assert!(!gone.ok && gone.error.contains("no answer of the console"), "{gone:?}");
    let watch = ran(program("http://example.com:0").arg("stop"));
    assert!(!watch.ok && watch.error.contains("<ID>"), "{watch:?}");
}

fn answer(port: u16, request: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    text
}

fn get(port: u16, path: &str) -> String {
    answer(port, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"))
}

#[tokio::test]
async fn a_port_of_its_own_serves_the_console_and_nothing_else() {
    let ground = Ground::start().await;
    let own = free_port();
    let console = format!("{TARGETS}console: {{ token: {READS}, address: \"127.0.0.1:{own}\" }}\n");
    let dispatcher = ground.dispatcher(&ground.config(&console)).await;
    let health: u16 = dispatcher.port().parse().unwrap();
    assert!(get(own, "/console/").starts_with("HTTP/1.1 200") && get(own, "/console").contains("location: console/"));
    assert!(get(own, "/console/style.css").contains("content-type: text/css"));
    for path in ["/metrics", "/healthz", "/", "/consoles", "/console/api"] {
        assert!(get(own, path).starts_with("HTTP/1.1 404"), "{path}");
    }
    assert!(
        get(health, "/console/").starts_with("HTTP/1.1 404") && get(health, "/healthz").starts_with("HTTP/1.1 200")
    );
    let large = format!(
        "POST /console/api/price HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {READS}\r\ncontent-length: 262145\r\n\r\n{}",
        // One byte too many: all of it has been read when it is refused.
        "x".repeat(262_145)
    );
    assert!(answer(own, &large).starts_with("HTTP/1.1 413"));
    let list = ran(program(&format!("http://127.0.0.1:{own}")).env("SPILLWAY_TOKEN", READS).arg("ls"));
    assert!(list.ok, "{list:?}");
}
