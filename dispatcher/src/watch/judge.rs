//! What a record, a heartbeat and a look at the task mean together. Pure: the whole table in one function.

use std::time::Duration;

use spillway_bus::Phase;
use spillway_launchers::{Departed, Sighting};

#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From the launch to a runner that has taken over.
    pub start: Duration,
    /// A heartbeat older than this means nothing any more once the task is known to be gone.
    pub beat: Duration,
    /// Silence of a task that cannot be seen from here.
    pub unseen: Duration,
    /// Silence of a task that is there: stopped, starved or hung.
    pub hung: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            start: Duration::from_secs(60),
            beat: Duration::from_millis(2500),
            unseen: Duration::from_secs(12),
            hung: Duration::from_secs(60),
        }
    }
}

/// All that is known about one egress of ours at one moment.
#[derive(Clone, Debug)]
pub struct Scene {
    pub phase: Phase,
    /// Since its launch was begun; `None` before.
    pub launched_for: Option<Duration>,
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
    /// FAILED, with these words; whatever is left of the task is ended.
    Settle(String),
}

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
        Phase::Running | Phase::Ending | Phase::Lost if beating => Verdict::Leave,
        Phase::Running | Phase::Ending | Phase::Lost => match &scene.task {
            Some(Sighting::Gone(departed)) => Verdict::Settle(died(departed)),
            Some(Sighting::Alive | Sighting::Starting(_)) if scene.silent_for >= patience.hung => Verdict::Settle(
                format!("the runner stopped answering for {} s and was ended", scene.silent_for.as_secs()),
            ),
            Some(Sighting::Unknown(why)) if scene.silent_for >= patience.unseen => {
                Verdict::Settle(format!("the runner has been silent for {} s ({why})", scene.silent_for.as_secs()))
            }
            None if scene.silent_for >= patience.unseen => {
                Verdict::Settle(format!("the runner has been silent for {} s", scene.silent_for.as_secs()))
            }
            _ => Verdict::Leave,
        },
    }
}

fn starting(scene: &Scene, beating: bool, patience: Patience) -> Verdict {
    let waited = scene.launched_for.unwrap_or_default();
    match &scene.task {
        // A second task lost the race for the ticket and left; the one that beats won it.
        Some(Sighting::Gone(_)) if beating => Verdict::Leave,
        Some(Sighting::Gone(departed)) => {
            Verdict::Settle(format!("the runner left before it started recording: {departed}"))
        }
        _ if scene.in_line => Verdict::Leave,
        _ if waited >= patience.start => {
            Verdict::Settle(format!("the runner did not start within {} s", patience.start.as_secs()))
        }
        None => Verdict::Launch,
        Some(_) => Verdict::Leave,
    }
}

fn died(departed: &Departed) -> String {
    format!("the runner died: {departed}")
}

#[cfg(test)]
mod tests {
    use spillway_launchers::Departure;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn scene(phase: Phase) -> Scene {
        Scene {
            phase,
            launched_for: Some(SECOND),
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
        assert_eq!(verdict(dead.clone()), Verdict::Settle(words.clone()));
        assert_eq!(verdict(Scene { beat: None, ..dead }), Verdict::Settle(words));
    }

    #[test]
    fn a_stopped_or_starved_runner_has_a_minute() {
        let silent = |for_s| Scene { beat: None, silent_for: for_s * SECOND, ..scene(Phase::Running) };
        assert_eq!(verdict(silent(10)), Verdict::Leave);
        assert!(matches!(verdict(silent(60)), Verdict::Settle(words) if words.contains("stopped answering for 60 s")));
    }

    #[test]
    fn what_cannot_be_seen_is_judged_by_its_silence_alone() {
        let task = Some(Sighting::Unknown("the runner is on another machine".into()));
        let silent =
            |for_s| Scene { beat: None, task: task.clone(), silent_for: for_s * SECOND, ..scene(Phase::Running) };
        assert_eq!(verdict(silent(11)), Verdict::Leave);
        assert!(matches!(verdict(silent(12)), Verdict::Settle(_)));
    }

    #[test]
    fn a_start_has_its_deadline_and_a_runner_that_left_early_is_not_waited_for() {
        let starting = Scene { beat: None, ..scene(Phase::Launching) };
        assert_eq!(verdict(starting.clone()), Verdict::Leave);
        let late = Scene { launched_for: Some(60 * SECOND), ..starting.clone() };
        assert_eq!(verdict(late), Verdict::Settle("the runner did not start within 60 s".into()));
        let left = Scene { task: Some(Sighting::Gone(Departure::Exited(101).into())), ..starting.clone() };
        assert_eq!(
            verdict(left),
            Verdict::Settle("the runner left before it started recording: exit status 101".into())
        );
        assert_eq!(verdict(Scene { task: None, ..starting.clone() }), Verdict::Launch);
        assert_eq!(verdict(Scene { task: None, in_line: true, ..starting }), Verdict::Leave);
    }

    #[test]
    fn the_last_word_is_delivered_for_whoever_can_no_longer_speak() {
        assert_eq!(verdict(scene(Phase::Over)), Verdict::Leave);
        assert_eq!(verdict(Scene { beat: None, ..scene(Phase::Over) }), Verdict::Deliver);
    }
}
