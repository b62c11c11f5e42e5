//! Playlists and the init segment of an HLS output: what they say, and when they are sent. Pure.

use std::time::Instant;

use super::super::schedule::PlaylistSchedule;
use super::super::sequencer::{ListedSegment, StoredSegment};
use super::{SegmentsAction, SegmentsMachine, empty_playlist};
use crate::results::playlist::PlaylistEntry;

impl SegmentsMachine {
    /// The backup store has taken over: it gets the init segment and the playlists, which name what is in the primary store
    /// by URL.
    pub fn use_backup(&mut self) {
        self.on_backup = true;
        self.playlist = empty_playlist(&self.plan);
        let mut next = None;
        for run in self.runs.as_slice() {
            for (n, at_ns, length_ns) in run.segments() {
                let segment =
                    StoredSegment { name: self.name(n, at_ns), at_ns, length_ns, bytes: 0, on_backup: run.on_backup };
                // A change of the store is none of the media.
                let process = self.process_of(n);
                let discontinuity = next.is_some_and(|next| next != (n, process));
                next = Some((n + 1, process));
                self.playlist.push(&self.entry(&ListedSegment { index: n, segment, discontinuity }));
            }
        }
        self.event.moved();
        self.live.iter_mut().chain(&mut self.init).for_each(PlaylistSchedule::moved);
        (self.event_location, self.live_location) = (None, None);
    }

    /// What is to be sent next.
    pub fn next_action(&mut self, now: Instant) -> Option<SegmentsAction> {
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        let names = &self.plan.names;
        if let (Some(init), Some(name)) = (&mut self.init, names.init())
            && init.begin(0, now)
        {
            return Some(SegmentsAction::PutInit(names.path(&name)));
        }
        if self.event.begin(self.playlist.event_bytes(), now) {
            let text = self.playlist.event(self.closed);
            return Some(SegmentsAction::PutPlaylist(names.path(&names.playlist), text));
        }
        let (live, name) = (self.live.as_mut()?, names.live_playlist.as_ref()?);
        live.begin(0, now).then(|| SegmentsAction::PutPlaylist(names.path(name), self.playlist.live(self.closed)))
    }

    /// When to ask [`Self::next_action`] again, if nothing else happens before.
    pub fn next_at(&self) -> Option<Instant> {
        [Some(&self.event), self.live.as_ref(), self.init.as_ref()]
            .into_iter()
            .flatten()
            .filter_map(PlaylistSchedule::next_at)
            .min()
    }

    /// The request with a playlist or init segment was answered: where it is, if it is stored.
    pub fn text_answered(&mut self, name: &str, location: Option<String>, now: Instant) {
        let names = &self.plan.names;
        let is = |of: Option<&String>| of.is_some_and(|of| names.path(of) == name);
        let (schedule, known) = if is(Some(&names.playlist)) {
            (Some(&mut self.event), Some(&mut self.event_location))
        } else if is(names.live_playlist.as_ref()) {
            (self.live.as_mut(), Some(&mut self.live_location))
        } else {
            (self.init.as_mut(), None)
        };
        if let Some(schedule) = schedule {
            schedule.finished(location.is_some(), now);
        }
        if let Some(known) = known.filter(|_| location.is_some()) {
            *known = location;
        }
    }

    /// Everything is stored or lost, and the playlists say so.
    pub fn is_complete(&self) -> bool {
        self.closed
            && self.event.is_complete()
            && self.live.as_ref().is_none_or(PlaylistSchedule::is_complete)
            && self.init.as_ref().is_none_or(PlaylistSchedule::is_stored)
    }

    /// Locations of the playlist and of the live playlist, where they are stored.
    pub fn locations(&self) -> (Option<String>, Option<String>) {
        (self.event_location.clone(), self.live_location.clone())
    }

    /// What playlists say of a listed segment.
    pub(super) fn entry(&self, listed: &ListedSegment) -> PlaylistEntry {
        let StoredSegment { name, at_ns, length_ns, on_backup, .. } = &listed.segment;
        let elsewhere = (self.on_backup && !on_backup).then(|| (self.plan.locate)(&self.plan.names.path(name)));
        PlaylistEntry {
            name: name.clone(),
            elsewhere,
            at_ns: *at_ns,
            length_ns: *length_ns,
            discontinuity: listed.discontinuity,
        }
    }
}
