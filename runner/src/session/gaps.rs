//! The times in which nothing was recorded because no recorder was there: a media process had died, and another one had not
//! begun. Deaths and first media come in, sentences for the user and figures for the manifest come out. Pure; times are Unix
//! nanoseconds of the installation's clock.

use spillway_ipc::Quality;

/// All gaps of one recording.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RecordingGaps {
    open: Option<OpenGap>,
    /// Of those that are over.
    count: u32,
    sum_ns: u64,
    sentences: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
struct OpenGap {
    from: i64,
    why: String,
    /// Recorders that have died in it without recording anything.
    others: u32,
}

impl RecordingGaps {
    /// The recorder is gone, for the reason `why`; everything up to `from` is recorded. In an open gap only the first time
    /// counts.
    pub fn begin(&mut self, from: i64, why: &str) {
        match &mut self.open {
            Some(open) => open.others += 1,
            None => self.open = Some(OpenGap { from, why: why.to_owned(), others: 0 }),
        }
    }

    /// Something is recorded again, from `at` on. Answers what to tell, if there was a gap.
    pub fn end(&mut self, at: i64) -> Option<String> {
        let open = self.open.take()?;
        let ns = self.close(&open, at);
        Some(self.told(&open, &format!("the recording goes on after a gap of {:.1} s", seconds(ns))))
    }

    /// The recording ends at `at`. Answers what to tell if nothing was recorded at its end.
    pub fn recording_ended(&mut self, at: i64) -> Option<String> {
        let open = self.open.take()?;
        let ns = self.close(&open, at);
        Some(self.told(&open, &format!("the last {:.1} s are not recorded", seconds(ns))))
    }

    fn close(&mut self, open: &OpenGap, at: i64) -> u64 {
        let ns = u64::try_from(at.saturating_sub(open.from)).unwrap_or_default();
        self.count += 1;
        self.sum_ns = self.sum_ns.saturating_add(ns);
        ns
    }

    fn told(&mut self, open: &OpenGap, what: &str) -> String {
        let others = match open.others {
            0 => String::new(),
            1 => ", and the next one died as well".to_owned(),
            count => format!(", and the next {count} died as well"),
        };
        let sentence = format!("{}{others}; {what}", open.why);
        self.sentences.push(sentence.clone());
        sentence
    }

    /// The quality of a recording, in which these gaps are not counted yet. `None` stays it without a gap.
    pub fn added_to(&self, quality: Option<&Quality>) -> Option<Quality> {
        if self.count == 0 {
            return quality.cloned();
        }
        let mut quality = quality.cloned().unwrap_or_default();
        quality.gaps = quality.gaps.saturating_add(self.count);
        quality.gaps_ms = quality.gaps_ms.saturating_add(self.sum_ns / 1_000_000);
        quality.degraded.extend(self.sentences.iter().cloned());
        Some(quality)
    }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
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
    fn clocks_that_disagree_make_no_negative_gap() {
        let mut gaps = RecordingGaps::default();
        gaps.begin(10 * SECOND, "it died");
        assert!(gaps.end(9 * SECOND).unwrap().ends_with("a gap of 0.0 s"));
    }
}
