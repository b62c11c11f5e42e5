//! The program from its command line, against a real Redis: `bill`, `price`, `target`, `probe`, `doctor`, `--sweep`, SIGHUP.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in the harness too")]

#[path = "program/ground.rs"]
mod ground;

use ground::{Ground, bill, eventually, id};
use spillway_bus::{LaunchState, ProbeCause, ProbeLine, ProbeReport, ProbeReports, Record, Registry, Tasks};

#[tokio::test]
async fn bills_are_added_up_as_asked_and_mistakes_are_named() {
    let ground = Ground::start().await;
    let config = ground.config("");
    let tasks = Tasks::new(&ground.bus().await);
    bill(&tasks, "EG_1", "acme/daily", "acme", "near", 0.25).await;
    bill(&tasks, "EG_2", "acme/daily", "acme", "far", 0.5).await;
    bill(&tasks, "EG_3", "=SUM(A1),\"x\"", "evil", "near", 1.0).await;

    let rooms = ground.run(&config, &["bill", "--since", "1d"]);
    assert!(rooms.ok, "{rooms:?}");
    let line = |text: &str, name: &str| {
        let found = text.lines().find(|line| line.starts_with(name)).map(str::to_owned);
        let found = found.unwrap_or_else(|| panic!("no {name} in\n{text}"));
        found[name.len()..].split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line(&rooms.out, "acme/daily"), "2 4.0 3.0 3.0 0.7500");
    assert_eq!(line(&rooms.out, "total"), "3 6.0 4.5 4.5 1.7500");

    let csv = ground.run(&config, &["bill", "--since", "2h", "--by", "tenant", "--csv"]);
    assert_eq!(
        csv.out,
        "tenant,tasks,billed_seconds,recorded_seconds,bytes,usd\nacme,2,240.000,180.000,3000000,0.750000\n\
         evil,1,120.000,90.000,1500000,1.000000\n"
    );
    let csv = ground.run(&config, &["bill", "--since", "2020-01-31", "--csv"]);
    assert!(csv.out.contains("\n\"'=SUM(A1),\"\"x\"\"\",1,"), "{}", csv.out);
    for (by, rows) in [("type", 1), ("day", 1), ("target", 2), ("egress", 3)] {
        let table = ground.run(&config, &["bill", "--since", "2020-01", "--by", by]);
        assert_eq!(table.out.lines().count(), rows + 2, "{}", table.out);
        assert!(table.out.starts_with(by) && line(&table.out, "total").ends_with("1.7500"), "{}", table.out);
    }
    let none = ground.run(&config, &["bill", "--since", "2020-01", "--until", "1700000000"]);
    assert_eq!(line(&none.out, "total"), "0 0.0 0.0 0.0 0.0000");

    for (arguments, message) in [
        (["bill", "--since", "yesterday"], "\"yesterday\" is no time: write 2026-11"),
        (["bill", "--until", "2026-13"], "\"2026-13\" is no time"),
        (["bill", "--since", "99999999999999999d"], "is no time"),
        (["bill", "--by", "moon"], "possible values: room, tenant, type, day, target, egress"),
    ] {
        let wrong = ground.run(&config, &arguments);
        assert!(!wrong.ok && wrong.out.is_empty() && wrong.error.contains(message), "{wrong:?}");
    }
    let gone = ground.run(&config.replace(&ground.redis, "127.0.0.1:1"), &["bill"]);
    assert!(!gone.ok && gone.error.contains("unable to connect to redis"), "{gone:?}");
}

const EVERYWHERE: &str = r#"stack: prod
targets:
- { name: aws/spot, launcher: ecs, capacity: spot, region: us-east-1, options: { region: us-east-1, cluster: c, task_definition: t, subnets: [s] } }
- { name: aws, launcher: ecs, region: us-east-1, options: { region: us-east-1, cluster: c, task_definition: t, subnets: [s] } }
- name: gcp
  launcher: cloud-run
  options: { project: p, location: europe-west1, jobs: [{ name: one, cpu_milli: 8000, memory_mib: 32768, disk_gib: 0 }] }
- { name: azure, launcher: aci, options: { subscription: s, resource_group: g, location: westeurope, image: "r.example/i:1" } }
- { name: here, launcher: process }
"#;

