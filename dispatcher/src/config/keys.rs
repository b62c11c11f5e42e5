//! Every key of the file: ours, those of livekit/egress today, and those of its version of 2022. Declarations only; the
//! reference in `CONFIG.md` is generated from the descriptions here.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use spillway_bus::RedisConfig;
use spillway_plan::{CompositeEngine, EgressKind};
use spillway_protocol::Secret;

use super::duration::GoDuration;
use super::section::{Explained, KeyEffect, KeyRow, below, leaf, section};
use super::values::{
    Affinity, CapacityName, Cores, LauncherName, Level, OutputName, OverBudgetName, ResumeName, ServerUrl, TenantByName,
};

section!(
    /// The whole file.
    File {
    Used "" redis: RedisConfig,
    Used "LiveKit API key; makes room tokens for requests without one. Env `LIVEKIT_API_KEY`" api_key: String,
    Used "and its secret. Env `LIVEKIT_API_SECRET`" api_secret: Secret,
    Used "livekit-server as the runner reaches it, `ws://` or `wss://`. Env `LIVEKIT_WS_URL`" ws_url: ServerUrl,
    Used "" logging: Logging,
    Used "old name of `logging.level`" log_level: Level,
    Used "port of `/healthz` and `/readyz` on every address; 0: not served" health_port: u16,
    Used "the same with an address, e.g. `127.0.0.1:7981`" health: SocketAddr,
    Used "" push: Push,
    Used "" console: Console,
    Used "`details` of an egress that the dispatcher ends because its task is gone name the task's page in its platform's console. EgressInfo goes to users and webhooks, so this is off; the ledger, the log and the console have it always" links_in_details: bool,
    Used "`process`: a child of the dispatcher for each recording; `simulated`: starts no process, records nothing; `ecs`, `cloud-run`, `aci` and `docker` need `targets`" launcher: LauncherName,
    Used "where recordings may run, the first that can take one does; instead of `launcher`" targets: Vec<Target>,
    Used "which tenant a recording belongs to; caps, weights and budgets" tenants: Tenants,
    Used "tasks at once, of all dispatchers and targets" max_tasks: u64,
    Used "tells our tasks from those of other installations in the same place; needed for ecs, cloud-run, aci and docker, one name for each installation" stack: String,
    Used "a task that was seen without an egress and without a heartbeat for so long is ended" orphan_grace: GoDuration,
    Used "price list instead of the built-in one; `spillway-dispatcher price --list` prints that" prices: PathBuf,
    Used "`spillway-runner` to start; without it the one beside the dispatcher" runner_program: PathBuf,
    Used "where each runner's log goes; without it into the dispatcher's own" runner_log_dir: PathBuf,
    Used "local files lie below it, whatever their names say (`/a.mp4` too, unless it begins with it); without it relative names begin in the working directory and absolute ones are used as they are" local_root: PathBuf,
    Used "2022's name of `local_root`" local_directory: PathBuf,
    Used "cores given to recordings; without it all of this host. Env `LIVEKIT_CPU_REQUEST`" cores: Cores,
    Used "recordings of this dispatcher at once, whatever their weight; without it no bound" max_recordings: u64,
    Used "accepted requests that may wait in the launch queue" queue: u64,
    Used "how long each of them may wait" queue_deadline: GoDuration,
    Used "from launch to a runner that has taken over; after that it is launched again or fails" start_deadline: GoDuration,
    Used "how long heartbeats may be missing while the platform says the task runs; after that the task is ended and its egress fails" heartbeat_timeout: GoDuration,
    Used "`auto`: a recording whose media process dies, or hangs, goes on with another one in further files and the same playlists, three times an hour at most; where a task dies another task goes on, on `process` and `docker` targets and on spot capacity. The gap is in `details`. `off`: the egress ends as FAILED with what is kept, or as ABORTED where the platform told the task to leave" resume: ResumeName,
    Used "how long SIGTERM waits for work in hand; recordings go on by themselves" drain: GoDuration,
    Used "psrpc affinity of our claims, above 0 to 1; below 1 lets other egress services on the same Redis win" bid: Affinity,
    Used "32 bytes in base64 or hex that encrypt tickets in Redis; without it derived from `api_secret`. Env `SPILLWAY_TICKET_KEY`" ticket_key: Secret,
    Used "" runner: Runner,
    Used "" session_limits: SessionLimits,
    Used "" guard: Guard,
    Used "a file without an upload is refused" disallow_local_storage: bool,
    Used "" latency: Latency,
    Used "" storage: Storage,
    Used "" backup: Storage,
    Used "2022's place of `storage.s3`" s3: S3,
    Used "2022's place of `storage.azure`" azure: Azure,
    Used "2022's place of `storage.gcp`" gcp: Gcp,
    Used "old place of `storage.alioss`" alioss: AliOss,
    Used "old form of `backup`: a directory of the runner's machine" backup_storage: PathBuf,
    Used "key that takes the role of requests with a role and no key" s3_assume_role_key: Secret,
    Used "" s3_assume_role_secret: Secret,
    Used "role for requests without one" s3_assume_role_arn: String,
    Used "" s3_assume_role_external_id: Secret,
    Used "`auto`: a room composite is a web page where it has `custom_base_url` or there is a `template_base`, else it is composed without one; `native`: never a page, `custom_base_url` is refused; `page`: always one, but for sound alone without a layout" composite_engine: CompositeEngine,
    Used "template of room composites whose request brings none (`custom_base_url`): the address of a web page. Without it these have built-in layouts, composed or, with `composite_engine: page`, as a page of ours; livekit/egress' own address of its built-in template (`http://localhost:7980/`) means the same" template_base: String,
    Used "port in that address" template_port: u16,
    Used "the browser of a page does not guard origins and mixed content" insecure: bool,
    Used "the browser's own sandbox; without it where the system allows one. `true`: without a sandbox nothing is recorded; `false`: none" enable_chrome_sandbox: bool,
    Used "flags of Chromium by name: `true` or a value; `false` takes one of ours away. `enable-features` and `disable-features` are added to ours" chrome_flags: serde_json::Value,
    NotYet "minutes of segments and images that may wait for a storage" max_upload_queue: i64,
    Used "port of `/metrics` on every address; it is also served beside `/healthz`" prometheus_port: u16,
    NotYet "port of profiles and graphs" debug_handler_port: u16,
    NotYet "threads of x264" video_encoder_threads: u32,
    NotYet "debug files and where they go" debug: Debug,
    Without "livekit-server addresses no cluster" cluster_id: String,
    Without "calls to livekit-server are repeated until the end is delivered" io_create_timeout: GoDuration,
    Without "likewise" io_update_timeout: GoDuration,
    Without "likewise" io_selection_timeout: GoDuration,
    Without "each egress has its own queue" io_workers: i64,
    Without "weights come from the plan of each request" cpu_cost: CpuCost,
    Without "one timeline serves every request" latency_overrides: BTreeMap<String, Latency>,
    Without "sender reports always count" enable_one_shot_sender_report_sync: bool,
    Without "likewise" enable_sync_engine: bool,
    Without "drift is always corrected" audio_tempo_controller: TempoController,
    Without "no PulseAudio" pulse_sink_reap_grace_sec: i64,
    Without "faults are injected by tests" test_overrides: TestOverrides,
    Without "2022's; the log has one level" aws_log_level: Level,
});

