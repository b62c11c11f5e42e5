//! The life of an egress as one table: phases, events, effects. It awaits nothing and asks no clock.

use std::time::{Duration, Instant};

use spillway_protocol::Code;
use spillway_protocol::ledger::{EndReason as Why, Fact, Outcome};
use spillway_spool::{EndReason, Happening};

/// A longer gap between two of our own ticks means that we were away (stopped, starved); what the media process said
/// meanwhile may not have been read yet.
const OWN_ABSENCE: Duration = Duration::from_secs(2);

const OTHER_ROOM: &str = "the room had ended before the recorder joined it";
const EVICTED: &str = "recording ended early: another participant joined the room with the identity of this egress";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Since the runner took the egress.
    pub max_duration: Option<Duration>,
    pub max_file_bytes: Option<u64>,
    /// How long an egress may wait for its first media.
    pub start_timeout: Option<Duration>,
    /// Silence of the media process that counts as its death.
    pub hang_after: Duration,
    /// While the files are being finished: how long without progress.
    pub drain_patience: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    Api,
    Signal,
}

#[derive(Clone, Debug)]
pub enum Event {
    Said(Happening),
    StopAsked(Asker),
    /// The media process is over, in words.
    Gone(String),
    /// The room of the request has ended, and our joining made a new one of the same name.
    OtherRoom,
    /// A file cannot be written where the request wants it.
    NoPlace(String),
    /// What waits to be uploaded has no room any more, or no object to go to.
    Full(String),
    /// Worth telling the user.
    Noted(String),
    /// Somebody else writes about this egress now.
    Disowned,
    Tick,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    OrderStop,
    /// What the outside should know now.
    Tell(Fact),
    /// This or `Leave` once, and nothing after it. What was recorded is kept.
    Finish(Outcome),
    /// Not ours any more: end without a word.
    Leave,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing recorded yet.
    Joining,
    Recording,
    /// Stop was ordered.
    Draining {
        why: Why,
        give_up_at: Instant,
        media_ns: u64,
    },
    Over,
}

#[derive(Clone, Debug)]
pub struct Session {
    rules: Rules,
    phase: Phase,
    since: Instant,
    heard_at: Instant,
    ticked_at: Instant,
    /// Why a recording that ends well has failed all the same.
    full: Option<String>,
}

impl Session {
    pub fn new(rules: Rules, now: Instant) -> Self {
        Self { rules, phase: Phase::Joining, since: now, heard_at: now, ticked_at: now, full: None }
    }

    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    pub fn on(&mut self, event: Event, now: Instant) -> Vec<Effect> {
        if self.is_over() {
            return vec![];
        }
        match event {
            Event::Said(happening) => {
                self.heard_at = now;
                self.said(happening, now)
            }
            Event::StopAsked(Asker::Api) => self.stop(Why::StopAsked, now),
            Event::StopAsked(Asker::Signal) => self.stop(Why::Killed, now),
            Event::Gone(words) => self.fail(Code::Internal, words),
            Event::NoPlace(words) => self.fail(Code::InvalidArgument, words),
            Event::Noted(words) => vec![Effect::Tell(Fact::Noted(words))],
            Event::Full(words) if self.phase == Phase::Recording => {
                self.full = Some(words);
                self.stop(Why::Failure, now)
            }
            Event::Full(_) => vec![],
            Event::OtherRoom if self.phase == Phase::Joining => {
                let mut effects = vec![Effect::Tell(Fact::Noted(OTHER_ROOM.to_owned()))];
                effects.extend(self.stop(Why::SourceClosed, now));
                effects
            }
            Event::OtherRoom => vec![],
            Event::Disowned => {
                self.phase = Phase::Over;
                vec![Effect::Leave]
            }
            Event::Tick => self.tick(now),
        }
    }

    fn said(&mut self, happening: Happening, now: Instant) -> Vec<Effect> {
        match happening {
            Happening::Started { at } if self.phase == Phase::Joining => {
                self.phase = Phase::Recording;
                vec![Effect::Tell(Fact::Active { started_at: at })]
            }
            Happening::Waiting { what } if self.phase == Phase::Joining => vec![Effect::Tell(Fact::Waiting(what))],
            Happening::Noted { words } => vec![Effect::Tell(Fact::Noted(words))],
            Happening::Alive { media_ns, .. } => {
                self.progress(media_ns, now);
                vec![]
            }
            Happening::Wrote { end, media_ns, .. } => {
                self.progress(media_ns, now);
                match self.rules.max_file_bytes {
                    Some(most) if end >= most => self.stop(Why::Limit, now),
                    _ => vec![],
                }
            }
            Happening::Ended { why } => self.ended(why),
            Happening::Started { .. }
            | Happening::Waiting { .. }
            | Happening::Joined { .. }
            | Happening::Opening { .. }
            | Happening::Closed { .. } => vec![],
        }
    }