#[tokio::test]
async fn a_price_is_told_beforehand_for_every_target() {
    let ground = Ground::start().await;
    let config = ground.config(EVERYWHERE);
    let request = ground.file(
        "request.yaml",
        "room_composite: { room_name: r, layout: grid, file_outputs: [{ filepath: a.mp4, s3: { access_key: k, secret: s, bucket: b } }] }",
    );
    let priced = |minutes: &str| {
        let priced = ground.run(&config, &["price", "--request", &request, "--minutes", minutes]);
        assert!(priced.ok, "{priced:?}");
        let amount = |name: &str| {
            let line = priced.out.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
            line.split_whitespace().nth(6).unwrap().parse::<f64>().unwrap()
        };
        ["aws/spot", "aws", "gcp", "azure", "here"].map(amount)
    };
    let (hour, two) = (priced("60"), priced("120"));
    let [spot, on_demand, gcp, azure, here] = hour;
    assert!(0.0 < spot && spot < on_demand && gcp > 0.01 && azure > 0.01 && (0.0..0.01).contains(&here), "{hour:?}");
    assert!((1.9..2.0).contains(&(two[1] / on_demand)), "start and end come once: {two:?}");

    let piped = ground.run_with(&config, &["price", "--request", "-"], &std::fs::read(&request).unwrap());
    assert!(piped.ok && piped.out.contains("USD/min"), "{piped:?}");
    let unconfigured = ground.run("", &["price", "--request", &request]);
    assert!(unconfigured.ok && unconfigured.out.contains("fargate") && unconfigured.out.contains("cloudrun"));
    let list = ground.run("", &["price", "--list"]);
    assert!(serde_json::from_str::<serde_json::Value>(&list.out).unwrap()["rates"][0]["vcpu_hour"].is_number());

    let bad = ground.file("bad.yaml", "room_composite: { layout: grid }");
    let odd = ground.file("odd.yaml", "- [");
    for (arguments, message) in [
        (vec!["price"], "--request"),
        (vec!["price", "--request", "/nowhere.yaml"], "read /nowhere.yaml"),
        (vec!["price", "--request", &bad], "missing or invalid field"),
        (vec!["price", "--request", &odd], "is neither JSON nor YAML"),
        (vec!["price", "--request", &request, "--minutes", "0"], "--minutes must be more than 0"),
        (vec!["price", "--request", &request, "--minutes=-5"], "--minutes must be more than 0"),
    ] {
        let wrong = ground.run(&config, &arguments);
        assert!(!wrong.ok && wrong.error.contains(message), "{arguments:?}: {wrong:?}");
    }
}

const NEAR: &str = "{ name: near, launcher: simulated }";
const FAR: &str = "{ name: far, launcher: simulated }";

#[tokio::test]
async fn switches_of_targets_and_a_changed_configuration_reach_a_running_dispatcher() {
    let ground = Ground::start().await;
    let config = ground.config(&format!("targets: [{NEAR}, {FAR}]\n"));
    let mut dispatcher = ground.dispatcher(&config).await;
    let open = async |target: &str, is: f64| {
        let series = format!("spillway_target_open{{target=\"{target}\"}}");
        eventually(&format!("{series} {is}"), async || dispatcher.metric(&series).await == Some(is)).await;
    };
    open("near", 1.0).await;
    for (state, said, is) in
        [("pause", "near: paused\n", 0.0), ("resume", "near: taken again\n", 1.0), ("drain", "near: draining\n", 0.0)]
    {
        let told = ground.run(&config, &["target", state, "near"]);
        assert!(told.ok && told.out == said, "{told:?}");
        open("near", is).await;
        open("far", 1.0).await;
    }
    let wrong = ground.run(&config, &["target", "pause", "moon"]);
    assert!(!wrong.ok && wrong.error.contains("there is no target moon; there are near, far"), "{wrong:?}");
    assert!(ground.run(&config, &["target", "resume", "near"]).ok);
    open("near", 1.0).await;

    // One target is removed, one is new: the next recording starts there.
    let livekit = ground.livekit().await;
    livekit.start_composite("EG_before").await.unwrap();
    let launched = |target: &str| format!("spillway_launches_total{{target=\"{target}\",outcome=\"launched\"}}");
    eventually("launched near", async || dispatcher.metric(&launched("near")).await == Some(1.0)).await;
    dispatcher.reload(&ground.config(&format!("targets: [{}, {FAR}]\n", NEAR.replace("near", "new"))));
    open("new", 1.0).await;
    open("near", 0.0).await;
    livekit.start_composite("EG_after").await.unwrap();
    eventually("launched at the new one", async || dispatcher.metric(&launched("new")).await == Some(1.0)).await;
    assert_eq!(dispatcher.metric(&launched("near")).await, Some(1.0));
    assert_eq!(livekit.shows("EG_before").unwrap().error, "", "what ran there goes on");

    // A target that cannot be opened changes nothing.
    dispatcher.reload("nonsense: true\n");
    dispatcher.reload(&ground.config("targets: [{ name: bad, launcher: moon }]\n"));
    dispatcher.reload(&ground.config(&format!("targets: [{FAR}]\n")));
    open("new", 0.0).await;
    open("far", 1.0).await;
    assert!(dispatcher.is_alive());
}

