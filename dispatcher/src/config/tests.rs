//! Files as operators have them → `Config`, errors, and the reference.

use std::collections::BTreeMap;

use spillway_plan::Provider;
use spillway_protocol::Secret;

use super::*;

const MINIMAL: &str =
    "redis:\n  address: localhost:6379\napi_key: key\napi_secret: canary\nws_url: ws://localhost:7880\n";

fn refusal(text: &str) -> String {
    match read(text, &|_| None).and_then(|file| Config::from_file(&file)) {
        Err(ConfigError::Yaml(refusal)) => refusal.to_string(),
        Err(error) => error.to_string(),
        Ok(_) => panic!("accepted: {text}"),
    }
}

#[test]
fn three_lines_are_enough() {
    let config = Config::from_yaml(MINIMAL).unwrap();
    assert_eq!((config.redis.address.as_str(), config.ws_url.as_str()), ("localhost:6379", "ws://localhost:7880"));
    assert!(config.defaults.mints_tokens && config.defaults.knows_server);
    assert_eq!((config.health, config.queue), (None, 200));
    assert!(!format!("{config:?}").contains("canary"));
}

#[test]
fn recordings_are_resumed_unless_that_is_off() {
    let with = |text: &str| Config::from_yaml(&format!("{MINIMAL}{text}")).unwrap();
    for text in ["", "resume: auto\n"] {
        assert_eq!((with(text).resume, with(text).runner.get("media_restarts")), (true, None), "{text}");
    }
    let off = with("resume: off\n");
    assert_eq!((off.resume, &off.runner["media_restarts"]), (false, &0.into()));
    assert!(refusal("resume: never\n").contains("possible are auto, off"));
}

#[test]
fn what_is_wrong_is_told_with_key_line_and_the_name_that_was_meant() {
    for (text, message) in [
        ("redis: {address: a:1}\napi_kye: x\n", "line 2: `api_kye` is not a key, did you mean `api_key`?"),
        ("redis:\n  adress: a:1\n", "line 2: `redis.adress` is not a key, did you mean `address`?"),
        ("redis: {address: a:1}\nlevel: debug\n", "line 2: `level` is not a key, did you mean `logging.level`?"),
        (
            "logging:\n  level: loud\n",
            "line 2: `logging.level` cannot be \"loud\", possible are debug, info, warn, error",
        ),
        (
            "\nlauncher: lambda\n",
            "line 2: `launcher` cannot be \"lambda\", possible are process, simulated, ecs, cloud-run, aci, docker",
        ),
        ("queue: 3\nbid: 0\n", "line 2: `bid` is wrong: 0 is not above 0 and at most 1"),
        ("queue: 3\ndrain: 30\n", "line 2: `drain` is wrong: 30 has no unit, write it like 30s or 30ms"),
        (
            "session_limits:\n  file_output_max_duration: long\n",
            "line 2: `session_limits.file_output_max_duration` is wrong: \"long\" is no duration",
        ),
        ("ws_url: localhost\n", "line 1: `ws_url` is wrong: not a URL like wss://"),
        ("health_port: many\n", "line 1: `health_port` is wrong: invalid type"),
        ("storage:\n  s3:\n    bukcet: b\n", "line 3: `storage.s3.bukcet` is not a key, did you mean `bucket`?"),
        ("redis: [\n", "line "),
        ("zzzzzzzzzz: 1\n", "line 1: `zzzzzzzzzz` is not a key"),
        ("api_key: a\napi_key: b\n", "duplicate"),
    ] {
        let given = refusal(text);
        assert!(given.contains(message), "{text}\n{given}");
    }
    for (text, message) in [
        (
            "s3:\n  proxy_config: http://me:canary@proxy:3128\n",
            "`s3.proxy_config` is wrong: invalid type: string, expected ",
        ),
        ("azure: canary\n", "`azure` is wrong: invalid type: string, expected "),
        ("redis: redis://:canary@r:6379\n", "`redis` is wrong: invalid type: string, expected "),
        ("api_secret: [canary]\n", "`api_secret` is wrong: invalid type: sequence, expected "),
    ] {
        let given = refusal(text);
        assert!(given.contains(message) && !given.contains("canary"), "{given}");
    }
    assert!(!refusal("zzzzzzzzzz: 1\n").contains("did you mean"));
}

