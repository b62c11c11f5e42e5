//! The last state of an egress that cannot speak for itself: decided once, by compare-and-set, then delivered until
//! livekit-server has it.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use spillway_bus::{BusError, ClaimToken, Decision, Phase, Record, Updated};
use spillway_process::chain;
use spillway_protocol::code::Code;
use spillway_protocol::ids::EgressId;
use spillway_protocol::ledger::{Fact, Outcome};
use spillway_protocol::livekit::{EgressInfo, EgressStatus};
use tracing::{Instrument, debug, error, info, info_span, warn};

use crate::context::{Context, Dispatch};
use crate::launch;
use crate::report::{self, FilesLeftBehind};

/// As long as livekit-server itself remembers an ended egress: so long a stop is answered at once.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);
/// livekit-server may be down for a while; the record waits, and another dispatcher goes on if we are gone.
const DELIVERY: Duration = Duration::from_secs(600);
/// A file's size is not worth more than this to a settlement.
const DISK_TIMEOUT: Duration = Duration::from_secs(1);
/// For an answer about what livekit-server knows; its nodes answer from their Redis.
const KNOWN: Duration = Duration::from_secs(3);
const CREATE: Duration = Duration::from_secs(10);

/// FAILED, if `may` still holds for what stands in the registry. False: it did not.
pub async fn failed(
    context: &Arc<Context>,
    id: &EgressId,
    code: Code,
    message: String,
    may: impl Fn(&Record) -> bool,
) -> Result<bool, BusError> {
    ended(context, id, message, |message| Outcome::Failed { code, message }, may).await
}

/// ABORTED: it was nobody's fault here.
pub async fn aborted(
    context: &Arc<Context>,
    id: &EgressId,
    message: String,
    may: impl Fn(&Record) -> bool,
) -> Result<bool, BusError> {
    ended(context, id, message, |message| Outcome::Aborted { message }, may).await
}

/// A judgement is about what was seen: another attempt or another phase is judged anew.
pub fn stands_as(seen: &Record) -> impl Fn(&Record) -> bool + use<> {
    let (attempt, phase) = (seen.attempt, seen.phase);
    move |record| record.attempt == attempt && record.phase == phase
}

/// livekit-server has heard the end of an egress whose record says that it goes on: Redis has lost the last write, as a
/// failover to a replica may. It is not told another end. False: it knows of none.
pub async fn as_livekit_knows_it(context: &Arc<Context>, record: &Record) -> Result<bool, BusError> {
    let id = &record.egress_id;
    let known = match context.io.get_egress(id, KNOWN).await {
        Ok(Some(known)) if is_over(&known) => known,
        Ok(_) => return Ok(false),
        Err(error) => {
            debug!(code = %error.code, %error, "livekit-server does not say what it knows");
            return Ok(false);
        }
    };
    let may = stands_as(record);
    let updated = context
        .registry
        .update(id, |record| {
            if !may(record) {
                return Decision::Leave;
            }
            record.info = known.encode_to_vec();
            record.phase = Phase::Over;
            record.dispatcher = context.name.to_string();
            Decision::Write
        })
        .await?;
    let Updated::Written(record) = updated else { return Ok(false) };
    info!(status = ?known.status(), "the record had lost its end, livekit-server knows it");
    context.leave_queue(id);
    context.spawn(take_away_tickets(Arc::clone(context), record));
    context.registry.finish(id, REMEMBERED).await?;
    Ok(true)
}

fn is_over(info: &EgressInfo) -> bool {
    !matches!(info.status(), EgressStatus::EgressStarting | EgressStatus::EgressActive | EgressStatus::EgressEnding)
}

async fn ended(
    context: &Arc<Context>,
    id: &EgressId,
    message: String,
    outcome: impl FnOnce(String) -> Outcome,
    may: impl Fn(&Record) -> bool,
) -> Result<bool, BusError> {
    let Some(record) = context.registry.get(id).await? else { return Ok(false) };
    let message = if record.lost.is_empty() {
        message
    } else {
        format!("{}; its uploads could not be completed: {message}", record.lost)
    };
    let FilesLeftBehind { mut facts, finished } = left_behind(context, &record).await;
    let outcome = if finished { Outcome::Complete } else { outcome(message.clone()) };
    facts.push(Fact::Over(outcome));
    let settled = over(context, id, &facts, may).await?.is_some();
    if settled {
        info!(egress_id = %id, reason = message, finished, "egress settled");
    }
    Ok(settled)
}

