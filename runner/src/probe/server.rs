//! livekit-server as a recording reaches it: the media process joins a room of the probe's own with the dispatcher's token, and
//! says over which addresses media would come.

use std::time::Duration;

use spillway_bus::{ProbeCause, ProbeLine, Ticket};
use spillway_ipc::{MediaCommand, MediaEndReason, MediaEvent, MediaPath, ProbeCommand};
use spillway_process::chain;
use tokio::time::Instant;

use crate::config::Settings;
use crate::session::media::{self, MediaProcess, MediaUpdate};

/// As long as the checks of a connection last, and a relay's allocation after them.
const PATH_TIMEOUT_MS: u64 = 20_000;
/// It exits by itself after its last event.
const EXIT_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) async fn check(ticket: &Ticket, settings: &Settings) -> Vec<ProbeLine> {
    let broken = |error: media::MediaError| {
        vec![ProbeLine::failed("media process", ProbeCause::MediaProcess, chain(&error).to_string())]
    };
    let program = match settings.media_program.clone().map_or_else(media::program, Ok) {
        Ok(program) => program,
        Err(error) => return broken(error),
    };
    let mut process = match MediaProcess::start(&program) {
        Ok(process) => process,
        Err(error) => return broken(error),
    };
    let command = ProbeCommand {
        ws_url: ticket.ws_url.clone(),
        token: ticket.token.clone(),
        settings: settings.media_settings(None),
        timeout_ms: PATH_TIMEOUT_MS,
    };
    process.send(&MediaCommand::Probe(Box::new(command))).await;
    let lines = follow(&mut process, &ticket.ws_url).await;
    process.end(EXIT_TIMEOUT, EXIT_TIMEOUT).await;
    lines
}

async fn follow(process: &mut MediaProcess, ws_url: &str) -> Vec<ProbeLine> {
    let mut since = Instant::now();
    let (mut lines, mut is_in, mut has_path) = (Vec::new(), false, false);
    loop {
        let line = match process.next().await {
            MediaUpdate::Received(MediaEvent::Joined { room_name, .. }) => {
                is_in = true;
                Some(ProbeLine::passed("signal", format!("joined room {room_name} at {ws_url}")))
            }
            MediaUpdate::Received(MediaEvent::Path(path)) => {
                has_path = true;
                Some(path_line(&path))
            }
            MediaUpdate::Received(MediaEvent::Ended { why }) => {
                lines.extend(end_line(&why, is_in, has_path).map(|line| line.took(since.elapsed())));
                return lines;
            }
            MediaUpdate::Received(_) => None,
            MediaUpdate::Exited(message) => {
                lines.push(ProbeLine::failed("media process", ProbeCause::MediaProcess, message));
                return lines;
            }
        };
        if let Some(line) = line {
            lines.push(line.took(since.elapsed()));
            since = Instant::now();
        }
    }
}

/// Without direct datagrams a recording still works; the consequence belongs to the finding.
fn path_line(path: &MediaPath) -> ProbeLine {
    let MediaPath { protocol, local, remote, relay, .. } = path;
    let round_trip = path.round_trip_ms.map(|ms| format!(", {ms} ms there and back")).unwrap_or_default();
    let pair = format!("{protocol} {local} to {remote}{round_trip}");
    let tried = || if path.tried.is_empty() { String::new() } else { format!(" (tried: {})", path.tried.join(", ")) };
    match relay {
        None if protocol == "udp" => ProbeLine::passed("media", pair),
        None => {
            let consequence =
                "one lost packet holds up all that follow, so streams lag and pictures freeze; files stay whole";
            ProbeLine::warned("media", ProbeCause::NoUdp, format!("{pair}: no UDP, {consequence}{}", tried()))
        }
        Some(relay) => {
            let consequence = "every packet takes a detour over it, and it carries the bandwidth of every recording";
            let message = format!("{pair} through {relay}: no direct UDP, {consequence}{}", tried());
            ProbeLine::warned("media", ProbeCause::NoUdp, message)
        }
    }
}