section!(
    /// Whose pushed events are accepted.
    Push {
    Used "audience of the tokens that come with events at `/events/cloudrun`; without it none is asked for: on Cloud Run, IAM has checked them, and an event only says where to look" audience: String,
    Used "email of the service account that pushes them" service_account: String,
    Used "where the keys of these tokens are published; without it Google's" keys: String,
});

section!(
    /// The page and the JSON API for operators.
    Console {
    Used "opens the console for reading, 24 characters or more; without one of the two tokens there is no console. Env `SPILLWAY_CONSOLE_TOKEN` where there is a section `console`" token: Secret,
    Used "likewise, and stops egresses. Env `SPILLWAY_CONSOLE_STOP_TOKEN`" stop_token: Secret,
    Used "where it is served, without TLS; without it beside `/healthz`" address: SocketAddr,
});

section!(
    /// One entry of `targets`.
    Target {
    Used "what logs, metrics, bills and `spillway-dispatcher target` call it" name: String,
    Used "as `launcher`" launcher: LauncherName,
    Used "the launcher's own keys. `process`: runner_program, runner_log_dir; `simulated`: latency, burst, per_second; `ecs`: region, cluster, task_definition, subnets …; `cloud-run`: project, location, jobs …; `aci`: subscription, resource_group, location, image …; `docker`: image …" options: serde_json::Value,
    Used "`on-demand`, or `spot`: cheaper, and may be reclaimed" capacity: CapacityName,
    Used "tasks there at once, of all dispatchers" max_tasks: u64,
    Used "with `burst`; without them a little below what the platform takes. Slower by itself when the platform complains" launches_per_second: f64,
    Used "launches at once after a pause" burst: u32,
    Used "`room_composite`, `participant`, `track_composite`, `track`, `media`, `web`; without it all" kinds: Vec<EgressKind>,
    Used "`upload` and `disk`; without it both, in containers only `upload`" outputs: Vec<OutputName>,
    Used "for the price; without it the platform's first in the list" region: String,
    Used "`x86_64` or `arm64`, likewise" arch: String,
    Used "media go through a NAT gateway; for the price" nat: bool,
    Used "instead of the installation's" start_deadline: GoDuration,
});