#[test]
fn what_contradicts_itself_is_refused() {
    for (more, message) in [
        ("health_port: 1\nhealth: 127.0.0.1:2\n", "`health`: stands beside health_port"),
        ("s3: {bucket: a}\nstorage: {s3: {bucket: b}}\n", "`s3`: stands beside storage.s3"),
        ("ticket_key: short\n", "`ticket_key`: "),
    ] {
        let given = refusal(&format!("{MINIMAL}{more}"));
        assert!(given.contains(message), "{given}");
    }
    assert!(refusal("api_key: x\n").contains("redis is not configured"));
    assert!(refusal("redis: {address: a:1}\napi_key: x\n").contains("`api_secret`: key and secret belong together"));
    assert!(refusal("redis: {address: a:1}\n").contains("`ticket_key`: needed"));
}

#[test]
fn a_file_of_2022_is_still_understood() {
    let config = Config::from_yaml(
        "log_level: debug\napi_key: k\napi_secret: s\nws_url: wss://x\nhealth_port: 9090\nprometheus_port: 9091\n\
         template_base: https://x\ninsecure: true\nredis:\n  address: r:6379\n  username: u\n  password: p\n  db: 2\n\
         s3:\n  access_key: a\n  secret: b\n  region: c\n  bucket: d\ncpu_cost:\n  room_composite_cpu_cost: 3\n",
    )
    .unwrap();
    assert_eq!((config.log_level.as_str(), config.redis.db), ("debug", 2));
    assert_eq!(config.health, Some("0.0.0.0:9090".parse().unwrap()));
    assert_eq!(config.defaults.pages.template_base.as_deref(), Some("https://x"));
    assert_eq!(
        config.runner,
        serde_json::json!({
            "guard": { "allow": [] }, "template_base": "https://x", "media": { "page": { "insecure": true } }
        })
    );
    let storage = config.defaults.storage;
    let Some(Provider::S3(s3)) = storage.primary else { panic!("no S3: {storage:?}") };
    assert_eq!((s3.access_key.reveal().as_str(), s3.region.as_str(), s3.bucket.as_str()), ("a", "c", "d"));
}

#[test]
fn each_kind_of_output_has_its_limits_and_zero_is_none() {
    let config = Config::from_yaml(&format!(
        "{MINIMAL}session_limits: {{stream_output_max_duration: 1s, segment_output_max_duration: 2s, \
         segment_output_max_size: 3, image_output_max_duration: 4s, file_output_max_duration: 0s}}\n"
    ))
    .unwrap();
    let limits = config.defaults.limits;
    assert_eq!((limits.file_max_duration_ns, limits.stream_max_duration_ns), (None, Some(1_000_000_000)));
    assert_eq!((limits.segment_max_duration_ns, limits.segment_max_bytes), (Some(2_000_000_000), Some(3)));
    assert_eq!((limits.image_max_duration_ns, limits.file_max_bytes), (Some(4_000_000_000), None));
}

