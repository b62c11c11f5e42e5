//! What Terraform writes into the dispatcher's environment is read by the dispatcher's own code.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use spillway_dispatcher::{Config, config};

use crate::bench;
use crate::{CheckResult, failed};

/// 32 bytes in base64, as a ticket key must be.
const TICKET_KEY: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

pub fn read() -> CheckResult {
    check().map_err(|error| failed(&error))
}

fn check() -> Result<()> {
    for storage in [
        json!({"prefix": "p/", "s3": {"bucket": "b", "region": "eu-central-1"}}),
        json!({"gcp": {"bucket": "b"}}),
        json!({"azure": {"account_name": "a", "container_name": "c"}}),
    ] {
        let variables = json!({
            "environment": "dev",
            "livekit_url": "wss://livekit.example.org",
            "redis": {"address": "redis:6379", "username": "u", "ca_cert_file": "/etc/spillway/redis-ca.pem"},
            "storage": storage,
            "limits": {"max_recordings": 5, "queue_deadline_seconds": 30, "max_duration_seconds": 7200},
            "settings": {"runner": {"spool_dir": "/tmp/spool"}},
        });
        let outputs = bench::outputs("modules/common", &variables)?;
        let config = resolve(&outputs).with_context(|| format!("with {storage}"))?;
        ensure!(config.ws_url == "wss://livekit.example.org" && config.max_recordings == Some(5), "{config:?}");
        ensure!(config.queue_deadline.as_secs() == 30 && config.redis.tls_enabled(), "{config:?}");
        ensure!(config.api_secret.reveal() == "value of livekit-api-secret", "the API secret has another name");
        ensure!(config.redis.password.reveal() == "value of redis-password", "Redis' password has another name");
        let key = config.ticket_key.as_ref().map(|key| key.reveal().clone());
        ensure!(key.as_deref() == Some(TICKET_KEY), "the ticket key has another name");
        ensure!(config.log_json && config.health.is_some_and(|address| address.port() == 8080), "{config:?}");
    }
    Ok(())
}

/// The dispatcher in a container: the text, and secrets under the names that the module gives them.
fn resolve(outputs: &Value) -> Result<Config> {
    let body = outputs["environment"]["value"]["EGRESS_CONFIG_BODY"].as_str().context("no EGRESS_CONFIG_BODY")?;
    let secrets = outputs["dispatcher_secrets"]["value"].as_object().context("no names of secrets")?;
    let environment = |name: &str| {
        Some(match secrets.get(name)?.as_str()? {
            "ticket-key" => TICKET_KEY.to_owned(),
            secret => format!("value of {secret}"),
        })
    };
    Ok(Config::from_file(&config::read(body, &environment)?)?)
}