/// A container's health check has the program and nothing else: no configuration, no shell.
#[tokio::test]
async fn a_dispatcher_is_asked_for_its_health_by_its_own_program() {
    let ground = Ground::start().await;
    let dispatcher = ground.dispatcher(&ground.config("")).await;
    let port = dispatcher.port().to_owned();
    eventually("healthy", async || ground.run("", &["healthy", "--port", &port]).ok).await;
    drop(dispatcher);
    let gone = ground.run("", &["healthy", "--port", &port]);
    assert!(!gone.ok && gone.error.contains("connect to the health port"), "{gone:?}");
}

#[tokio::test]
async fn a_look_for_what_was_lost_names_it_and_changes_nothing() {
    let ground = Ground::start().await;
    let config = ground.config("");
    let clean = ground.run(&config, &["--sweep", "--dry-run"]);
    assert_eq!((clean.ok, clean.out.as_str()), (true, "0 found, nothing was changed\n"), "{clean:?}");
    let registry = Registry::new(&ground.bus().await);
    let mut record = Record::new(id("EG_lost"), 1);
    (record.state, record.attempt) = (LaunchState::Running { task: None, ending: false }, 1);
    registry.create(&record).await.unwrap();
    let before = registry.get(&record.egress_id).await.unwrap();
    let found = ground.run(&config, &["--sweep", "--dry-run"]);
    let line = "egress\tEG_lost\trunning\tit has no task and no heartbeat; to be ended";
    assert_eq!(found.out, format!("{line}\n1 found, nothing was changed\n"), "{found:?}");
    assert_eq!(registry.get(&record.egress_id).await.unwrap(), before);
    let wrong = ground.run(&config, &["--dry-run"]);
    assert!(!wrong.ok && wrong.error.contains("--sweep"), "{wrong:?}");
}

/// Ends as a runner that cannot report.
const SPEECHLESS: &str = r#"read handover
[ "$1" = --probe ] || exit 9
echo '{"probe":{"check":"redis","outcome":"failed","message":"wrong version number","cause":"redis_tls"}}' >&2
exit 84"#;