#[test]
fn a_file_of_today_is_understood() {
    let config = Config::from_yaml(&format!(
        "{MINIMAL}logging: {{level: warn, json: true, sample: true}}\nlog_level: debug\ncluster_id: x\nenable_sync_engine: true\n\
         storage:\n  prefix: p\n  s3:\n    # nothing yet\nbackup:\nsession_limits:\n  file_output_max_duration: 90m\n  \
         file_output_max_size: 300000\nlatency:\n  jitter_buffer_latency: 1s\nlatency_overrides:\n  web: {{pipeline_latency: 3s}}\n\
         chrome_flags: {{mute-audio: true}}\ndisallow_local_storage: false\nio_workers: 5\n"
    ))
    .unwrap();
    assert_eq!((config.log_level.as_str(), config.log_json), ("warn", true));
    assert_eq!(config.defaults.limits.file_max_duration_ns, Some(5_400_000_000_000));
    assert_eq!(config.defaults.limits.file_max_bytes, Some(300_000));
    let page = serde_json::json!({ "flags": { "mute-audio": true } });
    let runner = serde_json::json!({ "guard": { "allow": [] }, "media": { "reorder_ms": 1000, "page": page } });
    assert_eq!(config.runner, runner);
    assert_eq!(config.defaults.storage.primary, None, "an empty section is no storage");
    assert_eq!(config.defaults.storage.prefix, "p");
}

#[test]
fn every_store_is_read_with_its_backup_and_a_wrong_one_is_refused_by_name() {
    let of = |text: &str| Config::from_yaml(&format!("{MINIMAL}{text}")).map(|config| config.defaults.storage);
    let storage = of("storage:\n  prefix: p\n  generate_presigned_url: true\n  gcp: {bucket: g}\n\
                      backup:\n  prefix: q\n  azure: {account_name: acc, account_key: a2V5, container_name: c}\n")
    .unwrap();
    assert!(matches!(&storage.primary, Some(Provider::Gcs(gcs)) if gcs.bucket == "g"));
    assert!(storage.presign && storage.prefix == "p");
    let backup = storage.backup.unwrap();
    assert!(matches!(&backup.provider, Provider::Azure(azure) if azure.container == "c") && backup.prefix == "q");
    let old = of("s3: {bucket: b, proxy: \"http://p:3128\", assume_role_arn: r}\nbackup_storage: /mnt/b\n").unwrap();
    let Some(Provider::S3(s3)) = &old.primary else { panic!("no S3: {old:?}") };
    assert_eq!(s3.proxy.as_ref().unwrap().url.reveal(), "http://p:3128");
    assert_eq!(s3.assume_role.as_ref().unwrap().arn, "r");
    assert!(matches!(old.backup.unwrap().provider, Provider::Local(_)));
    let message = |text| of(text).unwrap_err().to_string();
    assert!(message("s3: {region: x}\n").contains("s3 bucket"));
    assert!(message("azure: {account_name: a, account_key: \"?\", container_name: c}\n").contains("account_key"));
    assert!(message("s3: {bucket: b}\nstorage: {s3: {bucket: c}}\n").contains("storage.s3"));
    assert!(message("backup: {s3: {bucket: b}}\nbackup_storage: /x\n").contains("backup"));
}

