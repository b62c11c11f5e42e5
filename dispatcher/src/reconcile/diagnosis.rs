//! Record, heartbeat and task status → diagnosis. Pure: the whole table is in one function, and `act` carries it out.

use std::time::Duration;

use spillway_bus::Phase;
use spillway_launchers::{ExitReport, TaskExit, TaskStatus};

use crate::records::HEARTBEAT_FRESH;

/// Missing heartbeats of a runner without a known task: no platform can be asked about it.
const UNSEEN_TIMEOUT: Duration = Duration::from_secs(12);
/// From a stop to a runner that has begun to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// After how long something counts as failed.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From the launch call to a runner that has taken over.
    pub start: Duration,
    /// Missing heartbeats of a task that its platform reports as running, or does not report about: it is stopped,
    /// starved, hung, or only cut off from Redis.
    pub hung: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { start: Duration::from_secs(60), hung: Duration::from_secs(5 * 60) }
    }
}

/// All that is known about one egress of ours at one moment.
#[derive(Clone, Debug)]
pub struct Observation {
    /// As the record has it.
    pub phase: Phase,
    /// Since the launch call; `None` before.
    pub launched_for: Option<Duration>,
    /// Of its target, where it differs from the installation's.
    pub start_deadline: Option<Duration>,
    /// Another target could be asked now.
    pub has_another: bool,
    /// Tasks before this one that never recorded.
    pub lost_starts: u32,
    /// Since a stop was seen in the record while the runner still records.
    pub stop_ignored_for: Duration,
    /// It is in the launch queue, or its launch call is in progress.
    pub is_queued: bool,
    /// What the launcher says; `None` without a task.
    pub task: Option<TaskStatus>,
    /// It says so at the moment of the exit: a heartbeat that is still young proves nothing then.
    pub is_watched: bool,
    /// Age of the last heartbeat; `None` when there is none.
    pub beat: Option<Duration>,
    /// Since when no heartbeat was seen while Redis was reachable.
    pub silent_for: Duration,
}

/// What has to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Diagnosis {
    /// Nothing.
    Leave,
    /// It is not being launched: enqueue it.
    Launch,
    /// Over, and its runner no longer delivers the final state.
    Deliver,
    /// It was stopped and still records: the platform is asked to end its task gracefully.
    Remind,
    /// Nothing was recorded: launch another task. The text is the reason.
    Again(String),
    /// The task exited with status 0, as a runner does after its last report, or nothing is known about its end, and the
    /// record says that it records: Redis may have lost that report. livekit-server is asked what it knows before the
    /// egress fails with this message.
    Ask(String),
    /// The task that recorded is certainly gone, and not by our will: another one goes on, or the egress ends.
    Died {
        /// Why, for the user.
        message: String,
        /// It ends as ABORTED instead of FAILED: the platform took the machine.
        aborted: bool,
    },
    /// End the egress, and the task if it still runs.
    End {
        /// For `error` of EgressInfo.
        message: String,
        /// ABORTED instead of FAILED: the platform took the machine.
        aborted: bool,
    },
}

fn failed(message: String) -> Diagnosis {
    Diagnosis::End { message, aborted: false }
}

/// How often a task that never recorded is replaced; what prevented it twice is seldom gone the third time.
const MAX_LOST_STARTS: u32 = 2;

