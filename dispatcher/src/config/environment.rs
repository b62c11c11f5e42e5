//! Environment variables that stand in for keys of the file. Reads credential files that a variable names.

use spillway_protocol::Secret;

use super::error::ConfigError;
use super::keys::{Azure, File, Gcp, S3};
use super::values::{Cores, ServerUrl};

/// Looks up a variable: the process's environment, or a test's.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Fills in what the file leaves out from the variables that LiveKit's services and the clouds' tools read. A value in
/// the file wins.
///
/// # Errors
/// When a variable's value is not possible, or the file that `GOOGLE_APPLICATION_CREDENTIALS` names cannot be read.
pub fn apply(mut file: File, env: Environment) -> Result<File, ConfigError> {
    let env = |name: &str| env(name).filter(|value| !value.is_empty());
    let wrong = |key, message: String| ConfigError::Value { key, message };
    if file.api_key.as_ref().is_none_or(String::is_empty) {
        file.api_key = env("LIVEKIT_API_KEY").or(file.api_key);
    }
    if is_unset(file.api_secret.as_ref()) {
        file.api_secret = env("LIVEKIT_API_SECRET").map(Secret::new).or(file.api_secret);
    }
    // A secret store fills variables, not parts of a text; the runner reads the same two in a container.
    if is_unset(file.ticket_key.as_ref()) {
        file.ticket_key = env("SPILLWAY_TICKET_KEY").map(Secret::new).or(file.ticket_key);
    }
    if let Some(console) = &mut file.console {
        for (token, name) in
            [(&mut console.token, "SPILLWAY_CONSOLE_TOKEN"), (&mut console.stop_token, "SPILLWAY_CONSOLE_STOP_TOKEN")]
        {
            if is_unset(token.as_ref()) {
                *token = env(name).map(Secret::new).or(token.take());
            }
        }
    }
    if let Some(redis) = &mut file.redis
        && is_unset(Some(&redis.password))
        && let Some(password) = env("SPILLWAY_REDIS_PASSWORD")
    {
        redis.password = Secret::new(password);
    }
    if file.ws_url.as_ref().is_none_or(|url| url.as_str().is_empty())
        && let Some(url) = env("LIVEKIT_WS_URL")
    {
        file.ws_url = Some(ServerUrl::try_from(url).map_err(|message| wrong("LIVEKIT_WS_URL", message))?);
    }
    if file.cores.is_none()
        && let Some(cores) = env("LIVEKIT_CPU_REQUEST")
    {
        let cores: f64 =
            cores.parse().map_err(|_| wrong("LIVEKIT_CPU_REQUEST", format!("\"{cores}\" is no number of cores")))?;
        // LiveKit takes zero and less for "not set".
        file.cores = Cores::try_from(cores).ok();
    }
    let storages = [file.storage.as_mut(), file.backup.as_mut()];
    for storage in storages.into_iter().flatten() {
        s3_environment(storage.s3.as_mut(), env);
        azure_environment(storage.azure.as_mut(), env);
        gcp_environment(storage.gcp.as_mut(), env)?;
    }
    s3_environment(file.s3.as_mut(), env);
    azure_environment(file.azure.as_mut(), env);
    gcp_environment(file.gcp.as_mut(), env)?;
    Ok(file)
}

fn s3_environment(s3: Option<&mut S3>, env: impl Fn(&str) -> Option<String>) {
    let Some(s3) = s3 else { return };
    // Key and secret belong together: one from the file with the other from the environment would not match.
    if is_unset(s3.access_key.as_ref()) && is_unset(s3.secret.as_ref()) {
        s3.access_key = env("AWS_ACCESS_KEY_ID").map(Secret::new);
        s3.secret = env("AWS_SECRET_ACCESS_KEY").map(Secret::new);
        if is_unset(s3.session_token.as_ref()) {
            s3.session_token = env("AWS_SESSION_TOKEN").map(Secret::new);
        }
    }
    if s3.region.as_ref().is_none_or(String::is_empty) {
        s3.region = env("AWS_REGION").or_else(|| env("AWS_DEFAULT_REGION"));
    }
}

fn azure_environment(azure: Option<&mut Azure>, env: impl Fn(&str) -> Option<String>) {
    let Some(azure) = azure else { return };
    if azure.account_name.as_ref().is_none_or(String::is_empty) {
        azure.account_name = env("AZURE_STORAGE_ACCOUNT");
    }
    if is_unset(azure.account_key.as_ref()) {
        azure.account_key = env("AZURE_STORAGE_KEY").map(Secret::new);
    }
}

fn gcp_environment(gcp: Option<&mut Gcp>, env: impl Fn(&str) -> Option<String>) -> Result<(), ConfigError> {
    let Some(gcp) = gcp else { return Ok(()) };
    if is_unset(gcp.credentials_json.as_ref())
        && let Some(path) = env("GOOGLE_APPLICATION_CREDENTIALS")
    {
        let path = std::path::PathBuf::from(path);
        let json = std::fs::read_to_string(&path).map_err(|source| ConfigError::File { path, source })?;
        gcp.credentials_json = Some(Secret::new(json));
    }
    Ok(())
}

fn is_unset(secret: Option<&Secret>) -> bool {
    secret.is_none_or(|secret| secret.reveal().is_empty())
}
