//! Signals of the platform on their way into the session.

use std::time::Duration;

use spillway_bus::Registry;
use spillway_ipc::migration::{MigrationSignal, MigrationSignals};
use spillway_process::shutdown::{Signal, Signals};
use spillway_protocol::EgressId;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::info;

use crate::events::{SessionEvent, StopSource};

/// For Redis to say whether a stop was asked for, when a signal comes.
const ASKED_TIMEOUT: Duration = Duration::from_secs(1);

/// SIGTERM and SIGINT become stops. `egress`: it is recorded for a dispatcher, whose record says whether somebody has asked
/// for its end.
pub(super) async fn forward_signals(
    mut signals: Signals,
    inbox: mpsc::Sender<SessionEvent>,
    egress: Option<(&Registry, &EgressId)>,
) {
    loop {
        let signal = signals.next().await;
        info!(
            signal = match signal {
                Signal::Term => "SIGTERM",
                Signal::Int => "SIGINT",
            },
            "asked to finish"
        );
        let source = match egress {
            None => StopSource::Signal,
            Some((registry, id)) => match timeout(ASKED_TIMEOUT, registry.get(id)).await {
                Ok(Ok(Some(record))) if record.stop_asked => StopSource::Api,
                _ => StopSource::Host,
            },
        };
        let _ = inbox.send(SessionEvent::StopAsked(source)).await;
    }
}

/// Only logs: clients of Redis and of stores reconnect by themselves when a call is not answered, and the media process
/// rejoins the room.
pub(super) async fn log_migrations(mut migration: MigrationSignals) {
    loop {
        match migration.next().await {
            MigrationSignal::Announced => info!("the platform will move this task to another machine; it goes on"),
            MigrationSignal::Completed => info!("moved to another machine"),
        }
    }
}
