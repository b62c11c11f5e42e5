//! Joins the room and starts the loop; a room that cannot be joined ends at once.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

use spillway_ipc::MediaEndReason;
use spillway_ipc::migration::MigrationSignals;
use tokio::sync::mpsc;
use tracing::warn;

use super::{RoomDriver, STATS_EVERY, failed};
use crate::receive::{ReceiveOptions, TrackReceiver};
use crate::source::dump::Dump;
use crate::source::room::delivery::DeliveryWatch;
use crate::source::room::ice_server::RelayOffer;
use crate::source::room::link::{self, JoinParams};
use crate::source::room::message::{JoinOptions, RoomCommand, RoomListener, RoomMessage};
use crate::source::room::model::{RoomModel, RoomWaits};
use crate::source::room::peer::Peer;
use crate::source::room::recovery::MediaRecovery;
use crate::source::room::track_demand::TrackDemands;

/// Runs in the room's thread until the recording leaves or the room ends; `hear` gets its end in any case.
pub(crate) async fn run(
    options: JoinOptions,
    commands: mpsc::UnboundedReceiver<RoomCommand>,
    mut hear: Box<RoomListener>,
) {
    let migration =
        MigrationSignals::listen().inspect_err(|error| warn!(%error, "a move to another machine will stop us")).ok();
    let params = JoinParams { ws_url: options.ws_url.clone(), token: options.token.clone() };
    let server = server_address(&options.ws_url).await;
    let mut commands = commands;
    let joined = tokio::select! {
        joined = link::join(&params) => joined,
        () = leave_asked(&mut commands) => {
            hear(vec![RoomMessage::Ended(MediaEndReason::Stopped)]);
            return;
        }
    };
    let joined = match joined {
        Ok(joined) => joined,
        Err(error) => {
            hear(vec![RoomMessage::Ended(failed(error))]);
            return;
        }
    };
    let (back_in, back) = mpsc::unbounded_channel();
    let waits = RoomWaits { appear: options.appear, return_grace: options.return_grace };
    let now = Instant::now();
    let receive = ReceiveOptions { reorder_wait: options.reorder, late: options.late };
    let drive = RoomDriver {
        model: RoomModel::new(options.choose.clone(), options.want_video, options.want_audio, waits),
        receiver: TrackReceiver::new(receive)
            .begins_muted(options.begins_muted)
            .begins_without_media(options.begins_without_media)
            .best_layer_of(&options.best_layer_of),
        peer: Peer::new(server, RelayOffer::of(&joined.response), options.tls.clone()),
        server,
        tls: options.tls,
        began: now,
        params,
        link: joined,
        commands,
        hear,
        deliveries: Vec::new(),
        origin_told: false,
        back_in,
        back,
        link_up: true,
        lost_since: None,
        looks_again: false,
        trouble: false,
        waits_for_return: options.waits_for_return,
        recovery: MediaRecovery::default(),
        expected: options.expected,
        wants_best: !options.best_layer_of.is_empty(),
        demands: TrackDemands::default(),
        delivery: DeliveryWatch::new(options.appear),
        next_delivery: now,
        tried: BTreeSet::new(),
        room_id: options.room_id.clone(),
        last_offer: None,
        last_answer: None,
        asked: HashMap::new(),
        ticked: now,
        read_at: now,
        unread: false,
        resuming: None,
        next_stats: now + STATS_EVERY,
        over: None,
        migration,
        dump: options.dump.as_deref().and_then(open_dump),
    };
    drive.run().await;
}

/// Resolves when we are asked to leave, or the room's handle is dropped.
async fn leave_asked(commands: &mut mpsc::UnboundedReceiver<RoomCommand>) {
    while let Some(command) = commands.recv().await {
        if matches!(command, RoomCommand::Leave) {
            return;
        }
    }
}

fn open_dump(path: &Path) -> Option<Dump> {
    Dump::create(path).inspect_err(|error| warn!(%error, path = %path.display(), "arrivals are not kept")).ok()
}

/// An address of the server, whatever its port.
pub(crate) async fn server_address(ws_url: &str) -> Option<SocketAddr> {
    let rest = ws_url.split_once("://").map_or(ws_url, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next()?;
    let authority = authority.rsplit('@').next()?;
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    // The port does not matter: it is about the way there.
    let target = if has_port { authority.to_owned() } else { format!("{authority}:443") };
    tokio::net::lookup_host(target).await.ok()?.next()
}
