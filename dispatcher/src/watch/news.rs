//! A platform said that a task is gone: what the next sweep would do is done now, by whoever hears of it first.
//!
//! News may come twice, late, in any order, and to several at once. Only the end of a task is news, and it is final, so
//! there is no older or newer: whether something is left to do stands in the record alone, and who does it is decided by
//! compare-and-set.

use std::sync::Arc;
use std::time::Duration;

use spillway_bus::{BusError, Phase, Record, TaskKey};
use spillway_launchers::{Departed, Sighting, TaskRef};
use spillway_protocol::ids::EgressId;
use tokio::time::Instant;
use tracing::{Instrument, info, info_span};

use super::act::{self, Done, act};
use super::judge::{Patience, Scene, judge};
use super::relaunch;
use crate::account;
use crate::house::{Dispatch, House, task_of};
use crate::launch;

/// A runner's last beat and a dead owner's must have gone cold; then somebody else is at it, or it lives.
const LONGEST_LOOK: Duration = Duration::from_secs(8);
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// The end of one task.
#[derive(Clone, Debug, PartialEq)]
pub struct News {
    pub egress_id: EgressId,
    pub attempt: u32,
    /// As the platform names the task.
    pub task: String,
    pub departed: Departed,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// No record, or one that has nothing to do with that task.
    NotOurs,
    /// It had ended, and livekit-server knows.
    WasOver,
    /// It ends with this task; the last word is on its way.
    Settled,
    /// It had ended; the last word is on its way.
    Delivering,
    /// Another task finishes its uploads.
    Salvage,
    /// Nothing had been recorded: another task is launched in its place.
    Again,
    /// Somebody who lives sees to it, and this is who.
    InOtherHands(&'static str),
}

enum Step {
    Over(Heard),
    /// Looked at again, and why; in the end, the reason it was left alone.
    Wait(&'static str),
}

pub async fn hear(house: &Arc<House>, news: &News) -> Result<Heard, BusError> {
    let span = info_span!("egress", egress_id = %news.egress_id, attempt = news.attempt);
    async {
        let until = Instant::now() + LONGEST_LOOK;
        let heard = loop {
            match step(house, news).await? {
                Step::Over(heard) => break heard,
                Step::Wait(why) if Instant::now() >= until => break Heard::InOtherHands(why),
                Step::Wait(_) => tokio::time::sleep(LOOK_AGAIN).await,
            }
        };
        let key = TaskKey { egress_id: news.egress_id.clone(), attempt: news.attempt };
        account::gone(house, &key, &news.departed).await?;
        info!(task = news.task, left = %news.departed, ?heard, "a task's end was told");
        Ok(heard)
    }
    .instrument(span)
    .await
}

async fn step(house: &Arc<House>, news: &News) -> Result<Step, BusError> {
    let Some(record) = house.registry.get(&news.egress_id).await? else { return Ok(Step::Over(Heard::NotOurs)) };
    let beat = house.beats.last(&record.egress_id).await?.filter(|(_, beat)| beat.attempt == record.attempt);
    let beating = beat.as_ref().is_some_and(|(age, _)| *age < Patience::default().beat);
    if record.phase == Phase::Over {
        return last_word(house, record, beating).await;
    }
    let dispatch = Dispatch::of(&record);
    // A task of an attempt that the record does not stand at yet: a double, which finds that out by itself.
    if news.attempt > record.attempt {
        return Ok(Step::Over(Heard::NotOurs));
    }
    if news.attempt < record.attempt || dispatch.earlier.contains_key(&news.attempt) {
        return next_launch(house, record).await;
    }
    let Some(record) = at(house, news, record).await? else {
        return Ok(Step::Over(Heard::InOtherHands("another task of this attempt")));
    };
    let scene = Scene {
        phase: record.phase,
        launched_for: Some(Duration::ZERO),
        start_deadline: None,
        has_another: relaunch::has_another(house, &dispatch),
        lost_starts: dispatch.lost_starts,
        stop_ignored_for: Duration::ZERO,
        in_line: house.line().is_busy_with(&record.egress_id),
        task: Some(Sighting::Gone(news.departed.clone())),
        beat: beat.map(|(age, _)| age),
        silent_for: Duration::ZERO,
    };
    Ok(match act(house, &record, judge(&scene, Patience::default())).await? {
        Done::Settled => Step::Over(Heard::Settled),
        Done::Salvage => Step::Over(Heard::Salvage),
        Done::Again | Done::Joined => Step::Over(Heard::Again),
        Done::Delivering => Step::Over(Heard::Delivering),
        Done::Nothing | Done::Reminded => Step::Wait("a runner that is alive"),
        Done::Beaten => Step::Wait("whoever changed the record"),
    })
}

/// Over: is there anybody who says so?
async fn last_word(house: &Arc<House>, record: Record, beating: bool) -> Result<Step, BusError> {
    if !house.registry.is_live(&record.egress_id).await? {
        return Ok(Step::Over(Heard::WasOver));
    }
    if beating {
        return Ok(Step::Wait("its runner, which tells its end"));
    }
    let record = match act::is_owner_silent(house, &record).await? {
        false if house.owns(&record) => record,
        false => return Ok(Step::Wait("the dispatcher that tells its end")),
        true => match act::adopt(house, record).await? {
            Some(record) => record,
            None => return Ok(Step::Wait("whoever took it over")),
        },
    };
    super::settle::deliver(house, &record);
    Ok(Step::Over(Heard::Delivering))
}

/// The record has moved on; whoever moved it may have died before the launch.
async fn next_launch(house: &Arc<House>, record: Record) -> Result<Step, BusError> {
    let waits = matches!(record.phase, Phase::Accepted | Phase::Launching) && record.task.is_none();
    if !waits {
        return Ok(Step::Over(Heard::InOtherHands("the task after it")));
    }
    if !act::is_owner_silent(house, &record).await? {
        return Ok(Step::Wait("the dispatcher that launches the next task"));
    }
    let Some(record) = act::adopt(house, record).await? else { return Ok(Step::Wait("whoever took it over")) };
    launch::join(house, &record);
    Ok(Step::Over(if record.lost.is_empty() { Heard::Again } else { Heard::Salvage }))
}

/// The record, if that task is its task. The launch's answer may have been lost with whoever asked for it: then the
/// platform has just named the task.
async fn at(house: &Arc<House>, news: &News, record: Record) -> Result<Option<Record>, BusError> {
    match (task_of(&record), house.targets.of(&record)) {
        (Some(task), _) => Ok((task.id == news.task).then_some(record)),
        (None, Some(target)) if record.phase != Phase::Accepted => {
            let task = TaskRef { launcher: target.launcher.name().to_owned(), id: news.task.clone() };
            launch::note_task(house, &record.egress_id, record.attempt, &task).await?;
            house.registry.get(&record.egress_id).await
        }
        (None, _) => Ok(None),
    }
}