section!(
    /// `tenants`: the rules of all of them.
    Tenants {
    Used "`none`: there is one tenant; `room_prefix`: what stands before the `separator` in the room's name" by: TenantByName,
    Used "without it `/`" separator: String,
    Used "share of launches, relative to other tenants" weight: f64,
    Used "tasks of each tenant at once, of all dispatchers" max_recordings: u64,
    Used "accepted requests of each tenant that may wait at one dispatcher" max_waiting: u64,
    Used "dollars of finished tasks of each tenant in a calendar month (UTC)" month_budget: f64,
    Used "`refuse` new requests beyond the budget, or `warn` in the log" over_budget: OverBudgetName,
    Used "the same keys from `weight` on, by tenant" named: BTreeMap<String, Tenant>,
});

section!(
    /// One entry of `tenants.named`.
    Tenant {
    Used "" weight: f64,
    Used "" max_recordings: u64,
    Used "" max_waiting: u64,
    Used "" month_budget: f64,
    Used "" over_budget: OverBudgetName,
});

section!(
    /// `logging`.
    Logging {
    Used "`debug`, `info`, `warn`, `error`" level: Level,
    Used "a JSON object per line" json: bool,
    Without "every line is written" sample: bool,
    Without "" sample_initial: i64,
    Without "" sample_interval: i64,
    Without "" item_sample_seconds: i64,
    Without "" item_sample_initial: i64,
    Without "" item_sample_interval: i64,
    Without "" component_levels: serde_json::Value,
});

