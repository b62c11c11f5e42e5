//! Who the platform says we are: the name of the identity whose credentials a recording would use. Asked as the libraries of
//! the stores ask for them; the credentials themselves are neither shown nor kept.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use spillway_bus::{Platform, ProbeCause, ProbeLine};
use spillway_process::chain;
use spillway_protocol::Secret;

const TIMEOUT: Duration = Duration::from_secs(6);
/// Address of the endpoint for credentials of an ECS task.
const ECS_HOST: &str = "http://169.254.170.2";
const GOOGLE_HOST: &str = "metadata.google.internal";
const AZURE_HOST: &str = "http://169.254.169.254/metadata/identity/oauth2/token";
/// What a token is asked for.
const AZURE_RESOURCE: &str = "https%3A%2F%2Fstorage.azure.com%2F";

/// `is_needed`: a store is used without a key.
pub(super) async fn check(platform: Platform, is_needed: bool) -> Vec<ProbeLine> {
    let environment = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let Some(query) = query(platform, environment) else { return nobody(platform, is_needed) };
    match ask(&query).await {
        Ok(name) => vec![ProbeLine::passed("identity", name)],
        Err(message) if is_needed => vec![ProbeLine::failed("identity", ProbeCause::IdentityMissing, message)],
        Err(message) => vec![ProbeLine::noted("identity", format!("none, and no store needs one: {message}"))],
    }
}

fn nobody(platform: Platform, is_needed: bool) -> Vec<ProbeLine> {
    let message = "the platform gives this task no identity";
    match (platform, is_needed) {
        (_, true) if platform != Platform::Host => {
            vec![ProbeLine::failed("identity", ProbeCause::IdentityMissing, message)]
        }
        // The machine may have credentials of a kind that is found by the store's library alone.
        (_, true) => vec![ProbeLine::noted("identity", "that of the machine, as the store's library finds it")],
        (_, false) => vec![ProbeLine::noted("identity", format!("{message}, and no store needs one"))],
    }
}

