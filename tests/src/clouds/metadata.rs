//! Where a program in a cloud gets its keys from: the endpoint of an ECS task's role, Google's metadata server, and
//! Azure's two (that of a machine, and that of an app). What they gave out can be asked for, and holds for a while only.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::json;

use super::web::{Asked, Reply, Web};

/// What a task of ECS has to show for its keys, as `AWS_CONTAINER_AUTHORIZATION_TOKEN`.
pub const ECS_TOKEN: &str = "stage-container-token";
/// `IDENTITY_HEADER` of an Azure app.
pub const APP_HEADER: &str = "stage-identity-header";

pub struct Metadata {
    pub web: Web,
    pub issued: Issued,
}

/// Every key and token that was given out; handed to the clouds that have to know them.
#[derive(Clone, Debug)]
pub struct Issued {
    given: Arc<Mutex<Vec<(String, SystemTime)>>>,
    lasts: Duration,
}

impl Metadata {
    pub async fn start(lasts: Duration) -> Result<Self> {
        let issued = Issued { given: Arc::default(), lasts };
        let giving = issued.clone();
        let web = Web::start(move |asked| {
            let reply = giving.answer(&asked);
            async move { reply }
        });
        Ok(Self { web: web.await?, issued })
    }
}

impl Issued {
    fn given(&self) -> MutexGuard<'_, Vec<(String, SystemTime)>> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`Issued::holds`], of a bearer token.
    pub fn let_in(&self, authorization: &str) -> bool {
        authorization.strip_prefix("Bearer ").is_some_and(|token| self.holds(token))
    }

    pub fn count(&self) -> usize {
        self.given().len()
    }

    /// It was given out, and its time is not over.
    pub fn holds(&self, shown: &str) -> bool {
        self.given().iter().any(|(given, until)| shown == given && SystemTime::now() < *until)
    }

    fn issue(&self, prefix: &str) -> (String, SystemTime) {
        let mut given = self.given();
        let until = SystemTime::now() + self.lasts;
        let name = format!("{prefix}{:04}", given.len() + 1);
        given.push((name.clone(), until));
        (name, until)
    }

    fn answer(&self, asked: &Asked) -> Reply {
        let seconds = |until: SystemTime| until.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let path = asked.path.as_str();
        match path {
            _ if asked.method != "GET" => Reply::json(405, json!({})),
            "/role" if asked.header("authorization") == ECS_TOKEN => {
                let (key, until) = self.issue("ASIASTAGE");
                let until = DateTime::<Utc>::from(until).to_rfc3339_opts(SecondsFormat::Secs, true);
                Reply::json(
                    200,
                    json!({ "AccessKeyId": key, "SecretAccessKey": "stage-secret", "Token": format!("session-of-{key}"),
                    "Expiration": until, "RoleArn": "arn:aws:iam::111122223333:role/dispatcher" }),
                )
            }
            "/computeMetadata/v1/universe/universe-domain" => Reply::json(404, json!({})),
            _ if path.starts_with("/computeMetadata/v1/instance/service-accounts/default/token")
                && asked.header("metadata-flavor") == "Google" =>
            {
                let (token, _) = self.issue("ya29.stage-");
                let reply =
                    json!({ "access_token": token, "expires_in": self.lasts.as_secs(), "token_type": "Bearer" });
                Reply::json(200, reply).with("metadata-flavor", "Google")
            }
            "/metadata/identity/oauth2/token" if asked.header("metadata") == "true" => self.azure(asked, seconds),
            "/msi/token" if asked.header("x-identity-header") == APP_HEADER => self.azure(asked, seconds),
            _ => Reply::json(401, json!({ "error": "invalid_request", "error_description": "no such identity" })),
        }
    }

    fn azure(&self, asked: &Asked, seconds: impl Fn(SystemTime) -> u64) -> Reply {
        if !asked.query.contains("resource=") || !asked.query.contains("api-version=") {
            return Reply::json(400, json!({ "error": "invalid_resource" }));
        }
        let (token, until) = self.issue("eyJ0stage-");
        Reply::json(
            200,
            json!({ "access_token": token, "expires_in": self.lasts.as_secs().to_string(),
            "expires_on": seconds(until).to_string(), "resource": "https://management.azure.com/", "token_type": "Bearer" }),
        )
    }
}
