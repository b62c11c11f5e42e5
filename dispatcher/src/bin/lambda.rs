//! `spillway-lambda`: the AWS Lambda function for "ECS Task State Change" events. It ends, salvages or relaunches the
//! egress whose task is gone, also when no dispatcher runs. Configured like a dispatcher; `SPILLWAY_SECRETS` (JSON:
//! variable to ARN) names secrets in Secrets Manager, because Lambda's environment cannot refer to them.
//!
//! Only the configuration outlives an invocation: between two of them the process is frozen, and connections are dead
//! afterwards.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use aws_config::BehaviorVersion;
use aws_sdk_secretsmanager::Client;
use aws_smithy_http_client::{Builder, tls};
use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use serde_json::{Value, json};
use spillway_bus::Bus;
use spillway_dispatcher::reconcile::task_exit::TaskExitEvent;
use spillway_dispatcher::{Config, ExitHandler, Setup, config};
use spillway_launchers::TaskStatus;
use spillway_launchers::ecs::event;
use spillway_process::chain;
use spillway_process::telemetry::{self, LogFormat};
use spillway_protocol::Secret;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::{debug, error, info};

const SECRETS: &str = "SPILLWAY_SECRETS";
/// Credentials of the function itself, which must not be taken for those of a bucket.
const OWN_KEYS: [&str; 3] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];
/// Before the deadline of the invocation: so that the answer with the reason still gets out.
const MARGIN: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    telemetry::init(&level(), LogFormat::Json);
    let function = Arc::new(Function::default());
    lambda_runtime::run(service_fn(move |event: LambdaEvent<Value>| {
        let function = Arc::clone(&function);
        async move { function.answer(event).await }
    }))
    .await
}

/// Log level of the configuration, read before secrets are fetched.
fn level() -> String {
    let file = text().ok().and_then(|text| config::read(&text, &|_| None).ok()).unwrap_or_default();
    let configured = file.logging.and_then(|logging| logging.level).or(file.log_level);
    configured.map_or("info", |level| level.as_str()).to_owned()
}

fn text() -> anyhow::Result<String> {
    let file = std::env::var_os("EGRESS_CONFIG_FILE").map(PathBuf::from);
    Ok(config::text_of(std::env::var("EGRESS_CONFIG_BODY").ok(), file)?)
}

#[derive(Default)]
struct Function {
    /// That of the last success. Secrets are rotated: after a failure they are read again.
    config: Mutex<Option<Config>>,
}

impl Function {
    async fn answer(&self, event: LambdaEvent<Value>) -> Result<Value, Diagnostic> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let left = Duration::from_millis(event.context.deadline).saturating_sub(now).saturating_sub(MARGIN);
        let by = Instant::now() + left;
        let done = tokio::time::timeout_at(by, self.handle_all(&event.payload, by)).await;
        match done.map_err(|_| anyhow::anyhow!("not done in the time of one invocation")).flatten() {
            Ok(outcomes) => Ok(json!({ "outcomes": outcomes })),
            Err(error) => {
                *self.config.lock().await = None;
                let message = format!("{error:#}");
                error!(error = message, "event not handled; it comes again");
                Err(Diagnostic { error_type: "NotHandled".to_owned(), error_message: message })
            }
        }
    }

    /// One event, or a batch of them from a queue: all are handled, and the batch comes again if one failed.
    async fn handle_all(&self, payload: &Value, by: Instant) -> anyhow::Result<Vec<String>> {
        let mut outcomes = Vec::new();
        let mut failed = None;
        for event in events(payload) {
            match self.handle(&event, by).await {
                Ok(outcome) => outcomes.push(outcome),
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(outcomes), Err)
    }

    async fn handle(&self, event: &Value, by: Instant) -> anyhow::Result<String> {
        let Some(read) = event::read(event) else {
            debug!("not an event about a task of ours");
            return Ok("not ours".to_owned());
        };
        let TaskStatus::Gone(exit_report) = read.task_status else {
            // The runner has its SIGTERM and finishes; there is nothing to do before it is gone.
            info!(egress_id = %read.task.egress_id, task = read.task.task.id, warned = read.warned, "its task still runs");
            return Ok("not over".to_owned());
        };
        let config = self.config().await?;
        if read.stack != config.stack {
            return Ok("not ours".to_owned());
        }
        let bus = Bus::connect(&config.redis).await.context("unable to connect to redis")?;
        let setup = Setup::open(config, bus).await.context("open the targets")?;
        let exit_handler = ExitHandler::start(setup).await.context("start")?;
        let task = read.task;
        let event = TaskExitEvent { egress_id: task.egress_id, attempt: task.attempt, task: task.task.id, exit_report };
        let outcome = exit_handler.handle(&event).await;
        let finished = exit_handler.finish(by).await;
        let outcome = outcome.with_context(|| format!("handle the end of {}", event.egress_id))?;
        if !finished {
            bail!("{}: {outcome:?}, and not finished in the time of one invocation", event.egress_id);
        }
        Ok(format!("{outcome:?}"))
    }

    async fn config(&self) -> anyhow::Result<Config> {
        let mut kept = self.config.lock().await;
        if let Some(config) = &*kept {
            return Ok(config.clone());
        }
        let secrets = secrets().await?;
        let file = config::read(&text()?, &|name| match secrets.get(name) {
            Some(secret) => Some(secret.reveal().clone()),
            None if OWN_KEYS.contains(&name) => None,
            None => std::env::var(name).ok(),
        })?;
        let config = Config::from_file(&file)?;
        *kept = Some(config.clone());
        Ok(config)
    }
}

/// EventBridge sends the event itself, SQS as the body of a message.
fn events(payload: &Value) -> Vec<Value> {
    match payload["Records"].as_array() {
        None => vec![payload.clone()],
        Some(records) => {
            let text = |record: &Value| serde_json::from_str(record["body"].as_str()?).ok();
            records.iter().filter_map(text).collect()
        }
    }
}

/// Variable → secret, for those that `SPILLWAY_SECRETS` names.
async fn secrets() -> anyhow::Result<BTreeMap<String, Secret>> {
    let Ok(named) = std::env::var(SECRETS) else { return Ok(BTreeMap::new()) };
    let named: BTreeMap<String, String> = serde_json::from_str(&named).with_context(|| format!("read {SECRETS}"))?;
    let http =
        Builder::new().tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc)).build_https();
    let client = Client::new(&aws_config::defaults(BehaviorVersion::latest()).http_client(http).load().await);
    let mut secrets = BTreeMap::new();
    for (variable, arn) in named {
        let answer = client.get_secret_value().secret_id(&arn).send().await;
        let answer = answer.map_err(|error| anyhow::anyhow!("read secret {arn} ({variable}): {}", chain(&error)))?;
        let value = answer.secret_string.with_context(|| format!("secret {arn} ({variable}) holds no text"))?;
        secrets.insert(variable, Secret::new(value));
    }
    Ok(secrets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_comes_alone_or_in_a_batch() {
        let event = json!({ "detail-type": "ECS Task State Change" });
        assert_eq!(events(&event), std::slice::from_ref(&event));
        let batch = json!({ "Records": [{ "body": event.to_string() }, { "body": "no json" }, {}] });
        assert_eq!(events(&batch), [event]);
    }
}