#[tokio::test]
async fn a_probe_whose_task_cannot_report_is_explained_and_leaves_nothing() {
    let ground = Ground::start().await;
    let with = |name: &str, text: &str| {
        let program = ground.script(name, text);
        ground.config(&format!(
            "targets: [{{ name: here, launcher: process, options: {{ runner_program: {program} }} }}]\n"
        ))
    };
    let config = with("speechless", SPEECHLESS);
    let told = ground.run(&config, &["probe", "--target", "here"]);
    assert!(!told.ok && told.error.contains("a recording would fail on here"), "{told:?}");
    assert!(told.out.contains("✓ launch"), "{}", told.out);
    assert!(
        told.out.contains(
            "✗ redis            wrong version number (exit status 84)\n    change: Make both sides agree on TLS"
        ),
        "{}",
        told.out
    );
    let json = ground.run(&config, &["probe", "--json"]);
    let document: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert!(!json.ok && document[0]["ok"] == false && document[0]["target"] == "here", "{document}");
    let failed = document[0]["findings"].as_array().unwrap().iter().find(|line| line["outcome"] == "failed").unwrap();
    assert_eq!((failed["check"].as_str(), failed["cause"].as_str()), (Some("redis"), Some("redis_tls")));

    for (name, text, cause) in [
        ("old", "echo \"error: unexpected argument '--probe' found\" >&2; exit 2", "knows no probe"),
        ("broken", "echo 'libgst.so.0: not found' >&2; exit 127", "Read the log"),
        ("keyless", "exit 88", "same ticket_key"),
        ("deaf", "exec sleep 60", "--timeout"),
    ] {
        let told = ground.run(&with(name, text), &["probe", "--target", "here", "--timeout", "3"]);
        assert!(!told.ok && told.out.contains(cause), "{name}: {}", told.out);
    }
    let nothing =
        ground.config("targets: [{ name: here, launcher: process, options: { runner_program: /nowhere/runner } }]\n");
    let told = ground.run(&nothing, &["probe"]);
    assert!(!told.ok && told.out.contains("✗ launch") && told.out.contains("runner_program must be"), "{told:?}");
    let wrong = ground.run(&config, &["probe", "--target", "moon"]);
    assert!(!wrong.ok && wrong.error.contains("there is no target moon; there are here"), "{wrong:?}");

    // A heartbeat expires within half a minute; nothing else is there.
    let left: Vec<String> = ground.keys("spillway:*PB_*").into_iter().filter(|key| !key.ends_with(":beat")).collect();
    assert!(left.is_empty(), "{left:?}");
    let registry = Registry::new(&ground.bus().await);
    assert!(registry.list_live().await.unwrap().is_empty(), "no record is made");
    let bill = ground.run(&config, &["bill", "--since", "1d", "--csv"]);
    assert_eq!(bill.out.lines().count(), 1, "nobody is billed: {}", bill.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_shown_as_they_come_with_what_to_change() {
    let ground = Ground::start().await;
    // Says its id, and is there until its report is complete.
    let program = ground
        .script("runner", "read handover\necho $SPILLWAY_EGRESS_ID > $0.id.tmp; mv $0.id.tmp $0.id\nexec sleep 30");
    let config = ground
        .config(&format!("targets: [{{ name: here, launcher: process, options: {{ runner_program: {program} }} }}]\n"));
    let reports = ProbeReports::new(&ground.bus().await);
    let (told_id, written) = (format!("{program}.id"), reports.clone());
    let runner = tokio::spawn(async move {
        let id = loop {
            match std::fs::read_to_string(&told_id) {
                Ok(text) => break id(text.trim()),
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            }
        };
        let lines = vec![
            ProbeLine::passed("redis", "version 7.2"),
            ProbeLine::warned("media", ProbeCause::NoUdp, "tcp: no UDP, streams lag"),
            ProbeLine::noted("store S3", "written; it may not be removed and stays"),
        ];
        written.put(&id, &ProbeReport { lines: lines[..1].to_vec(), is_over: false }).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        written.put(&id, &ProbeReport { lines, is_over: true }).await.unwrap();
        id
    });
    let told = tokio::task::block_in_place(|| ground.run(&config, &["probe", "--target", "here", "--timeout", "20"]));
    assert!(told.ok, "a warning is no failure: {told:?}");
    let id = runner.await.unwrap();
    for line in [
        "✓ start            first line",
        "✓ redis            version 7.2\n",
        "! media            tcp: no UDP, streams lag\n    change: Open UDP",
        "· store S3         written; it may not be removed and stays\n",
        "here: a recording would work, 1 of its checks with a warning",
    ] {
        assert!(told.out.contains(line), "{line} in {}", told.out);
    }
    assert_eq!(reports.get(&id).await.unwrap(), None, "the report is removed");
    assert!(told.error.contains(id.as_str()), "the log names it: {}", told.error);
}

#[tokio::test]
async fn a_doctor_names_what_is_wrong_from_here() {
    let ground = Ground::start().await;
    let told = ground.run(&ground.config(""), &["doctor"]);
    assert!(!told.ok && told.out.contains("✓ configuration") && told.out.contains("✓ redis"), "{told:?}");
    assert!(told.out.contains("✗ livekit-server") && told.out.contains("change: Set ws_url"), "{}", told.out);
    let evicting = ground.run(&ground.config(""), &["doctor", "--json"]);
    let document: serde_json::Value = serde_json::from_str(&evicting.out).unwrap();
    assert!(document["ok"] == false && document["findings"][0]["check"] == "configuration", "{document}");
    let away = ground.run(&ground.config("").replace(&ground.redis, "127.0.0.1:1"), &["doctor"]);
    assert!(!away.ok && away.out.contains("✗ redis") && away.out.contains("change: Make Redis reachable"), "{away:?}");
    let unreadable = ground.run("nonsense: true\n", &["doctor", "--json"]);
    let document: serde_json::Value = serde_json::from_str(&unreadable.out).unwrap();
    assert!(!unreadable.ok && document["findings"][0]["outcome"] == "failed", "{document}");
}
