//! What a record, a heartbeat and a look at the task mean together. Pure: the whole table in one function.

use std::time::Duration;

use spillway_bus::Phase;
use spillway_launchers::{Departed, Departure, Sighting};

#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From the launch to a runner that has taken over.
    pub start: Duration,
    /// A heartbeat older than this means nothing any more once the task is known to be gone.
    pub beat: Duration,
    /// Silence of a task that cannot be seen from here.
    pub unseen: Duration,
    /// Silence of a task that is there: stopped, starved, hung, or cut off from Redis alone.
    pub hung: Duration,
    /// From a stop to a runner that has begun to obey.
    pub stop: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            start: Duration::from_secs(60),
            beat: Duration::from_millis(2500),
            unseen: Duration::from_secs(12),
            hung: Duration::from_secs(5 * 60),
            stop: Duration::from_secs(60),
        }
    }
}

/// All that is known about one egress of ours at one moment.
#[derive(Clone, Debug)]
pub struct Scene {
    pub phase: Phase,
    /// Since its launch was begun; `None` before.
    pub launched_for: Option<Duration>,
    /// Of the target it was launched at, where that is not the installation's.
    pub start_deadline: Option<Duration>,
    /// Another target could be asked.
    pub has_another: bool,
    /// Tasks before this one that never recorded.
    pub lost_starts: u32,
    pub stop_ignored_for: Duration,
    /// It waits for a place here, or its launch call is in the air.
    pub in_line: bool,
    /// What the launcher says; `None` without a task.
    pub task: Option<Sighting>,
    /// Age of the last heartbeat; `None` when there is none.
    pub beat: Option<Duration>,
    /// How long we have seen no heartbeat while the bus was healthy.
    pub silent_for: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Leave,
    /// Nobody is launching it: do.
    Launch,
    /// Over, and the one who ended it can no longer say so.
    Deliver,
    /// It was stopped and goes on: the platform is to end its task in good order.
    Remind,
    /// Nothing was recorded: another task may.
    Again(String),
    /// The task left with exit status 0, which a runner does when its work is done, and the record says that it records:
    /// the last report may have been lost. Whatever can be asked is asked before it is settled with these words.
    Ask(String),
    /// FAILED, or ABORTED, with these words; whatever is left of the task is ended.
    Settle {
        words: String,
        aborted: bool,
    },
}

fn failed(words: String) -> Verdict {
    Verdict::Settle { words, aborted: false }
}

/// A task that never ran is replaced so often; what stands in its way is seldom gone the third time.
const MOST_LOST_STARTS: u32 = 2;

pub fn judge(scene: &Scene, patience: Patience) -> Verdict {
    let beating = scene.beat.is_some_and(|age| age < patience.beat);
    match scene.phase {
        Phase::Over => {
            if beating {
                Verdict::Leave
            } else {
                Verdict::Deliver
            }
        }
        Phase::Accepted if scene.in_line => Verdict::Leave,
        Phase::Accepted => Verdict::Launch,
        Phase::Launching => starting(scene, beating, patience),
        Phase::Running if beating && scene.stop_ignored_for >= patience.stop => Verdict::Remind,
        Phase::Running | Phase::Ending | Phase::Lost if beating => Verdict::Leave,
        Phase::Running | Phase::Ending | Phase::Lost => match &scene.task {
            Some(Sighting::Gone(departed)) => died(departed),
            Some(Sighting::Alive | Sighting::Starting(_)) if scene.silent_for >= patience.hung => {
                failed(format!("the runner stopped answering for {} s and was ended", scene.silent_for.as_secs()))
            }
            Some(Sighting::Unknown(why)) if scene.silent_for >= patience.unseen => {
                failed(format!("the runner has been silent for {} s ({why})", scene.silent_for.as_secs()))
            }
            None if scene.silent_for >= patience.unseen => {
                failed(format!("the runner has been silent for {} s", scene.silent_for.as_secs()))
            }
            _ => Verdict::Leave,
        },
    }
}