/// What a dead runner of this machine had written is where it was written; the result says how much that is, and whether
/// the runner had finished it before it died or left: with Redis away it may have had no way to say so.
async fn left_behind(context: &Context, record: &Record) -> FilesLeftBehind {
    if !context.targets.is_here(record) {
        return FilesLeftBehind::default();
    }
    let Some(ledger) = report::ledger_of(record) else { return FilesLeftBehind::default() };
    let clock = context.clock.clone();
    let scan = tokio::task::spawn_blocking(move || report::left_behind(&ledger, &clock));
    tokio::time::timeout(DISK_TIMEOUT, scan).await.ok().and_then(Result::ok).unwrap_or_default()
}

/// Ends it with these facts if `may` still holds for what stands in the registry, and sees to the delivery. `None`: it
/// was over already, or `may` said no.
pub async fn over(
    context: &Arc<Context>,
    id: &EgressId,
    facts: &[Fact],
    may: impl Fn(&Record) -> bool,
) -> Result<Option<Box<Record>>, BusError> {
    let now = context.clock.unix_ns();
    let updated = context
        .registry
        .update(id, |record| {
            if record.phase == Phase::Over || !may(record) {
                return Decision::Leave;
            }
            let continued = report::continued(record, facts.to_vec(), now);
            record.ledger = continued.text;
            record.info = continued.info.encode_to_vec();
            record.phase = Phase::Over;
            record.dispatcher = context.name.to_string();
            Decision::Write
        })
        .await?;
    context.leave_queue(id);
    let Updated::Written(record) = updated else { return Ok(None) };
    context.spawn(take_away_tickets(Arc::clone(context), record.clone()));
    deliver(context, &record);
    Ok(Some(record))
}

/// Nobody will launch for it any more. Tickets are encrypted, and their time runs out if this does not get through.
async fn take_away_tickets(context: Arc<Context>, record: Box<Record>) {
    let launch = if record.lost.is_empty() { String::new() } else { Dispatch::of(&record).claim };
    for claim in [record.spare, launch].iter().filter(|claim| !claim.is_empty()) {
        if let Err(error) = context.tickets.withdraw(&record.egress_id, &ClaimToken::from_text(claim)).await {
            debug!(egress_id = %record.egress_id, error = %chain(&error), "ticket not withdrawn");
        }
    }
}

/// Takes the record's last EgressInfo to livekit-server, in the background, once at a time.
pub fn deliver(context: &Arc<Context>, record: &Record) {
    let id = record.egress_id.clone();
    let Some(held) = context.take_for_delivery(&id) else { return };
    let info = match report::info_of(record) {
        Ok(info) => info,
        Err(error) => return error!(egress_id = %id, %error, "record holds no EgressInfo, nothing to deliver"),
    };
    let span = info_span!("egress", egress_id = %id);
    let home = Arc::clone(context);
    let context = Arc::clone(context);
    let delivery = async move {
        let _held = held;
        // Whoever accepted it may have died before livekit-server knew; for an id it knows this does nothing.
        if let Err(error) = context.io.create_egress(&info, DELIVERY).await {
            return warn!(code = %error.code, %error, "last state not delivered yet");
        }
        match context.io.update_egress(&info, DELIVERY).await {
            Ok(()) => info!(status = ?info.status(), "last state delivered"),
            Err(error) => return warn!(code = %error.code, %error, "last state not delivered yet"),
        }
        if let Err(error) = context.registry.finish(&id, REMEMBERED).await {
            warn!(error = %chain(&error), "record not finished; its last state may be delivered twice");
        }
    };
    // Not tracked: leaving does not wait ten minutes for livekit-server, the record tells the next dispatcher.
    home.spawn_untracked(delivery.instrument(span));
}

/// Makes sure, in the background, that livekit-server has a record at all; then it is launched.
pub fn announce(context: &Arc<Context>, record: Record) {
    let Some(held) = context.take_in_flight(&record.egress_id) else { return };
    let span = info_span!("egress", egress_id = %record.egress_id);
    let home = Arc::clone(context);
    let context = Arc::clone(context);
    let announcement = async move {
        let _held = held;
        let info = match report::info_of(&record) {
            Ok(info) => info,
            Err(error) => return error!(%error, "record holds no EgressInfo, not launched"),
        };
        match context.io.create_egress(&info, CREATE).await {
            Ok(()) => launch::enqueue(&context, &record),
            // The next sweep finds it again.
            Err(error) => warn!(code = %error.code, %error, "livekit-server did not take the egress, launch put off"),
        }
    };
    home.spawn(announcement.instrument(span));
}