fn end_line(why: &MediaEndReason, is_in: bool, has_path: bool) -> Option<ProbeLine> {
    match why {
        MediaEndReason::Failed { message, .. } if is_in => {
            Some(ProbeLine::failed("media", ProbeCause::NoMedia, message.as_str()))
        }
        MediaEndReason::Failed { code, message } => {
            Some(ProbeLine::failed("signal", signal_cause(code, message), message.as_str()))
        }
        _ if has_path => None,
        _ => {
            Some(ProbeLine::failed("media", ProbeCause::NoMedia, "the stay ended before a media connection was there"))
        }
    }
}

/// The kind is in the code; what kind of unreachable it is, in the texts of the libraries alone.
fn signal_cause(code: &str, message: &str) -> ProbeCause {
    let said = message.to_lowercase();
    let says = |texts: &[&str]| texts.iter().any(|text| said.contains(text));
    match code {
        "unauthenticated" | "permission_denied" => ProbeCause::TokenRefused,
        "unavailable" if says(&["handshake error: ", "server error: "]) => ProbeCause::ServerRefuses,
        "unavailable" if says(&["certificate", "corrupt message", "tls", "ssl"]) => ProbeCause::ServerTls,
        "unavailable" if says(&["temporary failure", "try again"]) => ProbeCause::NameServerSilent,
        "unavailable" if says(&["lookup address", "name or service not known"]) => ProbeCause::NameNotFound,
        "unavailable" => ProbeCause::ServerUnreachable,
        _ => ProbeCause::ServerRefuses,
    }
}

#[cfg(test)]
mod tests {
    use spillway_bus::ProbeOutcome;

    use super::*;

    fn path(protocol: &str, relay: Option<&str>) -> MediaPath {
        MediaPath {
            protocol: protocol.into(),
            local: "10.0.0.2:5000".into(),
            remote: "192.0.2.1:7882".into(),
            relay: relay.map(str::to_owned),
            round_trip_ms: Some(3),
            tried: vec!["udp 192.0.2.1:7882".into()],
        }
    }

    #[test]
    fn a_way_without_direct_datagrams_is_a_warning_with_its_consequence() {
        let line = path_line(&path("udp", None));
        assert_eq!((line.outcome, line.cause), (ProbeOutcome::Passed, None));
        assert_eq!(line.message, "udp 10.0.0.2:5000 to 192.0.2.1:7882, 3 ms there and back");
        for (way, consequence) in [(path("tcp", None), "streams lag"), (path("udp", Some("turn udp t:3478")), "detour")]
        {
            let line = path_line(&way);
            assert_eq!((line.outcome, line.cause), (ProbeOutcome::Warned, Some(ProbeCause::NoUdp)));
            assert!(line.message.contains(consequence) && line.message.contains("192.0.2.1:7882"), "{line:?}");
        }
    }

    #[test]
    fn an_end_says_which_step_failed() {
        let failed = |code: &str, message: &str, is_in| {
            let why = MediaEndReason::Failed { code: code.into(), message: message.into() };
            end_line(&why, is_in, false).unwrap()
        };
        for (code, message, cause) in [
            ("unauthenticated", "livekit-server refused the token: 401", ProbeCause::TokenRefused),
            ("unavailable", "cannot be reached: invalid peer certificate: UnknownIssuer", ProbeCause::ServerTls),
            ("unavailable", "cannot be reached: connection refused", ProbeCause::ServerUnreachable),
            ("unavailable", "cannot be reached: handshake error: 502 Bad Gateway", ProbeCause::ServerRefuses),
            (
                "unavailable",
                "failed to lookup address information: Name or service not known",
                ProbeCause::NameNotFound,
            ),
            ("invalid_argument", "the URL of livekit-server cannot be used", ProbeCause::ServerRefuses),
        ] {
            let line = failed(code, message, false);
            assert_eq!((line.check.as_str(), line.cause), ("signal", Some(cause)), "{message}");
        }
        let line = failed("unavailable", "no media connection to any of udp 192.0.2.1:7882", true);
        assert_eq!((line.check.as_str(), line.cause), ("media", Some(ProbeCause::NoMedia)));
        assert_eq!(end_line(&MediaEndReason::Stopped, true, true), None);
        assert!(end_line(&MediaEndReason::Stopped, true, false).is_some());
    }
}