section!(
    /// Settings that the ticket carries to the runner.
    Runner {
    Used "how long a recording may wait for its first media; 0: until the room ends" start_timeout: GoDuration,
    Used "silence of the media process that counts as its death" hang_after: GoDuration,
    Used "how long the media process may stand still while it finishes its files" drain_timeout: GoDuration,
    Used "how long the runner waits for Redis to take its last report; a recording that cannot report counts as lost" last_report_timeout: GoDuration,
    Used "how long the runner offers its last report to livekit-server; after that the dispatcher does" report_timeout: GoDuration,
    Used "how long a hole in a track's RTP is waited for; also `latency.jitter_buffer_latency`" reorder: GoDuration,
    Used "how long a hole is waited for where a stream waits, too" live_reorder: GoDuration,
    Used "how long a named participant or track may take to appear" appear: GoDuration,
    Used "how long the participant of a Participant recording may be away before the recording ends: a page that is loaded anew leaves and joins again. The gap is in `details`; 0: it ends at once" return_grace: GoDuration,
    Used "bytes of encoded media that may wait for a busy CPU in memory before they go to `spill_dir`" backlog_bytes: u64,
    Used "where the backlog goes beyond that; without it the directory of the file, or without one the system's folder for temporary files" spill_dir: PathBuf,
    Used "fragments of a recording: what a `kill -9` may cost" fragment: GoDuration,
    Used "media that is not in the store yet is at most about so old: what the loss of the whole task may cost" checkpoint: GoDuration,
    Used "where files lie while they are uploaded; without it the system's folder for temporary files" spool_dir: PathBuf,
    Used "bytes of one recording that may wait there; then it ends with the reason" spool_bytes: u64,
    Used "how long a store may fail after the end of a recording; while it goes on, as long as the spool has room" outage: GoDuration,
    Used "how long the first store may fail before the backup takes over" backup_after: GoDuration,
    Used "stores are tried before the room is joined, so that a wrong bucket fails at once" write_check: bool,
    Used "PEM file with certificate authorities that servers of `rtmps` and `wss` streams and TURN servers are checked against beside those of the system; read by the dispatcher" stream_ca_file: PathBuf,
    Used "any certificate of a stream's server will do: the stream and its key go to whatever server answers" stream_tls_skip_verify: bool,
    Used "while a stream is watched and the machine cannot keep up, pictures are left out early, also of files and segments beside it; `false`: these come first, and the stream is late" streams_thin_files: bool,
    Used "a picture of each recording beside it: `{name}.jpg`. This and the next two are made of decoded pictures: beside a picture that is copied they cost its decoding, and a single Track has none" poster: bool,
    Used "up to 16 pictures of the whole recording in one image: `{name}-contact.jpg`" contact_sheet: bool,
    Used "from one thumbnail for players to the next, 1 s or more; 0: none. `{name}-thumbnails.vtt` and its sprite sheets; in a long recording the time between two becomes longer" thumbnails: GoDuration,
    Used "Chromium's program on the runner's machine, not a wrapper around it" chromium: PathBuf,
    Used "web pages may send datagrams to any address: for a page that is a WebRTC client itself. Templates always may" allow_webrtc: bool,
    Used "HTTP proxy of the network through which pages reach public hosts, where there is no other way: `http://user:password@host:port`" page_proxy: Secret,
    Used "files of the built-in template on the runner's machine" template_folder: PathBuf,
});

section!(
    /// Limits of one egress.
    SessionLimits {
    Used "longest recording to a file; 0: no limit. Of several kinds of output the shortest counts" file_output_max_duration: GoDuration,
    Used "largest file in bytes; 0: no limit" file_output_max_size: u64,
    Used "longest recording with streams; 0: no limit" stream_output_max_duration: GoDuration,
    Used "longest recording with segments; 0: no limit" segment_output_max_duration: GoDuration,
    Used "bytes in the segments of one output; 0: no limit" segment_output_max_size: u64,
    Used "longest recording with images; 0: no limit" image_output_max_duration: GoDuration,
});

section!(
    /// `guard`: what requests may name.
    Guard {
    Used "hosts inside of this network that requests may name in storage endpoints, proxies, webhooks and URLs of streams and pages, and pages may reach: addresses, networks, names, `*.` before a domain, each with `:port` or for all ports; `*`: everything. Without it only public addresses. What this file names is not held against it" allow: Vec<String>,
    Used "buckets (of Azure `account/container`) beside those of this file that the runner's own identity writes to when a request brings no credentials; `*`: all" own_buckets: Vec<String>,
});

section!(
    /// `latency`, livekit/egress' pipeline delays.
    Latency {
    Used "livekit/egress' name of `runner.reorder`" jitter_buffer_latency: GoDuration,
    Without "mixing is by time, not by delay" audio_mixer_latency: GoDuration,
    Without "likewise" pipeline_latency: GoDuration,
    Without "a late packet is lost when its place is written" old_packet_threshold: GoDuration,
    Without "" rtpmaxallowedtsdiff: GoDuration,
    Without "" rtp_max_allowed_ts_diff: GoDuration,
    Without "" rtpmaxdriftadjustment: GoDuration,
    Without "" rtp_max_drift_adjustment: GoDuration,
    Without "" rtpdriftadjustmentwindowpercent: f64,
    Without "" rtp_drift_adjustment_window_percent: f64,
});