    /// A backlog that is being encoded may take long; standing still may not.
    fn progress(&mut self, now_ns: u64, now: Instant) {
        if let Phase::Draining { give_up_at, media_ns, .. } = &mut self.phase
            && now_ns > *media_ns
        {
            (*media_ns, *give_up_at) = (now_ns, now + self.rules.drain_patience);
        }
    }

    fn stop(&mut self, why: Why, now: Instant) -> Vec<Effect> {
        match self.phase {
            Phase::Joining => {
                let outcome = match why {
                    Why::Limit => Outcome::Aborted { words: "Session limit reached before start signal".to_owned() },
                    Why::SourceClosed => Outcome::nothing_came(),
                    _ => Outcome::stopped_before_start(),
                };
                self.finish(vec![Effect::OrderStop, ending(why)], outcome)
            }
            Phase::Recording => {
                self.phase = Phase::Draining { why, give_up_at: now + self.rules.drain_patience, media_ns: 0 };
                vec![Effect::OrderStop, ending(why)]
            }
            Phase::Draining { .. } | Phase::Over => vec![],
        }
    }

    fn ended(&mut self, why: EndReason) -> Vec<Effect> {
        match why {
            EndReason::Stopped => self.ended_well(Why::Killed, String::new()),
            EndReason::SourceClosed { words } => self.ended_well(Why::SourceClosed, words),
            EndReason::Full { words } => self.fail(Code::ResourceExhausted, words),
            EndReason::Evicted => self.fail(Code::AlreadyExists, EVICTED.to_owned()),
            EndReason::Failed { code, words } => self.fail(Code::parse(&code), words),
        }
    }

    /// `why` holds when nobody asked for the end before.
    fn ended_well(&mut self, why: Why, words: String) -> Vec<Effect> {
        let noted = |mut effects: Vec<Effect>| {
            if !words.is_empty() {
                effects.push(Effect::Tell(Fact::Noted(words.clone())));
            }
            effects
        };
        match self.phase {
            Phase::Joining => self.finish(noted(vec![ending(why)]), Outcome::nothing_came()),
            Phase::Recording => self.finish(noted(vec![ending(why)]), Outcome::Complete),
            Phase::Draining { why: Why::Limit, .. } => self.finish(vec![], Outcome::LimitReached),
            Phase::Draining { .. } | Phase::Over => self.finish(vec![], Outcome::Complete),
        }
    }

    fn fail(&mut self, code: Code, words: String) -> Vec<Effect> {
        let effects = match self.phase {
            Phase::Draining { .. } => vec![],
            _ => vec![ending(Why::Failure)],
        };
        self.finish(effects, Outcome::Failed { code, words })
    }

    fn tick(&mut self, now: Instant) -> Vec<Effect> {
        let away = now.saturating_duration_since(self.ticked_at);
        self.ticked_at = now;
        if away > OWN_ABSENCE {
            self.heard_at = (self.heard_at + away).min(now);
            if let Phase::Draining { give_up_at, .. } = &mut self.phase {
                *give_up_at += away;
            }
        }
        let silent = now.saturating_duration_since(self.heard_at);
        let age = now.saturating_duration_since(self.since);
        if silent >= self.rules.hang_after {
            return self
                .fail(Code::Internal, format!("media process said nothing for {} s and was ended", silent.as_secs()));
        }
        match self.phase {
            Phase::Joining | Phase::Recording if self.rules.max_duration.is_some_and(|most| age >= most) => {
                self.stop(Why::Limit, now)
            }
            Phase::Joining if self.rules.start_timeout.is_some_and(|most| age >= most) => self.finish(
                vec![Effect::OrderStop, ending(Why::Limit)],
                Outcome::Aborted { words: format!("Start signal not received within {} s", age.as_secs()) },
            ),
            Phase::Draining { give_up_at, .. } if now >= give_up_at => self.fail(
                Code::Internal,
                format!(
                    "media process did not finish its files: no progress for {} s",
                    self.rules.drain_patience.as_secs()
                ),
            ),
            _ => vec![],
        }
    }

    fn finish(&mut self, mut effects: Vec<Effect>, outcome: Outcome) -> Vec<Effect> {
        self.phase = Phase::Over;
        let outcome = match (self.full.take(), outcome) {
            (Some(words), Outcome::Complete) => Outcome::Failed { code: Code::ResourceExhausted, words },
            (_, outcome) => outcome,
        };
        effects.push(Effect::Finish(outcome));
        effects
    }
}

