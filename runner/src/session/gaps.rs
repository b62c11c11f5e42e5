//! The times in which nothing was recorded because no recorder was there: a media process or a whole task had died, and
//! another one had not begun. Deaths and first media come in, sentences for the user and figures for the manifest come out.
//! Pure; times are Unix nanoseconds of the installation's clock.

use spillway_ipc::Quality;

use crate::upload::checkpoint::GapsCheckpoint;

/// All gaps of one recording.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RecordingGaps {
    open: Option<OpenGap>,
    /// Those that are over.
    over: GapsCheckpoint,
}

#[derive(Clone, Debug, PartialEq)]
struct OpenGap {
    from: i64,
    why: String,
    /// Recorders that have died in it without recording anything.
    others: u32,
    /// How much before it is kept is not known yet: a task before this one has recorded it.
    is_unsettled: bool,
    /// It is over, and that is not told yet.
    end: Option<GapEnd>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum GapEnd {
    /// Something is recorded again, from then on.
    WentOn(i64),
    /// The recording has ended.
    Ended(i64),
}

impl RecordingGaps {
    /// Of a recording that goes on after the death of a task, for the reason `why`: about `from` it recorded last. `over`: the
    /// gaps before. How long this one is, is told when it is [settled](Self::settle).
    pub fn after_a_task(over: GapsCheckpoint, from: i64, why: &str) -> Self {
        let why = why.to_owned();
        Self { open: Some(OpenGap { from, why, others: 0, is_unsettled: true, end: None }), over }
    }

    /// The recorder is gone, for the reason `why`; everything up to `from` is recorded. In an open gap only the first time
    /// counts. Answers what to tell of a gap before it.
    pub fn begin(&mut self, from: i64, why: &str) -> Option<String> {
        let told = if self.open.as_ref().is_some_and(|open| open.end.is_some()) { self.settle(None) } else { None };
        match &mut self.open {
            Some(open) => open.others += 1,
            None => {
                let why = why.to_owned();
                self.open = Some(OpenGap { from, why, others: 0, is_unsettled: false, end: None });
            }
        }
        told
    }

    /// Something is recorded again, from `at` on. Answers what to tell, if there was a gap.
    pub fn end(&mut self, at: i64) -> Option<String> {
        self.ended(GapEnd::WentOn(at))
    }

    /// The recording ends at `at`. Answers what to tell if nothing was recorded at its end.
    pub fn recording_ended(&mut self, at: i64) -> Option<String> {
        self.ended(GapEnd::Ended(at))
    }

    /// What the task before this one has recorded is kept up to `kept_to`; `None`: as it was assumed. Answers what to tell.
    pub fn settle(&mut self, kept_to: Option<i64>) -> Option<String> {
        let open = self.open.as_mut().filter(|open| open.is_unsettled)?;
        open.is_unsettled = false;
        open.from = kept_to.unwrap_or(open.from);
        let end = open.end?;
        self.ended(end)
    }

    fn ended(&mut self, end: GapEnd) -> Option<String> {
        let open = self.open.as_mut()?;
        if open.is_unsettled {
            open.end = open.end.or(Some(end));
            return None;
        }
        let open = self.open.take()?;
        let (GapEnd::WentOn(at) | GapEnd::Ended(at)) = end;
        let ns = u64::try_from(at.saturating_sub(open.from)).unwrap_or_default();
        let seconds = ns as f64 / 1e9;
        let what = match end {
            GapEnd::WentOn(_) => format!("the recording goes on after a gap of {seconds:.1} s"),
            GapEnd::Ended(_) => format!("the last {seconds:.1} s are not recorded"),
        };
        let others = match open.others {
            0 => String::new(),
            1 => ", and the next one died as well".to_owned(),
            count => format!(", and the next {count} died as well"),
        };
        let sentence = format!("{}{others}; {what}", open.why);
        self.over.count += 1;
        self.over.sum_ns = self.over.sum_ns.saturating_add(ns);
        self.over.sentences.push(sentence.clone());
        Some(sentence)
    }

    /// Those that are over, for a task that goes on should this one die; of one that is not settled yet, what is assumed.
    pub fn so_far(&self) -> GapsCheckpoint {
        let mut gaps = self.clone();
        gaps.settle(None);
        gaps.over
    }