fn starting(scene: &Scene, beating: bool, patience: Patience) -> Verdict {
    let waited = scene.launched_for.unwrap_or_default();
    let deadline = scene.start_deadline.unwrap_or(patience.start);
    let may_again = scene.lost_starts < MOST_LOST_STARTS;
    match &scene.task {
        // A second task lost the race for the ticket and left; the one that beats won it.
        Some(Sighting::Gone(_)) if beating => Verdict::Leave,
        Some(Sighting::Gone(departed)) => {
            let words = format!("the runner left before it started recording: {departed}");
            // Spot capacity may be gone for good, and a machine may have been bad; a program that fails will fail again.
            let blameless = departed.how.never_ran()
                || matches!(departed.how, Departure::CapacityReclaimed | Departure::HostRetired(_));
            if blameless && may_again { Verdict::Again(words) } else { failed(words) }
        }
        _ if scene.in_line => Verdict::Leave,
        task if waited >= deadline => {
            let words = match task {
                Some(Sighting::Starting(what)) => {
                    format!("the runner did not start within {} s ({what})", deadline.as_secs())
                }
                _ => format!("the runner did not start within {} s", deadline.as_secs()),
            };
            // One whose launch nobody could confirm may still come: it is not replaced.
            if task.is_some() && may_again && scene.has_another { Verdict::Again(words) } else { failed(words) }
        }
        None => Verdict::Launch,
        Some(_) => Verdict::Leave,
    }
}