fn ending(why: Why) -> Effect {
    Effect::Tell(Fact::Ending(why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rules() -> Rules {
        Rules {
            max_duration: Some(60 * SECOND),
            max_file_bytes: Some(1_000_000),
            start_timeout: Some(40 * SECOND),
            hang_after: 10 * SECOND,
            drain_patience: 30 * SECOND,
        }
    }

    fn alive(media_ns: u64) -> Event {
        Event::Said(Happening::Alive { media_ns, lag_ms: 0, backlog_bytes: 0 })
    }

    fn started() -> Event {
        Event::Said(Happening::Started { at: 5 })
    }

    fn ended(why: EndReason) -> Event {
        Event::Said(Happening::Ended { why })
    }

    fn recording(now: Instant) -> Session {
        let mut session = Session::new(rules(), now);
        assert_eq!(session.on(started(), now), [Effect::Tell(Fact::Active { started_at: 5 })]);
        session
    }

    fn outcome(effects: &[Effect]) -> Option<&Outcome> {
        effects.iter().find_map(|effect| match effect {
            Effect::Finish(outcome) => Some(outcome),
            _ => None,
        })
    }

    /// Ticks and signs of life for `seconds`; the first effects that come of it, and the time they came.
    fn live(session: &mut Session, from: Instant, seconds: u64) -> Option<(Vec<Effect>, u64)> {
        (1..=seconds).find_map(|second| {
            let now = from + second as u32 * SECOND;
            session.on(alive(second), now);
            let effects = session.on(Event::Tick, now);
            (!effects.is_empty()).then_some((effects, second))
        })
    }

    #[test]
    fn a_stop_drains_and_completes_and_a_second_one_changes_nothing() {
        let now = Instant::now();
        let mut session = recording(now);
        assert_eq!(
            session.on(Event::StopAsked(Asker::Api), now),
            [Effect::OrderStop, Effect::Tell(Fact::Ending(Why::StopAsked))]
        );
        assert_eq!(session.on(Event::StopAsked(Asker::Api), now), []);
        assert_eq!(session.on(ended(EndReason::Stopped), now), [Effect::Finish(Outcome::Complete)]);
        assert_eq!(session.on(Event::Gone("late".to_owned()), now), []);
    }

    #[test]
    fn a_full_spool_ends_the_recording_cleanly_with_its_reason() {
        let now = Instant::now();
        let mut session = recording(now);
        let effects = session.on(Event::Full("no room".to_owned()), now);
        assert_eq!(effects, [Effect::OrderStop, Effect::Tell(Fact::Ending(Why::Failure))]);
        assert_eq!(session.on(Event::Full("no room".to_owned()), now), []);
        let failed = Outcome::Failed { code: Code::ResourceExhausted, words: "no room".to_owned() };
        assert_eq!(session.on(ended(EndReason::Stopped), now), [Effect::Finish(failed)]);
    }

    #[test]
    fn a_stop_before_the_first_media_aborts_at_once() {
        let now = Instant::now();
        let mut session = Session::new(rules(), now);
        let effects = session.on(Event::StopAsked(Asker::Api), now);
        assert_eq!(
            outcome(&effects),
            Some(&Outcome::Aborted { words: "Stop called before pipeline could start".to_owned() })
        );
    }

    #[test]
    fn the_room_ending_before_the_first_media_aborts() {
        let now = Instant::now();
        let mut session = Session::new(rules(), now);
        let effects = session.on(ended(EndReason::SourceClosed { words: "room closed".to_owned() }), now);
        assert_eq!(outcome(&effects), Some(&Outcome::Aborted { words: "Start signal not received".to_owned() }));
        assert!(effects.contains(&Effect::Tell(Fact::Noted("room closed".to_owned()))));
    }

    #[test]
    fn the_time_limit_ends_with_what_was_recorded() {
        let now = Instant::now();
        let mut session = recording(now);
        let (effects, at) = live(&mut session, now, 70).unwrap();
        assert_eq!((effects, at), (vec![Effect::OrderStop, Effect::Tell(Fact::Ending(Why::Limit))], 60));
        assert_eq!(session.on(ended(EndReason::Stopped), now), [Effect::Finish(Outcome::LimitReached)]);
    }

    #[test]
    fn the_size_limit_ends_with_what_was_recorded() {
        let now = Instant::now();
        let mut session = recording(now);
        let wrote = Happening::Wrote { file: 0, end: 1_000_000, sealed_to: 0, media_ns: 1 };
        assert_eq!(session.on(Event::Said(wrote), now)[0], Effect::OrderStop);
        assert_eq!(session.on(ended(EndReason::Stopped), now), [Effect::Finish(Outcome::LimitReached)]);
    }

    #[test]
    fn nobody_publishing_ends_at_the_start_timeout() {
        let now = Instant::now();
        let mut session = Session::new(rules(), now);
        let (effects, at) = live(&mut session, now, 50).unwrap();
        assert_eq!(at, 40);
        assert!(matches!(outcome(&effects), Some(Outcome::Aborted { .. })));
    }

    #[test]
    fn silence_is_death_but_our_own_absence_is_not_silence() {
        let now = Instant::now();
        let mut session = recording(now);
        // We were stopped for a minute: the first tick comes before anything could be read.
        assert_eq!(session.on(Event::Tick, now + 55 * SECOND), []);
        for second in 56..65 {
            assert_eq!(outcome(&session.on(Event::Tick, now + second * SECOND)), None);
        }
        let effects = session.on(Event::Tick, now + 65 * SECOND);
        assert_eq!(
            outcome(&effects),
            Some(&Outcome::Failed {
                code: Code::Internal,
                words: "media process said nothing for 10 s and was ended".to_owned()
            })
        );
    }

    #[test]
    fn draining_may_take_long_but_not_stand_still() {
        let now = Instant::now();
        let mut session = recording(now);
        session.on(Event::StopAsked(Asker::Signal), now);
        assert_eq!(live(&mut session, now, 59), None);
        // Alive, yet the media time stays where it is.
        let from = now + 59 * SECOND;
        let given_up = (1..40).find(|second| {
            let now = from + *second * SECOND;
            session.on(alive(59), now);
            outcome(&session.on(Event::Tick, now)).is_some()
        });
        assert_eq!(given_up, Some(30));
    }

    #[test]
    fn a_dead_media_process_is_a_failure_with_its_reason() {
        let now = Instant::now();
        let mut session = recording(now);
        assert_eq!(
            session.on(Event::Gone("media process was killed by signal 9 (SIGKILL)".to_owned()), now),
            [
                Effect::Tell(Fact::Ending(Why::Failure)),
                Effect::Finish(Outcome::Failed {
                    code: Code::Internal,
                    words: "media process was killed by signal 9 (SIGKILL)".to_owned()
                })
            ]
        );
    }

    fn any_event() -> impl Strategy<Value = Event> {
        let text = || Just("words".to_owned());
        prop_oneof![
            Just(Event::StopAsked(Asker::Api)),
            Just(Event::StopAsked(Asker::Signal)),
            text().prop_map(Event::Gone),
            Just(Event::OtherRoom),
            text().prop_map(Event::NoPlace),
            text().prop_map(Event::Noted),
            Just(Event::Disowned),
            Just(Event::Tick),
            Just(Event::Tick),
            Just(started()),
            any::<u64>().prop_map(alive),
            (any::<u64>(), any::<u64>()).prop_map(|(end, media_ns)| Event::Said(Happening::Wrote {
                file: 0,
                end,
                sealed_to: 0,
                media_ns
            })),
            text().prop_map(|what| Event::Said(Happening::Waiting { what })),
            text().prop_map(|words| Event::Said(Happening::Noted { words })),
            Just(ended(EndReason::Stopped)),
            Just(ended(EndReason::Evicted)),
            text().prop_map(|words| ended(EndReason::SourceClosed { words })),
            text().prop_map(|words| ended(EndReason::Full { words })),
            text().prop_map(|words| ended(EndReason::Failed { code: "internal".to_owned(), words })),
        ]
    }

    proptest! {
        #[test]
        fn whatever_events_arrive_in_whatever_order_a_session_exits_at_most_once(
            events in prop::collection::vec((any_event(), 0u64..20_000), 0..80),
        ) {
            let mut now = Instant::now();
            let mut session = Session::new(rules(), now);
            let (mut finished, mut ending, mut active) = (0, 0, 0);
            for (event, later) in events {
                now += Duration::from_millis(later);
                for effect in session.on(event, now) {
                    prop_assert_eq!(finished, 0, "{:?} after the end", effect);
                    match effect {
                        Effect::Finish(_) | Effect::Leave => finished += 1,
                        Effect::Tell(Fact::Ending(_)) => ending += 1,
                        Effect::Tell(Fact::Active { .. }) => active += 1,
                        _ => {}
                    }
                }
                prop_assert_eq!(session.is_over(), finished == 1);
            }
            prop_assert!(ending <= 1 && active <= 1);
        }

        #[test]
        fn a_session_left_alone_always_ends(
            events in prop::collection::vec((any_event(), 0u64..2_000), 0..40),
        ) {
            let mut now = Instant::now();
            let mut session = Session::new(Rules { max_duration: None, start_timeout: None, ..rules() }, now);
            for (event, later) in events {
                now += Duration::from_millis(later);
                session.on(event, now);
            }
            for _ in 0..60 {
                now += SECOND;
                session.on(Event::Tick, now);
            }
            prop_assert!(session.is_over());
        }
    }
}
