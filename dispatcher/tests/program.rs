//! The program from its command line, against a real Redis: `bill`, `price`, `target`, `--sweep`, SIGHUP.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in the harness too")]

#[path = "program/ground.rs"]
mod ground;

use ground::{Ground, bill, eventually, id};
use spillway_bus::{LaunchState, Record, Registry, Tasks};

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
