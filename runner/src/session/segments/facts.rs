//! HLS outputs as facts for the EgressInfo. Values only.

use spillway_plan::segment_name::SegmentNames;
use spillway_protocol::ledger::Fact;

use super::SessionSegments;
use crate::upload::segments::{SegmentTotals, SegmentsResult};

impl SessionSegments {
    /// Of outputs that have got their names since the last call.
    pub fn opened_facts(&mut self) -> Vec<Fact> {
        let mut facts = vec![];
        for (index, output) in self.outputs.iter_mut().enumerate() {
            let (Some(names), false) = (&output.names, output.told) else { continue };
            facts.push(opened_fact(index, names));
            output.told = true;
        }
        facts
    }

    /// Of outputs that have come further since the last call.
    pub fn progress_facts(&mut self) -> impl Iterator<Item = Fact> {
        self.changed_totals().into_iter().map(|(index, totals)| progress(index, totals))
    }

    /// After [`SessionSegments::finish`]: what all outputs came to.
    pub fn result_facts(&self) -> impl Iterator<Item = Fact> {
        self.results().flat_map(|(index, _, result)| result_facts(index, result))
    }
}

/// An output has these names; `index` among the HLS outputs.
pub fn opened_fact(index: usize, names: &SegmentNames) -> Fact {
    let live_playlist = names.live_playlist.as_ref().map(|live| names.path(live));
    Fact::SegmentsOpened { index, playlist: names.playlist_path(), live_playlist }
}

/// What one output came to; `index` among the HLS outputs.
pub fn result_facts(index: usize, result: &SegmentsResult) -> Vec<Fact> {
    let mut facts = vec![];
    if result.gone {
        return facts;
    }
    if result.used_backup {
        facts.push(Fact::BackupUsed);
    }
    if result.totals.count > 0 {
        facts.push(progress(index, result.totals));
    }
    // Without a playlist that ends there is nothing to be opened.
    if let (true, Some(playlist_location)) = (result.ended, &result.playlist_location) {
        facts.push(Fact::SegmentsStored {
            index,
            playlist_location: playlist_location.clone(),
            live_location: result.live_location.clone(),
            started_at: result.started_at,
            ended_at: result.ended_at,
        });
    }
    facts.extend(result.notes.iter().cloned().map(Fact::Noted));
    facts
}

fn progress(index: usize, totals: SegmentTotals) -> Fact {
    Fact::SegmentsProgress { index, count: totals.count, bytes: totals.bytes, duration_ns: totals.length_ns }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_is_stored_when_its_playlist_ends() {
        let totals = SegmentTotals { count: 2, bytes: 20, length_ns: 8, lost: 1 };
        let stored = SegmentsResult {
            totals,
            started_at: 5,
            ended_at: 13,
            playlist_location: Some("https://x/a.m3u8".into()),
            ended: true,
            notes: vec!["1 segment is missing".into()],
            ..SegmentsResult::default()
        };
        let expected = [
            Fact::SegmentsProgress { index: 1, count: 2, bytes: 20, duration_ns: 8 },
            Fact::SegmentsStored {
                index: 1,
                playlist_location: "https://x/a.m3u8".into(),
                live_location: None,
                started_at: 5,
                ended_at: 13,
            },
            Fact::Noted("1 segment is missing".into()),
        ];
        assert_eq!(result_facts(1, &stored), expected);
        let denied = || Some("denied".to_owned());
        let failed = SegmentsResult { ended: false, failure: denied(), used_backup: true, ..stored.clone() };
        let facts = result_facts(0, &failed);
        assert_eq!((facts.len(), &facts[0]), (3, &Fact::BackupUsed));
        // The store has taken playlists, and not the last segments.
        assert_eq!(result_facts(1, &SegmentsResult { failure: denied(), ..stored.clone() }), expected);
        assert_eq!(result_facts(0, &SegmentsResult { gone: true, ..stored }), []);
    }
}
