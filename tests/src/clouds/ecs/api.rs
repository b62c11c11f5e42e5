//! Requests and responses of ECS: shapes, limits and error texts.

use std::time::{SystemTime, UNIX_EPOCH};

use icu_properties::CodePointMapData;
use icu_properties::props::{GeneralCategory, GeneralCategoryGroup};
use rand::seq::IndexedRandom;
use serde_json::{Value, json};

use super::{ACCOUNT, EcsTask, REGION};
use crate::clouds::web::HttpReply;

/// Of the overrides of one RunTask, JSON punctuation included.
const MAX_OVERRIDES_BYTES: usize = 8192;

pub(super) fn shown(task: &EcsTask, tags: bool) -> Value {
    let mut shown = task.shown.clone();
    for (name, at) in &task.times {
        shown[*name] = json!(at);
    }
    if !tags && let Some(shown) = shown.as_object_mut() {
        shown.remove("tags");
    }
    shown
}

/// Fargate takes any of the subnets that were named.
pub(super) fn placed(body: &Value) -> String {
    let named = texts(&body["networkConfiguration"]["awsvpcConfiguration"]["subnets"]);
    named.choose(&mut rand::rng()).cloned().unwrap_or_default()
}

pub(super) fn no_capacity() -> HttpReply {
    let reason = "Capacity is unavailable at this time. Please try again later or in a different availability zone";
    HttpReply::json(200, json!({"tasks": [], "failures": [{"reason": reason}]}))
}

pub(super) fn event(task: &EcsTask, cluster: &str) -> Value {
    let mut detail = task.shown.clone();
    if let Some(detail) = detail.as_object_mut() {
        detail.remove("tags");
    }
    for (name, at) in &task.times {
        detail[*name] = iso(*at).into();
    }
    detail["updatedAt"] = iso(now()).into();
    detail["clusterArn"] = cluster.into();
    json!({
        "version": "0", "id": format!("{:032x}", rand::random::<u128>()), "detail-type": "ECS Task State Change",
        "source": "aws.ecs", "account": ACCOUNT, "time": iso(now()), "region": REGION, "resources": [detail["taskArn"]],
        "detail": detail,
    })
}

fn iso(at: f64) -> String {
    let at = chrono::DateTime::from_timestamp_millis((at * 1000.0) as i64).unwrap_or_default();
    at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

pub(super) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_millis() as f64 / 1000.0)
}

pub(super) fn refused(status: u16, kind: &str, message: &str) -> HttpReply {
    HttpReply::json(status, json!({"__type": kind, "message": message})).with("x-amzn-errortype", kind)
}

pub(super) fn is_cluster(arn: &str, named: &str) -> bool {
    named == arn || arn.rsplit('/').next() == Some(named)
}

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

pub(super) fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// (cpu, least and most memory, step), as the crate's documentation of `EcsTask.memory` gives them.
const SIZES: &[(u64, u64, u64, u64)] = &[
    (256, 512, 2048, 512),
    (512, 1024, 4096, 1024),
    (1024, 2048, 8192, 1024),
    (2048, 4096, 16384, 1024),
    (4096, 8192, 30720, 1024),
    (8192, 16384, 61440, 4096),
    (16384, 32768, 122_880, 8192),
];

/// `[\p{L}\p{Z}\p{N}_.:/=+\-@]*`, says the API reference of tags.
const TAGGED: [GeneralCategoryGroup; 3] =
    [GeneralCategoryGroup::Letter, GeneralCategoryGroup::Separator, GeneralCategoryGroup::Number];

pub(super) fn lawful(body: &Value) -> Result<(), String> {
    let overrides = &body["overrides"];
    if overrides.to_string().chars().count() > MAX_OVERRIDES_BYTES {
        return Err("Container Overrides length must be at most 8192".into());
    }
    let number = |value: &Value| text(value).parse::<u64>().unwrap_or(0);
    let (cpu, memory) = (number(&overrides["cpu"]), number(&overrides["memory"]));
    let sold = SIZES.iter().any(|(size, least, most, step)| {
        // 256 also comes with 1024, which is a multiple of its step.
        *size == cpu && (*least..=*most).contains(&memory) && memory.is_multiple_of(*step)
    });
    if !sold {
        return Err("No Fargate configuration exists for given values.".into());
    }
    if let Some(disk) = overrides["ephemeralStorage"]["sizeInGiB"].as_u64()
        && !(21..=200).contains(&disk)
    {
        return Err("EphemeralStorage size must be between 21 and 200".into());
    }
    if overrides["containerOverrides"][0]["name"] != "runner" {
        return Err("Override for container that is not in the TaskDefinition.".into());
    }
    if body["launchType"].is_null() == body["capacityProviderStrategy"].is_null() {
        return Err("Specifying both a launch type and capacity provider strategy is not supported.".into());
    }
    if texts(&body["networkConfiguration"]["awsvpcConfiguration"]["subnets"]).is_empty() {
        return Err("Network Configuration must be provided when networkMode 'awsvpc' is specified.".into());
    }
    if body["count"].as_u64().is_some_and(|count| count > 10) {
        return Err("count must be at most 10".into());
    }
    let started_by = text(&body["startedBy"]);
    if started_by.len() > 128 || !started_by.chars().all(|c| c.is_ascii_alphanumeric() || "-/_".contains(c)) {
        return Err("startedBy is not valid".into());
    }
    let token = text(&body["clientToken"]);
    if token.is_empty() || token.len() > 64 || !token.bytes().all(|byte| (33..=126).contains(&byte)) {
        return Err("clientToken is not valid".into());
    }
    let tags = body["tags"].as_array().map(Vec::as_slice).unwrap_or_default();
    let categories = CodePointMapData::<GeneralCategory>::new();
    let fine = |c: char| TAGGED.iter().any(|group| group.contains(categories.get(c))) || "+-=._:/@".contains(c);
    let reserved = |text: &str| text.to_lowercase().starts_with("aws:");
    for tag in tags {
        let (key, value) = (text(&tag["key"]), text(&tag["value"]));
        let lengths = (1..=128).contains(&key.chars().count()) && value.chars().count() <= 256;
        if !lengths
            || !key.chars().all(fine)
            || !value.chars().all(fine)
            || reserved(key)
            || reserved(value)
            || tags.len() > 50
        {
            return Err(format!("Tag {key} is not valid"));
        }
    }
    Ok(())
}