#[test]
fn the_environment_fills_in_what_the_file_leaves_open() {
    let all = [
        ("LIVEKIT_API_KEY", "env-key"),
        ("LIVEKIT_API_SECRET", "env-secret"),
        ("LIVEKIT_WS_URL", "wss://env"),
        ("LIVEKIT_CPU_REQUEST", "2.5"),
        ("AWS_ACCESS_KEY_ID", "aws-id"),
        ("AWS_SECRET_ACCESS_KEY", "aws-secret"),
        ("AWS_DEFAULT_REGION", "eu-west-1"),
        ("AZURE_STORAGE_ACCOUNT", "account"),
        ("AZURE_STORAGE_KEY", "azure-key"),
        ("SPILLWAY_TICKET_KEY", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="),
        ("SPILLWAY_REDIS_PASSWORD", "env-password"),
    ];
    let all: BTreeMap<_, _> = all.into_iter().collect();
    let env = |name: &str| all.get(name).map(|value| (*value).to_owned());
    let password = |text| read(text, &env).unwrap().redis.unwrap().password.reveal().clone();
    assert_eq!(password("redis: {address: a:1}\n"), "env-password");
    assert_eq!(password("redis: {address: a:1, password: file}\n"), "file");
    let file =
        read("redis: {address: a:1}\napi_key: file-key\ns3: {bucket: b}\nazure: {container_name: c}\n", &env).unwrap();
    let config = Config::from_file(&file).unwrap();
    assert_eq!((config.api_key.as_str(), config.ws_url.as_str()), ("file-key", "wss://env"));
    assert_eq!((config.api_secret.reveal().as_str(), config.cores), ("env-secret", Some(2.5)));
    assert_eq!(file.ticket_key.unwrap().reveal(), "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=");
    let s3 = file.s3.unwrap();
    assert_eq!((s3.access_key.unwrap().reveal().as_str(), s3.region.as_deref()), ("aws-id", Some("eu-west-1")));
    let azure = file.azure.unwrap();
    assert_eq!(
        (azure.account_name.as_deref(), azure.account_key.unwrap().reveal().as_str()),
        (Some("account"), "azure-key")
    );
}

#[test]
fn the_credentials_of_google_are_read_from_the_file_they_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key.json");
    std::fs::write(&path, "{}").unwrap();
    let env = |name: &str| (name == "GOOGLE_APPLICATION_CREDENTIALS").then(|| path.display().to_string());
    let file = read("gcp: {bucket: b}", &env).unwrap();
    assert_eq!(file.gcp.unwrap().credentials_json.unwrap().reveal(), "{}");
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(read("gcp: {bucket: b}", &env), Err(ConfigError::File { .. })));
    assert!(read("redis: {}", &env).is_ok(), "no section, no question");
}

#[test]
fn the_text_is_the_body_or_the_file() {
    assert!(matches!(text_of(None, None), Err(ConfigError::Missing)));
    assert!(matches!(text_of(Some(String::new()), Some(PathBuf::new())), Err(ConfigError::Missing)));
    assert_eq!(text_of(Some("a".into()), Some("/nowhere".into())).unwrap(), "a");
    assert!(matches!(text_of(None, Some("/nowhere".into())), Err(ConfigError::File { .. })));
}

/// A file in which every key has a value; texts are the canary.
fn full() -> File {
    let mut root = serde_yaml_ng::Mapping::new();
    for row in keys::rows() {
        let value = match row.kind {
            "text" if row.key.ends_with(".tagging") => "a=canary".into(),
            "text" if row.key.ends_with(".proxy") || row.key.ends_with(".url") => "http://me:canary@host".into(),
            "text" if row.key.ends_with(".page_proxy") || row.key == "template_base" => "http://me:canary@host".into(),
            "text" => "canary".into(),
            "path" => "/p".into(),
            "true/false" => true.into(),
            "number" => 1.into(),
            "duration" => "1s".into(),
            "address" => "127.0.0.1:1".into(),
            "URL" => "wss://me:canary@host".into(),
            "word" if row.key.ends_with("launcher") => "process".into(),
            "word" if row.key.ends_with("capacity") => "spot".into(),
            "word" if row.key.ends_with("over_budget") => "warn".into(),
            "word" if row.key == "tenants.by" => "room_prefix".into(),
            "word" if row.key == "composite_engine" => "page".into(),
            "word" if row.key == "resume" => "auto".into(),
            "word" => "info".into(),
            "list" if row.key.ends_with("kinds") => serde_yaml_ng::Value::Sequence(vec!["track".into()]),
            "list" if row.key.ends_with("outputs") => serde_yaml_ng::Value::Sequence(vec!["disk".into()]),
            "list" => serde_yaml_ng::Value::Sequence(vec!["a".into()]),
            "map" => serde_yaml_ng::Value::Mapping(serde_yaml_ng::Mapping::new()),
            kind => panic!("{kind} of {}", row.key),
        };
        let mut at = &mut root;
        let mut names: Vec<&str> = row.key.split('.').collect();
        let last = names.pop().unwrap();
        for name in names {
            let mapping = || serde_yaml_ng::Value::Mapping(Default::default());
            let inner = match name.strip_suffix("[]") {
                None => at.entry(name.into()).or_insert_with(mapping),
                Some(name) => {
                    let list = at.entry(name.into()).or_insert_with(|| serde_yaml_ng::Value::Sequence(vec![mapping()]));
                    &mut list.as_sequence_mut().unwrap()[0]
                }
            };
            at = inner.as_mapping_mut().unwrap();
        }
        at.insert(last.into(), value);
    }
    let text = serde_yaml_ng::to_string(&root).unwrap();
    read(&text, &|_| None).unwrap_or_else(|error| panic!("{error:?}\n{text}"))
}

