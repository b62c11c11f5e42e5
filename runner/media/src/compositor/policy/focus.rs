//! Which participant is shown large: the loudest speaker, after a short delay, so that a cough changes nothing.
//! In: active speakers as the server says them. Out: an identity at any media time. Pure.

use crate::units::MediaTime;

const MS: u64 = 1_000_000;
/// The server says every 300–500 ms who speaks; a rival must be the loudest for so long.
const RIVAL_FOR: u64 = 600 * MS;
/// The large place is kept this long at least.
const STAGE_FOR: u64 = 2_000 * MS;

/// Who speaks and who is shown large.
#[derive(Debug, Default)]
pub struct Focus {
    stage: Option<(String, MediaTime)>,
    /// Loudest since then, and not shown large.
    rival: Option<(String, MediaTime)>,
}

impl Focus {
    /// Active speakers, loudest first. Silence changes nothing.
    pub fn heard(&mut self, at: MediaTime, identities: &[String]) {
        let Some(loudest) = identities.first() else {
            self.rival = None;
            return;
        };
        match (&self.stage, &self.rival) {
            (None, _) => self.stage = Some((loudest.clone(), at)),
            (Some((stage, _)), _) if stage == loudest => self.rival = None,
            (_, Some((rival, _))) if rival == loudest => {}
            _ => self.rival = Some((loudest.clone(), at)),
        }
    }

    /// Shown large at `at`. `there`: whether a participant has a picture; one without gives the place up at once.
    pub fn at(&mut self, at: MediaTime, there: impl Fn(&str) -> bool) -> Option<&str> {
        let empty = self.stage.as_ref().is_none_or(|(stage, _)| !there(stage));
        if let Some((rival, since)) = &self.rival
            && there(rival)
        {
            let long_enough = at.ns_since(*since) >= RIVAL_FOR;
            let stage_old = self.stage.as_ref().is_none_or(|(_, taken)| at.ns_since(*taken) >= STAGE_FOR);
            if empty || (long_enough && stage_old) {
                self.stage = Some((rival.clone(), at));
                self.rival = None;
            }
        }
        self.stage.as_ref().map(|(stage, _)| stage.as_str()).filter(|stage| there(stage))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> MediaTime {
        MediaTime::from_ns(ms * MS)
    }

    fn says(focus: &mut Focus, ms: u64, who: &[&str]) {
        focus.heard(at(ms), &who.iter().map(|who| who.to_string()).collect::<Vec<_>>());
    }

    #[test]
    fn the_first_voice_takes_the_stage_at_once() {
        let mut focus = Focus::default();
        assert_eq!(focus.at(at(0), |_| true), None);
        says(&mut focus, 100, &["ann", "bob"]);
        assert_eq!(focus.at(at(100), |_| true), Some("ann"));
    }

    #[test]
    fn a_cough_does_not_take_it_and_silence_keeps_it() {
        let mut focus = Focus::default();
        says(&mut focus, 0, &["ann"]);
        says(&mut focus, 5000, &["bob"]);
        assert_eq!(focus.at(at(5400), |_| true), Some("ann"));
        says(&mut focus, 5400, &["ann"]);
        assert_eq!(focus.at(at(9000), |_| true), Some("ann"));
        says(&mut focus, 9000, &[]);
        assert_eq!(focus.at(at(20_000), |_| true), Some("ann"));
    }

    #[test]
    fn a_lasting_voice_takes_it_but_not_within_two_seconds() {
        let mut focus = Focus::default();
        says(&mut focus, 0, &["ann"]);
        says(&mut focus, 500, &["bob"]);
        assert_eq!(focus.at(at(1999), |_| true), Some("ann"));
        assert_eq!(focus.at(at(2000), |_| true), Some("bob"));
        says(&mut focus, 3000, &["ann"]);
        assert_eq!(focus.at(at(3700), |_| true), Some("bob"));
        assert_eq!(focus.at(at(4000), |_| true), Some("ann"));
    }

    #[test]
    fn who_has_no_picture_gives_it_up_and_gets_it_back() {
        let mut focus = Focus::default();
        says(&mut focus, 0, &["ann"]);
        assert_eq!(focus.at(at(100), |who| who != "ann"), None);
        assert_eq!(focus.at(at(200), |_| true), Some("ann"));
        says(&mut focus, 300, &["bob"]);
        assert_eq!(focus.at(at(300), |who| who != "ann"), Some("bob"));
    }
}
