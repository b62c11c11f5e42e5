//! Where a program in a cloud gets its credentials: the endpoint of an ECS task's role, Google's metadata server, and
//! Azure's two (of a machine, and of an app). Issued tokens are remembered and expire.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::json;

use super::web::{HttpReply, HttpRequest, HttpServer};

/// `AWS_CONTAINER_AUTHORIZATION_TOKEN` that an ECS task must present.
pub const ECS_TOKEN: &str = "stage-container-token";
/// `IDENTITY_HEADER` of an Azure app.
pub const APP_HEADER: &str = "stage-identity-header";

/// The service account of Google's endpoint.
pub const GOOGLE_ACCOUNT: &str = "runner@p-1.iam.gserviceaccount.com";
/// Role of the credentials of an ECS task.
pub const ECS_ROLE: &str = "arn:aws:iam::111122223333:role/dispatcher";

/// All endpoints on one address.
pub struct MetadataServer {
    /// The server.
    pub web: HttpServer,
    /// Tokens so far.
    pub issued: IssuedTokens,
}

/// Every key and token issued; handed to the fake clouds and stores that accept them.
#[derive(Clone, Debug)]
pub struct IssuedTokens {
    given: Arc<Mutex<Vec<(String, SystemTime)>>>,
    lasts: Duration,
    /// The only identity that Azure's endpoints know; `None`: they know one that needs no name.
    client_id: Option<&'static str>,
}

impl MetadataServer {
    /// `lasts` is the validity of a token.
    pub async fn start(lasts: Duration) -> Result<Self> {
        Self::open(lasts, None).await
    }

    /// As [`start`](Self::start), for machines with a user-assigned identity: Azure's endpoints refuse a request that
    /// does not name it by its client id.
    pub async fn start_user_assigned(lasts: Duration, client_id: &'static str) -> Result<Self> {
        Self::open(lasts, Some(client_id)).await
    }

    async fn open(lasts: Duration, client_id: Option<&'static str>) -> Result<Self> {
        let issued = IssuedTokens { given: Arc::default(), lasts, client_id };
        let giving = issued.clone();
        let web = HttpServer::start(move |request| {
            let reply = giving.answer(&request);
            async move { reply }
        });
        Ok(Self { web: web.await?, issued })
    }
}

impl IssuedTokens {
    fn given(&self) -> MutexGuard<'_, Vec<(String, SystemTime)>> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an `Authorization` header has a valid bearer token.
    pub fn accepts(&self, authorization: &str) -> bool {
        authorization.strip_prefix("Bearer ").is_some_and(|token| self.holds(token))
    }

    /// Tokens issued, expired ones included.
    pub fn count(&self) -> usize {
        self.given().len()
    }

    /// Whether a key or token was issued and is valid.
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

    fn answer(&self, request: &HttpRequest) -> HttpReply {
        let seconds = |until: SystemTime| until.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let path = request.path.as_str();
        match path {
            _ if request.method != "GET" => HttpReply::json(405, json!({})),
            "/role" if request.header("authorization") == ECS_TOKEN => {
                let (key, until) = self.issue("ASIASTAGE");
                let until = DateTime::<Utc>::from(until).to_rfc3339_opts(SecondsFormat::Secs, true);
                HttpReply::json(
                    200,
                    json!({ "AccessKeyId": key, "SecretAccessKey": "stage-secret", "Token": format!("session-of-{key}"),
                    "Expiration": until, "RoleArn": ECS_ROLE }),
                )
            }
            "/computeMetadata/v1/universe/universe-domain" => HttpReply::json(404, json!({})),
            _ if path.starts_with("/computeMetadata/v1/instance/service-accounts/default/token")
                && request.header("metadata-flavor") == "Google" =>
            {
                let (token, _) = self.issue("ya29.stage-");
                let reply =
                    json!({ "access_token": token, "expires_in": self.lasts.as_secs(), "token_type": "Bearer" });
                HttpReply::json(200, reply).with("metadata-flavor", "Google")
            }
            "/computeMetadata/v1/instance/service-accounts/default/email"
                if request.header("metadata-flavor") == "Google" =>
            {
                let headers = vec![("metadata-flavor", "Google".to_owned()), ("content-type", "text/plain".to_owned())];
                HttpReply::Content { status: 200, headers, body: GOOGLE_ACCOUNT.into() }
            }
            "/metadata/identity/oauth2/token" if request.header("metadata") == "true" => self.azure(request, seconds),
            "/msi/token" if request.header("x-identity-header") == APP_HEADER => self.azure(request, seconds),
            _ => HttpReply::json(401, json!({ "error": "invalid_request", "error_description": "no such identity" })),
        }
    }

    fn azure(&self, request: &HttpRequest, seconds: impl Fn(SystemTime) -> u64) -> HttpReply {
        if !request.query.contains("resource=") || !request.query.contains("api-version=") {
            return HttpReply::json(400, json!({ "error": "invalid_resource" }));
        }
        let asked = request.query.split('&').find_map(|pair| pair.strip_prefix("client_id="));
        if self.client_id.is_some_and(|id| asked != Some(id)) {
            let message = "no managed identity is set as default, and the request names none of this machine's";
            return HttpReply::json(400, json!({ "error": "invalid_request", "error_description": message }));
        }
        let (token, until) = self.issue("eyJ0stage-");
        HttpReply::json(
            200,
            json!({ "access_token": token, "expires_in": self.lasts.as_secs().to_string(),
            "expires_on": seconds(until).to_string(), "resource": "https://management.azure.com/", "token_type": "Bearer" }),
        )
    }
}