#[test]
fn every_key_of_the_reference_can_be_read_and_no_secret_is_printed() {
    let mut file = full();
    // Where the reference calls a text no secret, it may be printed.
    let not_secret = keys::rows().into_iter().filter(|row| row.kind == "text" && !row.secret).map(|row| row.key);
    let not_secret: Vec<String> = not_secret.map(|key| key.rsplit('.').next().unwrap_or_default().to_owned()).collect();
    (file.health_port, file.s3, file.azure, file.gcp, file.alioss) = (None, None, None, None, None);
    (file.backup_storage, file.launcher, file.prices) = (None, None, None);
    file.runner.as_mut().unwrap().stream_ca_file = None;
    file.ticket_key = Some(Secret::new("00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff".to_owned()));
    let console = file.console.as_mut().unwrap();
    console.token = Some(Secret::new("00112233445566778899aabb".to_owned()));
    console.stop_token = Some(Secret::new("001122334455667788990011".to_owned()));
    let config = Config::from_file(&file).unwrap();
    let report = check::report(&config, &file).unwrap();
    assert!(!report.contains("me:canary") && !report.contains("00112233"), "{report}");
    for line in report.lines().filter(|line| line.contains("canary")) {
        let key = line.split(':').next().unwrap_or_default().trim().trim_start_matches("- ");
        assert!(not_secret.iter().any(|name| name == key), "{line}");
    }
    assert!(not_secret.len() > 6 && report.contains("bucket: canary") && report.contains("[secret]"), "{report}");
}

#[test]
fn a_check_says_what_holds_and_what_was_said_in_vain() {
    let file = read(
        &format!("{MINIMAL}s3: {{bucket: b, secret: canary}}\ninsecure: true\nvideo_encoder_threads: 2\ncluster_id: x\nqueue: 7\n"),
        &|_| None,
    )
    .unwrap();
    let report = check::report(&Config::from_file(&file).unwrap(), &file).unwrap();
    for message in [
        "queue: 7",
        "api_secret: '[secret]'",
        "address: localhost:6379",
        "bucket: b",
        "secret: '[secret]'",
        "not used yet",
        "without effect here",
        "cluster_id (livekit-server addresses no cluster)",
    ] {
        assert!(report.contains(message), "{message}\n{report}");
    }
    assert!(!report.contains("canary") && !report.contains("pool_size"));
    // What it prints is itself a configuration.
    let again = read(&report, &|_| None).unwrap();
    assert_eq!(again.queue, Some(7));
}

#[test]
fn the_authorities_of_streams_travel_as_text_and_are_read_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let given = |text: Option<&str>| {
        let path = folder.path().join("ca.pem");
        match text {
            Some(text) => std::fs::write(&path, text).unwrap(),
            None => drop(std::fs::remove_file(&path)),
        }
        let path = path.display();
        Config::from_yaml(&format!("{MINIMAL}runner: {{stream_ca_file: {path}}}\n"))
    };
    let text = "# ours\n-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    assert_eq!(given(Some(text)).unwrap().runner["media"], serde_json::json!({ "streams": { "ca": text } }));
    assert!(matches!(given(Some("nothing")), Err(ConfigError::Value { key: "runner.stream_ca_file", .. })));
    assert!(matches!(given(None), Err(ConfigError::File { .. })));
}