/// The table.
pub fn diagnose(observation: &Observation, timeouts: Timeouts) -> Diagnosis {
    let beating = observation.beat.is_some_and(|age| age < HEARTBEAT_FRESH);
    match observation.phase {
        Phase::Over => {
            if beating {
                Diagnosis::Leave
            } else {
                Diagnosis::Deliver
            }
        }
        // A runner that is not in the record: the record has lost its last writes, and the runner writes it again.
        Phase::Accepted | Phase::Launching if beating => Diagnosis::Leave,
        Phase::Accepted if observation.is_queued => Diagnosis::Leave,
        Phase::Accepted => Diagnosis::Launch,
        Phase::Launching => starting(observation, timeouts),
        Phase::Running if beating && observation.stop_ignored_for >= STOP_TIMEOUT => Diagnosis::Remind,
        Phase::Running | Phase::Ending if beating => match &observation.task {
            // A runner that leaves in good order may have its last report on the way.
            Some(TaskStatus::Gone(exit_report))
                if observation.is_watched && !matches!(exit_report.how, TaskExit::Exited(0) | TaskExit::Unknown) =>
            {
                died(exit_report)
            }
            _ => Diagnosis::Leave,
        },
        Phase::Running | Phase::Ending => match &observation.task {
            Some(TaskStatus::Gone(exit_report)) => died(exit_report),
            Some(TaskStatus::Alive | TaskStatus::Starting(_)) if observation.silent_for >= timeouts.hung => {
                failed(format!("the runner stopped answering for {} s and was ended", observation.silent_for.as_secs()))
            }
            // A platform that cannot be asked says nothing against the task.
            Some(TaskStatus::Unknown(why)) if observation.silent_for >= timeouts.hung => {
                Diagnosis::Ask(format!("the runner has been silent for {} s ({why})", observation.silent_for.as_secs()))
            }
            None if observation.silent_for >= UNSEEN_TIMEOUT => {
                Diagnosis::Ask(format!("the runner has been silent for {} s", observation.silent_for.as_secs()))
            }
            _ => Diagnosis::Leave,
        },
    }
}

fn starting(observation: &Observation, timeouts: Timeouts) -> Diagnosis {
    let waited = observation.launched_for.unwrap_or_default();
    let deadline = observation.start_deadline.unwrap_or(timeouts.start);
    let may_again = observation.lost_starts < MAX_LOST_STARTS;
    match &observation.task {
        Some(TaskStatus::Gone(exit_report)) => {
            let message = format!("the runner left before it started recording: {exit_report}");
            // Spot capacity may be gone, and a machine may have been bad; a program that fails will fail again.
            let blameless = exit_report.how.never_ran()
                || matches!(exit_report.how, TaskExit::CapacityReclaimed | TaskExit::HostRetired(_));
            if blameless && may_again { Diagnosis::Again(message) } else { failed(message) }
        }
        _ if observation.is_queued => Diagnosis::Leave,
        task if waited >= deadline => {
            let message = match task {
                Some(TaskStatus::Starting(what)) => {
                    format!("the runner did not start within {} s ({what})", deadline.as_secs())
                }
                _ => format!("the runner did not start within {} s", deadline.as_secs()),
            };
            // A task whose launch was never confirmed may still start: it is not replaced.
            if task.is_some() && may_again && observation.has_another {
                Diagnosis::Again(message)
            } else {
                failed(message)
            }
        }
        None => Diagnosis::Launch,
        Some(_) => Diagnosis::Leave,
    }
}