section!(
    /// `storage` and `backup`: one store.
    Storage {
    Used "before every name, of uploads that requests bring too" prefix: String,
    Used "locations are links that work for 7 days" generate_presigned_url: bool,
    Used "" s3: S3,
    Used "" gcp: Gcp,
    Used "" azure: Azure,
    Used "" alioss: AliOss,
});

section!(
    /// Amazon S3 and what speaks its protocol.
    S3 {
    Used "without key and secret the runner's own identity. Env `AWS_ACCESS_KEY_ID`" access_key: Secret,
    Used "Env `AWS_SECRET_ACCESS_KEY`" secret: Secret,
    Used "Env `AWS_SESSION_TOKEN`" session_token: Secret,
    Used "" assume_role_arn: String,
    Used "" assume_role_external_id: Secret,
    Used "without it `us-east-1`. Env `AWS_REGION`, `AWS_DEFAULT_REGION`" region: String,
    Used "" endpoint: String,
    Used "" bucket: String,
    Used "" force_path_style: bool,
    Used "" proxy_config: Proxy,
    Used "old form of `proxy_config.url`" proxy: String,
    Without "an upload is repeated until it succeeds" max_retries: i64,
    Without "" max_retry_delay: GoDuration,
    Without "" min_retry_delay: GoDuration,
    Used "" metadata: BTreeMap<String, String>,
    Used "`a=1&b=2`" tagging: String,
    Used "without it `inline`" content_disposition: String,
    Without "" aws_log_level: Level,
});

section!(
    /// Google Cloud Storage.
    Gcp {
    Used "JSON of a service account or of another of Google's kinds; without it env `GOOGLE_APPLICATION_CREDENTIALS` names the file" credentials_json: Secret,
    Used "" bucket: String,
    Used "" proxy_config: Proxy,
    Used "without it Google's" endpoint: String,
});

section!(
    /// Azure Blob Storage.
    Azure {
    Used "Env `AZURE_STORAGE_ACCOUNT`" account_name: String,
    Used "without it the runner's managed identity. Env `AZURE_STORAGE_KEY`" account_key: Secret,
    Used "" container_name: String,
    Used "without it `https://{account_name}.blob.core.windows.net`" endpoint: String,
});

section!(
    /// Alibaba Cloud OSS.
    AliOss {
    Used "" access_key: Secret,
    Used "" secret: Secret,
    Used "" region: String,
    Used "" endpoint: String,
    Used "" bucket: String,
});

section!(
    /// An HTTP proxy in front of a store.
    Proxy {
    Used "" url: String,
    Used "" username: Secret,
    Used "" password: Secret,
});

section!(
    /// `debug` of livekit/egress.
    Debug {
    NotYet "" enable_profiling: bool,
    NotYet "" enable_track_logging: bool,
    NotYet "" enable_stream_logging: bool,
    NotYet "" enable_chrome_logging: bool,
    NotYet "" prefix: String,
    NotYet "" path_prefix: String,
    NotYet "" generate_presigned_url: bool,
    NotYet "" s3: S3,
    NotYet "" azure: Azure,
    NotYet "" gcp: Gcp,
    NotYet "" alioss: AliOss,
});

section!(
    /// `cpu_cost` of livekit/egress.
    CpuCost {
    Without "" max_cpu_utilization: f64,
    Without "" max_memory: f64,
    Without "" memory_cost: f64,
    Without "" memory_source: String,
    Without "" memory_kill_grace_sec: i64,
    Without "" cpu_kill_grace_sec: i64,
    Without "" max_pulse_clients: i64,
    Without "" room_composite_cpu_cost: f64,
    Without "" audio_room_composite_cpu_cost: f64,
    Without "" sdk_audio_room_composite_cpu_cost: f64,
    Without "" sdk_audio_room_composite_memory_cost: f64,
    Without "" web_cpu_cost: f64,
    Without "" audio_web_cpu_cost: f64,
    Without "" participant_cpu_cost: f64,
    Without "" track_composite_cpu_cost: f64,
    Without "" track_cpu_cost: f64,
});