#[test]
fn what_requests_may_name_is_checked_at_the_start_and_goes_to_the_runner() {
    let given = |guard: &str| Config::from_yaml(&format!("{MINIMAL}{guard}"));
    let closed = given("").unwrap();
    assert_eq!((closed.guard.allow.len(), &closed.runner["guard"]), (0, &serde_json::json!({ "allow": [] })));
    let open = given("guard:\n  allow: [10.0.0.0/8, \"minio:9000\"]\n  own_buckets: [team]\n").unwrap();
    assert_eq!(open.runner["guard"], serde_json::json!({ "allow": ["10.0.0.0/8", "minio:9000"] }));
    assert_eq!(open.guard.allow, ["10.0.0.0/8", "minio:9000"]);
    assert_eq!(open.defaults.storage.own_buckets, ["team"]);
    let refused = given("guard: {allow: [10.0.0.0/40]}\n").unwrap_err().to_string();
    assert!(refused.contains("guard.allow") && refused.contains("10.0.0.0/40"), "{refused}");
}

#[test]
fn sheets_are_off_unless_they_are_asked_for() {
    let sheets = |given: &str| Config::from_yaml(&format!("{MINIMAL}{given}")).map(|config| config.defaults.sheets);
    assert_eq!(sheets("").unwrap(), spillway_plan::SheetRules::default());
    assert_eq!(sheets("runner: {thumbnails: 0s}\n").unwrap(), spillway_plan::SheetRules::default());
    let all = sheets("runner: {poster: true, contact_sheet: true, thumbnails: 5s}\n").unwrap();
    let expected = spillway_plan::SheetRules { poster: true, contact_sheet: true, thumbnails_ns: Some(5_000_000_000) };
    assert_eq!(all, expected);
    let refused = sheets("runner: {thumbnails: 900ms}\n");
    assert!(matches!(refused, Err(ConfigError::Value { key: "runner.thumbnails", .. })), "{refused:?}");
}

#[test]
fn pages_have_an_engine_a_template_and_a_browser() {
    use spillway_plan::CompositeEngine::{Auto, Native, Page};
    let of = |text: &str| Config::from_yaml(&format!("{MINIMAL}{text}"));
    for (text, engine, base) in [
        ("", Auto, None),
        ("composite_engine: native\n", Native, None),
        ("composite_engine: page\ntemplate_base: https://t/a?b=c\n", Page, Some("https://t/a?b=c")),
        ("composite_engine: page\n", Page, Some(spillway_plan::built_in_template::URL)),
        (
            "composite_engine: page\ntemplate_base: http://localhost:7980/\n",
            Page,
            Some(spillway_plan::built_in_template::URL),
        ),
        ("template_base: http://localhost:7980/\n", Auto, None),
        ("template_base: http://127.0.0.1:7981\ntemplate_port: 7981\n", Auto, None),
        ("template_base: http://localhost:3000/\n", Auto, Some("http://localhost:3000/")),
        ("template_base: ''\n", Auto, None),
    ] {
        let config = of(text).unwrap();
        let pages = config.defaults.pages;
        assert_eq!((pages.engine, pages.template_base.as_deref()), (engine, base), "{text}");
        assert_eq!(config.runner.get("template_base").and_then(|base| base.as_str()), base, "{text}");
    }
    let all = of(
        "insecure: false\nenable_chrome_sandbox: true\nchrome_flags: {--lang: de, scale: 1.5, kiosk: false, mute-audio: }\n\
                  runner: {chromium: /opt/chromium, allow_webrtc: true, page_proxy: 'http://me:canary@proxy:3128', template_folder: /t}\n",
    );
    let page = serde_json::json!({
        "chromium": "/opt/chromium", "sandbox": true, "insecure": false, "allow_webrtc": true,
        "proxy": "http://me:canary@proxy:3128", "template_folder": "/t",
        "flags": {"lang": "de", "scale": "1.5", "kiosk": false, "mute-audio": true}
    });
    assert_eq!(all.unwrap().runner, serde_json::json!({ "guard": { "allow": [] }, "media": { "page": page } }));
    for (text, key, message) in [
        ("template_base: x\n", "template_base", "no URL"),
        ("template_base: ftp://x\n", "template_base", "http"),
        ("template_base: https://x\ncomposite_engine: native\n", "template_base", "keep one of them"),
        ("runner: {page_proxy: 'socks5://proxy'}\n", "runner.page_proxy", "3128"),
        ("chrome_flags: [a]\n", "chrome_flags", "not a map"),
        ("chrome_flags: {a b: true}\n", "chrome_flags", "no name"),
        ("chrome_flags: {a: [b]}\n", "chrome_flags", "neither"),
    ] {
        let error = of(text).unwrap_err();
        let is_named = matches!(&error, ConfigError::Value { key: named, .. } if *named == key);
        assert!(is_named && error.to_string().contains(message), "{text} {error}");
    }
    assert!(of("composite_engine: webgl\n").is_err());
}