fn died(exit_report: &ExitReport) -> Diagnosis {
    match exit_report.how {
        TaskExit::CapacityReclaimed => {
            Diagnosis::Died { message: format!("runner interrupted: {exit_report}"), aborted: true }
        }
        TaskExit::EndedByUs(_) => failed(format!("the runner was {exit_report}")),
        TaskExit::HostRetired(_) => {
            Diagnosis::Died { message: format!("the runner died: {exit_report}"), aborted: true }
        }
        TaskExit::Exited(0) => Diagnosis::Ask(format!("the runner died: {exit_report}")),
        _ => Diagnosis::Died { message: format!("the runner died: {exit_report}"), aborted: false },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn observation(phase: Phase) -> Observation {
        Observation {
            phase,
            launched_for: Some(SECOND),
            start_deadline: None,
            has_another: false,
            lost_starts: 0,
            stop_ignored_for: Duration::ZERO,
            is_queued: false,
            task: Some(TaskStatus::Alive),
            is_watched: false,
            beat: Some(SECOND),
            silent_for: Duration::ZERO,
        }
    }

    fn diagnosis(observation: Observation) -> Diagnosis {
        diagnose(&observation, Timeouts::default())
    }

    #[test]
    fn a_recording_that_beats_is_left_alone_whatever_the_launcher_says() {
        for phase in [Phase::Running, Phase::Ending] {
            for task in
                [None, Some(TaskStatus::Gone(TaskExit::Unknown.into())), Some(TaskStatus::Unknown("far".into()))]
            {
                assert_eq!(diagnosis(Observation { task, ..observation(phase) }), Diagnosis::Leave);
            }
        }
    }

    #[test]
    fn a_dead_runner_is_settled_with_how_it_died_as_soon_as_its_last_beat_is_old() {
        let task = Some(TaskStatus::Gone(TaskExit::Signalled(9).into()));
        let dead = Observation { task, beat: Some(3 * SECOND), ..observation(Phase::Running) };
        let message = "the runner died: signal 9 (killed; often: out of memory)".to_owned();
        let died = Diagnosis::Died { message, aborted: false };
        assert_eq!(diagnosis(dead.clone()), died);
        assert_eq!(diagnosis(Observation { beat: None, ..dead.clone() }), died);
        // Its parent knows it at once; a platform may be mistaken about one that beats.
        let beating = Observation { beat: Some(SECOND), ..dead };
        assert_eq!(diagnosis(beating.clone()), Diagnosis::Leave);
        assert_eq!(diagnosis(Observation { is_watched: true, ..beating }), died);
    }

    #[test]
    fn one_that_we_ended_is_told_so_and_not_as_out_of_memory() {
        let task = Some(TaskStatus::Gone(TaskExit::EndedByUs("egress is over".into()).into()));
        let ended = Observation { task, beat: None, ..observation(Phase::Running) };
        assert_eq!(diagnosis(ended), failed("the runner was ended by us: egress is over".into()));
    }

    #[test]
    fn a_runner_that_left_in_good_order_is_asked_about() {
        let task = Some(TaskStatus::Gone(TaskExit::Exited(0).into()));
        let left = Observation { task, beat: Some(3 * SECOND), ..observation(Phase::Running) };
        let message = "the runner died: exit status 0".to_owned();
        assert_eq!(diagnosis(left.clone()), Diagnosis::Ask(message.clone()));
        assert_eq!(
            diagnosis(Observation { phase: Phase::Ending, beat: None, ..left.clone() }),
            Diagnosis::Ask(message)
        );
        assert_eq!(
            diagnosis(Observation { beat: Some(SECOND), is_watched: true, ..left }),
            Diagnosis::Leave,
            "its last report may be on the way"
        );
    }

    #[test]
    fn a_runner_that_is_stopped_starved_or_cut_off_has_five_minutes() {
        let silent = |for_s| Observation { beat: None, silent_for: for_s * SECOND, ..observation(Phase::Running) };
        assert_eq!(diagnosis(silent(299)), Diagnosis::Leave);
        assert!(
            matches!(diagnosis(silent(300)), Diagnosis::End { message, .. } if message.contains("stopped answering for 300 s"))
        );
    }

    #[test]
    fn a_task_that_cannot_be_seen_is_no_worse_off_than_one_that_runs() {
        let task = Some(TaskStatus::Unknown("the runner is on another machine".into()));
        let silent = |for_s| Observation {
            beat: None,
            task: task.clone(),
            silent_for: for_s * SECOND,
            ..observation(Phase::Running)
        };
        assert_eq!(diagnosis(silent(299)), Diagnosis::Leave);
        assert!(matches!(diagnosis(silent(300)), Diagnosis::Ask(message) if message.contains("another machine")));
        let nowhere = |for_s| Observation { task: None, ..silent(for_s) };
        assert_eq!(diagnosis(nowhere(11)), Diagnosis::Leave);
        assert_eq!(diagnosis(nowhere(12)), Diagnosis::Ask("the runner has been silent for 12 s".into()));
    }

    #[test]
    fn a_start_has_its_deadline_and_a_runner_that_left_early_is_not_waited_for() {
        let starting = Observation { beat: None, ..observation(Phase::Launching) };
        assert_eq!(diagnosis(starting.clone()), Diagnosis::Leave);
        let late = Observation { launched_for: Some(60 * SECOND), ..starting.clone() };
        assert_eq!(diagnosis(late), failed("the runner did not start within 60 s".into()));
        let left = Observation { task: Some(TaskStatus::Gone(TaskExit::Exited(101).into())), ..starting.clone() };
        assert_eq!(diagnosis(left), failed("the runner left before it started recording: exit status 101".into()));
        assert_eq!(diagnosis(Observation { task: None, ..starting.clone() }), Diagnosis::Launch);
        assert_eq!(diagnosis(Observation { task: None, is_queued: true, ..starting }), Diagnosis::Leave);
    }

    /// It may also be a second task that lost the race for the ticket and exited: the one that sends heartbeats won it.
    #[test]
    fn a_record_without_its_runner_is_left_to_the_runner_that_beats() {
        for task in
            [None, Some(TaskStatus::Gone(TaskExit::Exited(0).into())), Some(TaskStatus::Starting("slow".into()))]
        {
            let late = Observation { task, launched_for: Some(90 * SECOND), ..observation(Phase::Launching) };
            assert_eq!(diagnosis(late.clone()), Diagnosis::Leave);
            assert_ne!(diagnosis(Observation { beat: Some(3 * SECOND), ..late }), Diagnosis::Leave);
        }
        assert_eq!(diagnosis(observation(Phase::Accepted)), Diagnosis::Leave);
        assert_eq!(diagnosis(Observation { beat: None, ..observation(Phase::Accepted) }), Diagnosis::Launch);
    }

    #[test]
    fn the_last_report_is_delivered_for_a_dead_owner() {
        assert_eq!(diagnosis(observation(Phase::Over)), Diagnosis::Leave);
        assert_eq!(diagnosis(Observation { beat: None, ..observation(Phase::Over) }), Diagnosis::Deliver);
    }

    #[test]
    fn what_never_recorded_is_replaced_twice_and_what_fails_by_itself_is_not() {
        let starting = Observation { beat: None, ..observation(Phase::Launching) };
        let left = |how: TaskExit| Observation { task: Some(TaskStatus::Gone(how.into())), ..starting.clone() };
        for how in [
            TaskExit::ImageNotPulled("timeout".into()),
            TaskExit::NeverStarted("no address".into()),
            TaskExit::CapacityReclaimed,
        ] {
            assert!(matches!(diagnosis(left(how.clone())), Diagnosis::Again(_)), "{how}");
            let tried = Observation { lost_starts: 2, ..left(how.clone()) };
            assert!(matches!(diagnosis(tried), Diagnosis::End { aborted: false, .. }), "{how}");
        }
        assert!(matches!(diagnosis(left(TaskExit::Exited(1))), Diagnosis::End { .. }));

        let stuck = Observation {
            launched_for: Some(60 * SECOND),
            has_another: true,
            task: Some(TaskStatus::Starting("pulling the image".into())),
            ..starting
        };
        let message = "the runner did not start within 60 s (pulling the image)".to_owned();
        assert_eq!(diagnosis(stuck.clone()), Diagnosis::Again(message.clone()));
        assert_eq!(diagnosis(Observation { has_another: false, ..stuck.clone() }), failed(message));
        assert_eq!(diagnosis(Observation { start_deadline: Some(90 * SECOND), ..stuck.clone() }), Diagnosis::Leave);
        assert!(matches!(diagnosis(Observation { task: None, ..stuck }), Diagnosis::End { .. }), "it may still come");
    }

    #[test]
    fn reclaimed_capacity_is_nobodys_failure() {
        let task = Some(TaskStatus::Gone(TaskExit::CapacityReclaimed.into()));
        let message = "runner interrupted: spot capacity reclaimed".to_owned();
        let gone = Observation { task, beat: None, ..observation(Phase::Running) };
        assert_eq!(diagnosis(gone), Diagnosis::Died { message, aborted: true });
    }

    #[test]
    fn a_runner_that_goes_on_after_a_stop_is_ended_by_its_platform() {
        let stopped = |for_s| Observation { stop_ignored_for: for_s * SECOND, ..observation(Phase::Running) };
        assert_eq!(diagnosis(stopped(59)), Diagnosis::Leave);
        assert_eq!(diagnosis(stopped(60)), Diagnosis::Remind);
        assert_eq!(
            diagnosis(Observation { phase: Phase::Ending, ..stopped(90) }),
            Diagnosis::Leave,
            "uploads take their time"
        );
    }
}