    /// The quality of a recording, in which these gaps are not counted yet. `None` stays it without a gap.
    pub fn added_to(&self, quality: Option<&Quality>) -> Option<Quality> {
        let GapsCheckpoint { count, sum_ns, sentences } = &self.over;
        if *count == 0 {
            return quality.cloned();
        }
        let mut quality = quality.cloned().unwrap_or_default();
        quality.gaps = quality.gaps.saturating_add(*count);
        quality.gaps_ms = quality.gaps_ms.saturating_add(sum_ns / 1_000_000);
        quality.degraded.extend(sentences.iter().cloned());
        Some(quality)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn a_gap_is_told_with_its_reason_and_counted() {
        let mut gaps = RecordingGaps::default();
        assert_eq!((gaps.end(5), gaps.recording_ended(5), gaps.added_to(None)), (None, None, None));
        gaps.begin(10 * SECOND, "it died");
        let told = gaps.end(11 * SECOND + SECOND / 4);
        assert_eq!(told.as_deref(), Some("it died; the recording goes on after a gap of 1.2 s"));
        assert_eq!(gaps.end(12 * SECOND), None, "once");
        // Two that died before they recorded anything are one gap.
        gaps.begin(20 * SECOND, "it hung");
        gaps.begin(21 * SECOND, "it died");
        let told = gaps.recording_ended(23 * SECOND);
        assert_eq!(told.as_deref(), Some("it hung, and the next one died as well; the last 3.0 s are not recorded"));
        let before = Quality { gaps: 1, gaps_ms: 7, degraded: vec!["frozen".into()], ..Quality::default() };
        let quality = gaps.added_to(Some(&before)).unwrap();
        assert_eq!((quality.gaps, quality.gaps_ms, quality.degraded.len()), (3, 4257, 3));
        assert_eq!(gaps.added_to(None).unwrap().gaps, 2);
    }

    #[test]
    fn after_the_death_of_a_task_the_gap_begins_where_what_is_kept_of_it_ends() {
        let before = GapsCheckpoint { count: 1, sum_ns: 5_000_000, sentences: vec!["it hung".into()] };
        let resumed = || RecordingGaps::after_a_task(before.clone(), 10 * SECOND, "it died");
        let told = |end: f64| Some(format!("it died; the recording goes on after a gap of {end:.1} s"));
        // Saved before anything is recorded, or after that; then less is kept than was thought.
        let mut gaps = resumed();
        assert_eq!((gaps.settle(None), gaps.end(13 * SECOND)), (None, told(3.0)));
        let mut gaps = resumed();
        assert_eq!(
            (gaps.end(13 * SECOND), gaps.so_far().sentences.pop()),
            (None, told(3.0)),
            "should it die before that"
        );
        assert_eq!(gaps.settle(Some(8 * SECOND)), told(5.0));
        assert_eq!((gaps.settle(Some(0)), gaps.end(99 * SECOND)), (None, None), "once");
        assert_eq!((gaps.so_far().count, gaps.so_far().sum_ns), (2, 5_005_000_000));
        assert_eq!(gaps.added_to(None).unwrap().degraded, ["it hung", told(5.0).unwrap().as_str()]);
        // The recording ends, or the next recorder dies, before that is known.
        let mut gaps = resumed();
        gaps.recording_ended(14 * SECOND);
        assert_eq!(gaps.settle(None).as_deref(), Some("it died; the last 4.0 s are not recorded"));
        let mut gaps = resumed();
        gaps.end(13 * SECOND);
        assert_eq!(gaps.begin(20 * SECOND, "crash"), told(3.0));
        assert_eq!(gaps.end(21 * SECOND).as_deref(), Some("crash; the recording goes on after a gap of 1.0 s"));
        let mut gaps = resumed();
        assert_eq!((gaps.begin(11 * SECOND, "crash"), gaps.end(13 * SECOND)), (None, None));
        let all = "it died, and the next one died as well; the recording goes on after a gap of 3.0 s";
        assert_eq!(gaps.settle(None).as_deref(), Some(all));
    }

    #[test]
    fn clocks_that_disagree_make_no_negative_gap() {
        let mut gaps = RecordingGaps::default();
        gaps.begin(10 * SECOND, "it died");
        assert!(gaps.end(9 * SECOND).unwrap().ends_with("a gap of 0.0 s"));
    }
}
