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

use crate::house::{Dispatch, House};
use crate::launch;
use crate::report::{self, Left};

/// As long as livekit-server itself remembers an ended egress: so long a stop is answered at once.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);
/// livekit-server may be down for a while; the record waits, and another dispatcher goes on if we are gone.
const DELIVERY: Duration = Duration::from_secs(600);
/// A file's size is not worth more than this to a settlement.
const DISK_PATIENCE: Duration = Duration::from_secs(1);
/// For an answer about what livekit-server knows; its nodes answer from their Redis.
const KNOWN: Duration = Duration::from_secs(3);
const CREATE: Duration = Duration::from_secs(10);

/// FAILED, if `may` still holds for what stands in the registry. False: it did not.
pub async fn failed(
    house: &Arc<House>,
    id: &EgressId,
    code: Code,
    words: String,
    may: impl Fn(&Record) -> bool,
) -> Result<bool, BusError> {
    ended(house, id, words, |words| Outcome::Failed { code, words }, may).await
}

/// ABORTED: it was nobody's fault here.
pub async fn aborted(
    house: &Arc<House>,
    id: &EgressId,
    words: String,
    may: impl Fn(&Record) -> bool,
) -> Result<bool, BusError> {
    ended(house, id, words, |words| Outcome::Aborted { words }, may).await
}

/// A judgement is about what was seen: another attempt or another phase is judged anew.
pub fn stands_as(seen: &Record) -> impl Fn(&Record) -> bool + use<> {
    let (attempt, phase) = (seen.attempt, seen.phase);
    move |record| record.attempt == attempt && record.phase == phase
}

/// livekit-server has heard the end of an egress whose record says that it goes on: Redis has lost the last write, as a
/// failover to a replica may. It is not told another end. False: it knows of none.
pub async fn as_livekit_knows_it(house: &Arc<House>, record: &Record) -> Result<bool, BusError> {
    let id = &record.egress_id;
    let known = match house.io.get_egress(id, KNOWN).await {
        Ok(Some(known)) if is_over(&known) => known,
        Ok(_) => return Ok(false),
        Err(error) => {
            debug!(code = %error.code, %error, "livekit-server does not say what it knows");
            return Ok(false);
        }
    };
    let may = stands_as(record);
    let updated = house
        .registry
        .update(id, |record| {
            if !may(record) {
                return Decision::Leave;
            }
            record.info = known.encode_to_vec();
            record.phase = Phase::Over;
            record.dispatcher = house.name.to_string();
            Decision::Write
        })
        .await?;
    let Updated::Written(record) = updated else { return Ok(false) };
    info!(status = ?known.status(), "the record had lost its end, livekit-server knows it");
    house.leave_line(id);
    house.spawn(take_away_tickets(Arc::clone(house), record));
    house.registry.finish(id, REMEMBERED).await?;
    Ok(true)
}

fn is_over(info: &EgressInfo) -> bool {
    !matches!(info.status(), EgressStatus::EgressStarting | EgressStatus::EgressActive | EgressStatus::EgressEnding)
}

async fn ended(
    house: &Arc<House>,
    id: &EgressId,
    words: String,
    outcome: impl FnOnce(String) -> Outcome,
    may: impl Fn(&Record) -> bool,
) -> Result<bool, BusError> {
    let Some(record) = house.registry.get(id).await? else { return Ok(false) };
    let words = if record.lost.is_empty() {
        words
    } else {
        format!("{}; its uploads could not be completed: {words}", record.lost)
    };
    let Left { mut facts, finished } = left_behind(house, &record).await;
    let outcome = if finished { Outcome::Complete } else { outcome(words.clone()) };
    facts.push(Fact::Over(outcome));
    let settled = over(house, id, &facts, may).await?.is_some();
    if settled {
        info!(egress_id = %id, reason = words, finished, "egress settled");
    }
    Ok(settled)
}

/// What a dead runner of this machine had written is where it was written; the result says how much that is, and whether
/// the runner had finished it before it died or left: with Redis away it may have had no way to say so.
async fn left_behind(house: &House, record: &Record) -> Left {
    if !house.targets.is_here(record) {
        return Left::default();
    }
    let Some(ledger) = report::ledger_of(record) else { return Left::default() };
    let clock = house.clock.clone();
    let look = tokio::task::spawn_blocking(move || report::left_behind(&ledger, &clock));
    tokio::time::timeout(DISK_PATIENCE, look).await.ok().and_then(Result::ok).unwrap_or_default()
}