/// Regenerate with `SPILLWAY_WRITE_REFERENCE=1 cargo test --workspace config_md_carries`.
#[test]
fn config_md_carries_the_reference() {
    const BEGIN: &str = "<!-- config:begin -->\n";
    const END: &str = "<!-- config:end -->";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/CONFIG.md");
    let document = std::fs::read_to_string(path).unwrap();
    let begin = document.find(BEGIN).expect("the mark is there") + BEGIN.len();
    let end = begin + document[begin..].find(END).expect("the end mark is there");
    let expected = check::reference();
    if std::env::var_os("SPILLWAY_WRITE_REFERENCE").is_some() {
        std::fs::write(path, format!("{}{expected}{}", &document[..begin], &document[end..])).unwrap();
        return;
    }
    assert!(document[begin..end] == expected, "CONFIG.md differs from the types; see the comment of this test");
}

#[test]
fn settings_mean_the_same_to_the_runner() {
    let given = "runner: {start_timeout: 1ms, hang_after: 2ms, drain_timeout: 3ms, report_timeout: 4ms, last_report_timeout: 13ms, reorder: 5ms, live_reorder: 14ms, appear: 6ms, return_grace: 15ms, \
                backlog_bytes: 7, spill_dir: /s, fragment: 8ms, checkpoint: 9ms, spool_dir: /t, spool_bytes: 10, outage: 11ms, \
                backup_after: 12ms, write_check: false, stream_tls_skip_verify: true, streams_thin_files: false}\n";
    let file = read(&format!("{MINIMAL}{given}"), &|_| None).unwrap();
    let json = Config::from_file(&file).unwrap().runner;
    let media = &json["media"];
    let read: spillway_ipc::MediaSettings = serde_json::from_value(media.clone()).unwrap();
    assert_eq!((read.reorder_ms, read.appear_ms, read.backlog_bytes, read.fragment_ms), (5, 6, 7, 8));
    assert_eq!((read.live_reorder_ms, read.streams_thin_files, read.return_grace_ms), (14, false, 15));
    assert_eq!(read.spill_dir, Some(PathBuf::from("/s")));
    assert_eq!(read.streams, spillway_ipc::StreamSettings { ca: None, tls_skip_verify: true });
    let upload = serde_json::json!({
        "checkpoint_ms": 9, "spool_dir": "/t", "spool_cap_bytes": 10, "max_outage_ms": 11, "backup_after_ms": 12,
        "write_check": false,
    });
    assert_eq!(json["upload"], upload);
    let keys = ["start_timeout_ms", "hang_after_ms", "drain_timeout_ms", "report_timeout_ms", "last_report_timeout_ms"];
    let rest = keys.map(|key| json[key].clone());
    assert_eq!(rest, [1, 2, 3, 4, 13].map(serde_json::Value::from));
}