section!(
    /// `audio_tempo_controller` of livekit/egress.
    TempoController {
    Without "" enabled: bool,
    Without "" adjustment_rate: f64,
});

section!(
    /// `test_overrides` of livekit/egress.
    TestOverrides {
    Without "" failure_injection_room: String,
    Without "" disconnect_injection_room: String,
});

/// The bus' own section, whose keys are livekit-server's.
const REDIS: &[(&str, &str, bool, &str)] = &[
    ("address", "text", false, "host:port; the same Redis and `db` as livekit-server"),
    ("username", "text", false, ""),
    ("password", "text", true, "Env `SPILLWAY_REDIS_PASSWORD`"),
    ("db", "number", false, ""),
    ("use_tls", "true/false", false, "old spelling of `tls.enabled`"),
    ("tls.enabled", "true/false", false, ""),
    ("tls.insecure", "true/false", false, "takes any certificate"),
    ("tls.server_name", "text", false, "name the certificate must carry, when it is not the host"),
    ("tls.ca_cert_file", "path", false, "PEM; without it the system's authorities"),
    ("tls.client_cert_file", "path", false, ""),
    ("tls.client_key_file", "path", false, ""),
    ("sentinel_master_name", "text", false, ""),
    ("sentinel_username", "text", false, ""),
    ("sentinel_password", "text", true, ""),
    ("sentinel_addresses", "list", false, "goes before cluster and address"),
    ("cluster_addresses", "list", false, "goes before `address`"),
    ("max_redirects", "number", false, "0: 2"),
    ("dial_timeout", "number", false, "milliseconds; 0: 5000"),
    ("read_timeout", "number", false, "milliseconds; 0: 3000"),
    ("write_timeout", "number", false, "milliseconds; 0: 3000"),
];

const REDIS_WITHOUT: &[(&str, &str)] = &[("pool_timeout", "duration"), ("pool_size", "number")];

impl Explained for RedisConfig {
    fn rows(row: KeyRow, out: &mut Vec<KeyRow>) {
        for (key, kind, secret, description) in REDIS {
            out.push(KeyRow { kind, secret: *secret, ..below(&row, key, KeyEffect::Used, description) });
        }
        for (key, kind) in REDIS_WITHOUT {
            out.push(KeyRow { kind, ..below(&row, key, KeyEffect::Without, "there is no pool") });
        }
    }
}

impl Explained for Vec<Target> {
    fn rows(row: KeyRow, out: &mut Vec<KeyRow>) {
        Target::rows(KeyRow { key: format!("{}[]", row.key), ..row.clone() }, out);
    }
}

leaf! { BTreeMap<String, Tenant> => "map", BTreeMap<String, Latency> => "map" }

/// Every key, in the order of this file.
pub fn rows() -> Vec<KeyRow> {
    let root =
        KeyRow { key: String::new(), kind: "", secret: false, effect: KeyEffect::Used, description: String::new() };
    let mut out = Vec::new();
    File::rows(root, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buss_keys_are_all_explained() {
        fn paths(prefix: &str, value: &serde_json::Value, out: &mut Vec<String>) {
            match value {
                serde_json::Value::Object(map) => {
                    for (key, value) in map {
                        paths(&format!("{prefix}.{key}"), value, out);
                    }
                }
                _ => out.push(prefix.to_owned()),
            }
        }
        let mut real = Vec::new();
        paths("redis", &serde_json::to_value(RedisConfig::default()).unwrap(), &mut real);
        let mut told: Vec<String> =
            rows().into_iter().map(|row| row.key).filter(|key| key.starts_with("redis.")).collect();
        real.sort();
        told.sort();
        assert_eq!(real, told);
    }

    #[test]
    fn what_sounds_like_a_secret_is_one() {
        for row in rows() {
            let last = row.key.rsplit('.').next().unwrap_or_default();
            let sounds = ["secret", "password", "access_key", "account_key", "token", "ticket_key", "credentials"];
            let is_path = row.kind == "path";
            assert!(row.secret || is_path || !sounds.iter().any(|needle| last.contains(needle)), "{}", row.key);
        }
    }
}