fn died(departed: &Departed) -> Verdict {
    match departed.how {
        Departure::CapacityReclaimed => {
            Verdict::Settle { words: format!("runner interrupted: {departed}"), aborted: true }
        }
        Departure::EndedByUs(_) => failed(format!("the runner was {departed}")),
        Departure::HostRetired(_) => Verdict::Settle { words: format!("the runner died: {departed}"), aborted: true },
        Departure::Exited(0) => Verdict::Ask(format!("the runner died: {departed}")),
        _ => failed(format!("the runner died: {departed}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn scene(phase: Phase) -> Scene {
        Scene {
            phase,
            launched_for: Some(SECOND),
            start_deadline: None,
            has_another: false,
            lost_starts: 0,
            stop_ignored_for: Duration::ZERO,
            in_line: false,
            task: Some(Sighting::Alive),
            beat: Some(SECOND),
            silent_for: Duration::ZERO,
        }
    }

    fn verdict(scene: Scene) -> Verdict {
        judge(&scene, Patience::default())
    }

    #[test]
    fn a_recording_that_beats_is_left_alone_whatever_the_launcher_says() {
        for phase in [Phase::Running, Phase::Ending] {
            for task in [None, Some(Sighting::Gone(Departure::Unsaid.into())), Some(Sighting::Unknown("far".into()))] {
                assert_eq!(verdict(Scene { task, ..scene(phase) }), Verdict::Leave);
            }
        }
    }

    #[test]
    fn a_dead_runner_is_settled_with_how_it_died_as_soon_as_its_last_beat_is_old() {
        let task = Some(Sighting::Gone(Departure::Signalled(9).into()));
        let dead = Scene { task, beat: Some(3 * SECOND), ..scene(Phase::Running) };
        let words = "the runner died: signal 9 (killed; often: out of memory)".to_owned();
        assert_eq!(verdict(dead.clone()), failed(words.clone()));
        assert_eq!(verdict(Scene { beat: None, ..dead }), failed(words));
    }

    #[test]
    fn one_that_we_ended_is_told_so_and_not_as_out_of_memory() {
        let task = Some(Sighting::Gone(Departure::EndedByUs("egress is over".into()).into()));
        let ended = Scene { task, beat: None, ..scene(Phase::Running) };
        assert_eq!(verdict(ended), failed("the runner was ended by us: egress is over".into()));
    }

    #[test]
    fn a_runner_that_left_in_good_order_is_asked_about() {
        let task = Some(Sighting::Gone(Departure::Exited(0).into()));
        let left = Scene { task, beat: Some(3 * SECOND), ..scene(Phase::Running) };
        let words = "the runner died: exit status 0".to_owned();
        assert_eq!(verdict(left.clone()), Verdict::Ask(words.clone()));
        assert_eq!(verdict(Scene { phase: Phase::Ending, beat: None, ..left.clone() }), Verdict::Ask(words));
        assert_eq!(verdict(Scene { beat: Some(SECOND), ..left }), Verdict::Leave, "its last words may be on the way");
    }

    #[test]
    fn a_runner_that_is_stopped_starved_or_cut_off_has_five_minutes() {
        let silent = |for_s| Scene { beat: None, silent_for: for_s * SECOND, ..scene(Phase::Running) };
        assert_eq!(verdict(silent(299)), Verdict::Leave);
        assert!(
            matches!(verdict(silent(300)), Verdict::Settle { words, .. } if words.contains("stopped answering for 300 s"))
        );
    }

    #[test]
    fn what_cannot_be_seen_is_judged_by_its_silence_alone() {
        let task = Some(Sighting::Unknown("the runner is on another machine".into()));
        let silent =
            |for_s| Scene { beat: None, task: task.clone(), silent_for: for_s * SECOND, ..scene(Phase::Running) };
        assert_eq!(verdict(silent(11)), Verdict::Leave);
        assert!(matches!(verdict(silent(12)), Verdict::Settle { .. }));
    }

    #[test]
    fn a_start_has_its_deadline_and_a_runner_that_left_early_is_not_waited_for() {
        let starting = Scene { beat: None, ..scene(Phase::Launching) };
        assert_eq!(verdict(starting.clone()), Verdict::Leave);
        let late = Scene { launched_for: Some(60 * SECOND), ..starting.clone() };
        assert_eq!(verdict(late), failed("the runner did not start within 60 s".into()));
        let left = Scene { task: Some(Sighting::Gone(Departure::Exited(101).into())), ..starting.clone() };
        assert_eq!(verdict(left), failed("the runner left before it started recording: exit status 101".into()));
        assert_eq!(verdict(Scene { task: None, ..starting.clone() }), Verdict::Launch);
        assert_eq!(verdict(Scene { task: None, in_line: true, ..starting }), Verdict::Leave);
    }

    #[test]
    fn the_last_word_is_delivered_for_whoever_can_no_longer_speak() {
        assert_eq!(verdict(scene(Phase::Over)), Verdict::Leave);
        assert_eq!(verdict(Scene { beat: None, ..scene(Phase::Over) }), Verdict::Deliver);
    }

    #[test]
    fn what_never_recorded_is_replaced_twice_and_what_fails_by_itself_is_not() {
        let starting = Scene { beat: None, ..scene(Phase::Launching) };
        let left = |how: Departure| Scene { task: Some(Sighting::Gone(how.into())), ..starting.clone() };
        for how in [
            Departure::ImageNotPulled("timeout".into()),
            Departure::NeverStarted("no address".into()),
            Departure::CapacityReclaimed,
        ] {
            assert!(matches!(verdict(left(how.clone())), Verdict::Again(_)), "{how}");
            let tried = Scene { lost_starts: 2, ..left(how.clone()) };
            assert!(matches!(verdict(tried), Verdict::Settle { aborted: false, .. }), "{how}");
        }
        assert!(matches!(verdict(left(Departure::Exited(1))), Verdict::Settle { .. }));

        let stuck = Scene {
            launched_for: Some(60 * SECOND),
            has_another: true,
            task: Some(Sighting::Starting("pulling the image".into())),
            ..starting
        };
        let words = "the runner did not start within 60 s (pulling the image)".to_owned();
        assert_eq!(verdict(stuck.clone()), Verdict::Again(words.clone()));
        assert_eq!(verdict(Scene { has_another: false, ..stuck.clone() }), failed(words));
        assert_eq!(verdict(Scene { start_deadline: Some(90 * SECOND), ..stuck.clone() }), Verdict::Leave);
        assert!(matches!(verdict(Scene { task: None, ..stuck }), Verdict::Settle { .. }), "it may still come");
    }

    #[test]
    fn reclaimed_capacity_is_nobodys_failure() {
        let task = Some(Sighting::Gone(Departure::CapacityReclaimed.into()));
        let words = "runner interrupted: spot capacity reclaimed".to_owned();
        let gone = Scene { task, beat: None, ..scene(Phase::Running) };
        assert_eq!(verdict(gone), Verdict::Settle { words, aborted: true });
    }

    #[test]
    fn a_runner_that_goes_on_after_a_stop_is_ended_by_its_platform() {
        let stopped = |for_s| Scene { stop_ignored_for: for_s * SECOND, ..scene(Phase::Running) };
        assert_eq!(verdict(stopped(59)), Verdict::Leave);
        assert_eq!(verdict(stopped(60)), Verdict::Remind);
        assert_eq!(verdict(Scene { phase: Phase::Ending, ..stopped(90) }), Verdict::Leave, "uploads take their time");
    }
}