/// Ends it with these facts if `may` still holds for what stands in the registry, and sees to the delivery. `None`: it
/// was over already, or `may` said no.
pub async fn over(
    house: &Arc<House>,
    id: &EgressId,
    facts: &[Fact],
    may: impl Fn(&Record) -> bool,
) -> Result<Option<Box<Record>>, BusError> {
    let now = house.clock.unix_ns();
    let updated = house
        .registry
        .update(id, |record| {
            if record.phase == Phase::Over || !may(record) {
                return Decision::Leave;
            }
            let continued = report::continued(record, facts.to_vec(), now);
            record.ledger = continued.text;
            record.info = continued.info.encode_to_vec();
            record.phase = Phase::Over;
            record.dispatcher = house.name.to_string();
            Decision::Write
        })
        .await?;
    house.leave_line(id);
    let Updated::Written(record) = updated else { return Ok(None) };
    house.spawn(take_away_tickets(Arc::clone(house), record.clone()));
    deliver(house, &record);
    Ok(Some(record))
}

/// Nobody will launch for it any more. Tickets are encrypted, and their time runs out if this does not get through.
async fn take_away_tickets(house: Arc<House>, record: Box<Record>) {
    let launch = if record.lost.is_empty() { String::new() } else { Dispatch::of(&record).claim };
    for claim in [record.spare, launch].iter().filter(|claim| !claim.is_empty()) {
        if let Err(error) = house.tickets.withdraw(&record.egress_id, &ClaimToken::from_text(claim)).await {
            debug!(egress_id = %record.egress_id, error = %chain(&error), "ticket not withdrawn");
        }
    }
}

/// Takes the record's last EgressInfo to livekit-server, in the background, once at a time.
pub fn deliver(house: &Arc<House>, record: &Record) {
    let id = record.egress_id.clone();
    let Some(held) = house.take_for_delivery(&id) else { return };
    let info = match report::info_of(record) {
        Ok(info) => info,
        Err(error) => return error!(egress_id = %id, %error, "record holds no EgressInfo, nothing to deliver"),
    };
    let span = info_span!("egress", egress_id = %id);
    let home = Arc::clone(house);
    let house = Arc::clone(house);
    let delivery = async move {
        let _held = held;
        // Whoever accepted it may have died before livekit-server knew; for an id it knows this does nothing.
        if let Err(error) = house.io.create_egress(&info, DELIVERY).await {
            return warn!(code = %error.code, %error, "last state not delivered yet");
        }
        match house.io.update_egress(&info, DELIVERY).await {
            Ok(()) => info!(status = ?info.status(), "last state delivered"),
            Err(error) => return warn!(code = %error.code, %error, "last state not delivered yet"),
        }
        if let Err(error) = house.registry.finish(&id, REMEMBERED).await {
            warn!(error = %chain(&error), "record not finished; its last state may be delivered twice");
        }
    };
    // Not tracked: leaving does not wait ten minutes for livekit-server, the record tells the next dispatcher.
    home.spawn_untracked(delivery.instrument(span));
}

/// Makes sure, in the background, that livekit-server has a record at all; then it is launched.
pub fn announce(house: &Arc<House>, record: Record) {
    let Some(held) = house.take_in_hand(&record.egress_id) else { return };
    let span = info_span!("egress", egress_id = %record.egress_id);
    let home = Arc::clone(house);
    let house = Arc::clone(house);
    let announcement = async move {
        let _held = held;
        let info = match report::info_of(&record) {
            Ok(info) => info,
            Err(error) => return error!(%error, "record holds no EgressInfo, not launched"),
        };
        match house.io.create_egress(&info, CREATE).await {
            Ok(()) => launch::join(&house, &record),
            // The next sweep finds it again.
            Err(error) => warn!(code = %error.code, %error, "livekit-server did not take the egress, launch put off"),
        }
    };
    home.spawn(announcement.instrument(span));
}