/// Where the name is to be had.
#[derive(Debug, PartialEq, Eq)]
struct IdentityQuery {
    url: String,
    header: Option<(&'static str, Secret)>,
    answer: IdentityAnswer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IdentityAnswer {
    /// Credentials as JSON, which name the role.
    AwsRole,
    /// The e-mail address of the service account.
    GoogleEmail,
    /// A token whose claims name the identity.
    AzureToken,
}

/// `None`: the environment names no source of credentials.
fn query(platform: Platform, environment: impl Fn(&str) -> Option<String>) -> Option<IdentityQuery> {
    match platform {
        Platform::Fargate => {
            let url = match environment("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
                Some(path) => format!("{ECS_HOST}{path}"),
                None => environment("AWS_CONTAINER_CREDENTIALS_FULL_URI")?,
            };
            let token = environment("AWS_CONTAINER_AUTHORIZATION_TOKEN").map(Secret::new);
            let header = token.map(|token| ("authorization", token));
            Some(IdentityQuery { url, header, answer: IdentityAnswer::AwsRole })
        }
        Platform::CloudRun => {
            let host = environment("GCE_METADATA_HOST").unwrap_or_else(|| GOOGLE_HOST.to_owned());
            Some(IdentityQuery {
                url: format!("http://{host}/computeMetadata/v1/instance/service-accounts/default/email"),
                header: Some(("metadata-flavor", Secret::new("Google".to_owned()))),
                answer: IdentityAnswer::GoogleEmail,
            })
        }
        Platform::Aci => {
            let client = environment("AZURE_CLIENT_ID").map(|id| format!("&client_id={id}")).unwrap_or_default();
            let (base, version, header) = match (environment("IDENTITY_ENDPOINT"), environment("IDENTITY_HEADER")) {
                (Some(endpoint), Some(header)) => (endpoint, "2019-08-01", ("x-identity-header", header)),
                _ => (AZURE_HOST.to_owned(), "2018-02-01", ("metadata", "true".to_owned())),
            };
            Some(IdentityQuery {
                url: format!("{base}?api-version={version}&resource={AZURE_RESOURCE}{client}"),
                header: Some((header.0, Secret::new(header.1))),
                answer: IdentityAnswer::AzureToken,
            })
        }
        Platform::Host => None,
    }
}

async fn ask(query: &IdentityQuery) -> Result<String, String> {
    // The URL of a task's credentials is as good as they are.
    let lost = |error: reqwest::Error| format!("its credentials were not to be had: {}", chain(&error.without_url()));
    let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build().map_err(lost)?;
    let mut request = client.get(&query.url);
    if let Some((name, value)) = &query.header {
        request = request.header(*name, value.reveal());
    }
    let answer = request.send().await.map_err(lost)?;
    let status = answer.status();
    let body = answer.bytes().await.map_err(lost)?;
    if !status.is_success() {
        return Err(format!("its credentials were refused: HTTP status {}", status.as_u16()));
    }
    named(query.answer, &body).ok_or_else(|| "the platform's answer names no identity".to_owned())
}

fn named(answer: IdentityAnswer, body: &[u8]) -> Option<String> {
    if answer == IdentityAnswer::GoogleEmail {
        let email = std::str::from_utf8(body).ok()?.trim();
        return email.contains('@').then(|| email.to_owned());
    }
    let body: Value = serde_json::from_slice(body).ok()?;
    match answer {
        IdentityAnswer::AwsRole => body["RoleArn"].as_str().filter(|arn| arn.starts_with("arn:")).map(str::to_owned),
        _ => {
            let claims = body["access_token"].as_str().map(claims)?;
            let claim = |name: &str| claims[name].as_str().filter(|value| !value.is_empty());
            Some(match (claim("xms_mirid"), claim("appid").or_else(|| claim("oid"))) {
                (Some(resource), _) => resource.to_owned(),
                (None, Some(client)) => format!("client {client}"),
                (None, None) => "an identity that its token does not name".to_owned(),
            })
        }
    }
}

/// What a token says about itself; null where it is no JWT. The signature is the store's to check.
fn claims(token: &str) -> Value {
    let middle = token.split('.').nth(1).and_then(|middle| URL_SAFE_NO_PAD.decode(middle).ok());
    middle.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use spillway_bus::ProbeOutcome;

    use super::*;

    #[test]
    fn each_platform_is_asked_its_own_way() {
        let with = |platform, given: &[(&str, &str)]| {
            query(platform, |name| given.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
        };
        assert_eq!(with(Platform::Host, &[]), None);
        assert_eq!(with(Platform::Fargate, &[]), None, "the task has no role");
        let ecs = with(Platform::Fargate, &[("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/x")]).unwrap();
        assert_eq!((ecs.url.as_str(), ecs.header), ("http://169.254.170.2/v2/credentials/x", None));
        let run = with(Platform::CloudRun, &[("GCE_METADATA_HOST", "127.0.0.1:1")]).unwrap();
        assert!(run.url.starts_with("http://127.0.0.1:1/computeMetadata/v1/instance/service-accounts/default/email"));
        let app =
            [("IDENTITY_ENDPOINT", "http://127.0.0.1:2/msi/token"), ("IDENTITY_HEADER", "h"), ("AZURE_CLIENT_ID", "c")];
        let aci = with(Platform::Aci, &app).unwrap();
        assert_eq!(aci.header, Some(("x-identity-header", Secret::new("h".to_owned()))));
        assert!(
            aci.url.starts_with("http://127.0.0.1:2/msi/token?api-version=2019-08-01")
                && aci.url.ends_with("&client_id=c")
        );
        assert!(with(Platform::Aci, &[]).unwrap().url.starts_with(AZURE_HOST));
    }

    #[test]
    fn an_answer_gives_a_name_and_no_secret() {
        let role = json!({"RoleArn": "arn:aws:iam::1:role/runner", "SecretAccessKey": "canary", "Token": "canary"});
        assert_eq!(named(IdentityAnswer::AwsRole, role.to_string().as_bytes()).unwrap(), "arn:aws:iam::1:role/runner");
        assert_eq!(
            named(IdentityAnswer::GoogleEmail, b"runner@p.iam.gserviceaccount.com\n").unwrap(),
            "runner@p.iam.gserviceaccount.com"
        );
        assert_eq!(named(IdentityAnswer::GoogleEmail, b"<html>"), None);
        let token = |claims: Value| {
            let middle = URL_SAFE_NO_PAD.encode(claims.to_string());
            json!({"access_token": format!("head.{middle}.canary")}).to_string()
        };
        let resource = token(json!({"xms_mirid": "/subscriptions/s/runner", "appid": "c"}));
        assert_eq!(named(IdentityAnswer::AzureToken, resource.as_bytes()).unwrap(), "/subscriptions/s/runner");
        assert_eq!(named(IdentityAnswer::AzureToken, token(json!({"appid": "c"})).as_bytes()).unwrap(), "client c");
        assert!(!named(IdentityAnswer::AzureToken, br#"{"access_token": "canary"}"#).unwrap().contains("canary"));
    }

    #[test]
    fn a_missing_identity_matters_where_a_store_needs_one() {
        let outcome = |platform, needed| nobody(platform, needed)[0].outcome;
        assert_eq!(outcome(Platform::Fargate, true), ProbeOutcome::Failed);
        assert_eq!(outcome(Platform::Fargate, false), ProbeOutcome::Noted);
        assert_eq!(outcome(Platform::Host, true), ProbeOutcome::Noted);
    }
}
