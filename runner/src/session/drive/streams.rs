//! What follows for the streams from events and UpdateStream calls: commands, facts, and what the machine has to know. Runs in
//! the session's task.

use std::time::Instant;

use super::{Driver, NextStep};
use crate::events::SessionEvent;
use crate::session::media::MediaProcess;
use crate::session::stream_updates::ResolvedUpdate;
use crate::session::streams::StreamEffects;

impl Driver<'_> {
    /// An UpdateStream call, answered when it is carried out: the EgressInfo shows it by then, also where a part was refused.
    pub(super) async fn update_streams(
        &mut self,
        ResolvedUpdate { add, remove, answer }: ResolvedUpdate,
        media: &mut MediaProcess,
    ) -> NextStep {
        let at = self.job.clock.unix_ns();
        let (effects, told) = self.streams.update(add, &remove, (Instant::now(), at));
        let step = match self.apply(effects, media).await {
            Some(event) => self.decide(event, media).await,
            None => NextStep::Continue,
        };
        // A caller that has not waited calls again.
        let _ = answer.send(told.map(|()| self.reporter.info()));
        step
    }

    /// Carries out what follows for the streams. Answers what the machine has to know.
    pub(super) async fn apply(&mut self, effects: StreamEffects, media: &mut MediaProcess) -> Option<SessionEvent> {
        let StreamEffects { commands, facts, over, reopened } = effects;
        facts.into_iter().for_each(|fact| self.reporter.report(fact));
        for command in &commands {
            media.send(command).await;
        }
        if let Some(left) = self.streams.left() {
            self.job.live_streams.send_if_modified(|known| {
                let changed = *known != left;
                *known = left;
                changed
            });
        }
        let reopened = reopened.map(|output| SessionEvent::OutputOpened { output });
        reopened.or_else(|| over.map(|over| SessionEvent::OutputEnded { output: over.output, failure: over.failure }))
    }
}
