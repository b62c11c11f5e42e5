//! Names of the objects of one egress. A store keeps one object of a name: two outputs, or two files of one, that ask for
//! one name in one store get a name each, an HLS output for all of its objects. Pure; the upload tasks share it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use spillway_plan::{Destination, Destinations};

use crate::results::numbered;

/// Names in the stores of one output. Clones, and those [for other stores](Self::for_stores), share what is taken.
#[derive(Clone, Debug, Default)]
pub(crate) struct ObjectNames {
    used: Arc<Mutex<HashSet<(usize, String)>>>,
    stores: Vec<usize>,
}

impl ObjectNames {
    /// Of each output with these destinations.
    pub fn of_outputs(outputs: &[Destinations]) -> Vec<Self> {
        let shared = Self::default();
        let mut known: Vec<&Destination> = vec![];
        let mut of_outputs = vec![];
        for Destinations { primary, backup } in outputs {
            let mut stores = vec![];
            for to in [Some(primary), backup.as_ref()].into_iter().flatten() {
                if matches!(to, Destination::Store(_)) {
                    let number = known.iter().position(|known| *known == to).unwrap_or(known.len());
                    if number == known.len() {
                        known.push(to);
                    }
                    stores.push(number);
                }
            }
            of_outputs.push(shared.for_stores(stores));
        }
        of_outputs
    }

    /// For an output whose objects go to one of these stores, which have a number each.
    pub fn for_stores(&self, stores: Vec<usize>) -> Self {
        Self { used: self.used.clone(), stores }
    }

    /// `asked`, or its first numbered variant that no other object has in any of the stores. It is taken from now on.
    pub fn take(&self, asked: &str) -> String {
        numbered(asked, self.take_all(|number| vec![numbered(asked, number)]))
    }

    /// Another task has stored something under this name.
    pub fn occupy(&self, name: &str) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.extend(self.stores.iter().map(|store| (*store, name.to_owned())));
    }

    /// Nothing was stored under this name, which was taken: it is free again.
    pub fn give_back(&self, name: &str) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.retain(|(store, known)| !(known == name && self.stores.contains(store)));
    }

    /// The first of the variants 1, 2, … of a group of names none of which another object has in any of the stores. Its names
    /// are taken from now on.
    pub fn take_all(&self, variant: impl Fn(u32) -> Vec<String>) -> u32 {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let is_free = |name: &String| !self.stores.iter().any(|store| used.contains(&(*store, name.clone())));
        let number = (1..=u32::MAX).find(|number| variant(*number).iter().all(is_free)).unwrap_or(1);
        for name in variant(number) {
            used.extend(self.stores.iter().map(|store| (*store, name.clone())));
        }
        number
    }
}

#[cfg(test)]
mod tests {
    use spillway_plan::destination::S3;
    use spillway_plan::segment_name::{SegmentFormat, SegmentNames, SegmentSuffix};
    use spillway_plan::{Provider, Store};

    use super::*;

    #[test]
    fn a_name_is_given_once_in_each_store() {
        let names = ObjectNames::default();
        let (first, second, both) =
            (names.for_stores(vec![0]), names.for_stores(vec![1]), names.for_stores(vec![1, 0]));
        assert_eq!((first.take("d/a.mp4"), second.take("d/a.mp4")), ("d/a.mp4".into(), "d/a.mp4".into()));
        assert_eq!(first.take("d/a.mp4"), "d/a-2.mp4");
        assert_eq!(both.take("d/a.mp4"), "d/a-3.mp4");
        assert_eq!(second.take("d/a.mp4"), "d/a-2.mp4");
        first.occupy("d/b.mp4");
        assert_eq!((first.take("d/b.mp4"), second.take("d/b.mp4")), ("d/b-2.mp4".into(), "d/b.mp4".into()));
        first.give_back("d/a.mp4");
        assert_eq!((first.take("d/a.mp4"), second.take("d/a.mp4")), ("d/a.mp4".into(), "d/a-4.mp4".into()));
    }

    #[test]
    fn an_hls_output_gets_one_variant_for_all_of_its_objects() {
        let hls = |playlist: &str, prefix: &str, format| SegmentNames {
            directory: "d/".into(),
            playlist: playlist.into(),
            live_playlist: None,
            prefix: prefix.into(),
            suffix: SegmentSuffix::Index,
            format,
        };
        let ts = |playlist, prefix| hls(playlist, prefix, SegmentFormat::MpegTs);
        for (what, file, first, second, variant) in [
            ("nothing in common", "d/a.mp4", ts("b.m3u8", "b"), ts("a.m3u8", "a"), 1),
            ("one playlist", "d/a.mp4", ts("a.m3u8", "b"), ts("a.m3u8", "a"), 2),
            ("one prefix", "d/a.mp4", ts("b.m3u8", "a"), ts("a.m3u8", "a"), 2),
            ("segments as a playlist's variant", "d/a.mp4", ts("b.m3u8", "a-2"), ts("b.m3u8", "a"), 3),
            ("an init segment", "d/a_init.mp4", ts("b.m3u8", "b"), hls("a.m3u8", "a", SegmentFormat::FragmentedMp4), 2),
            ("another folder", "a_init.mp4", ts("b.m3u8", "b"), hls("a.m3u8", "a", SegmentFormat::FragmentedMp4), 1),
        ] {
            let names = ObjectNames::default().for_stores(vec![0]);
            names.take(file);
            let take = |of: &SegmentNames| names.take_all(|number| of.numbered(number).reserved());
            assert_eq!((take(&first), take(&second)), (1, variant), "{what}");
            let elsewhere = names.for_stores(vec![1]);
            assert_eq!(elsewhere.take_all(|number| second.numbered(number).reserved()), 1, "{what}");
        }
    }

    #[test]
    fn outputs_share_names_where_they_share_a_store() {
        let store = |bucket: &str| {
            let provider = Provider::S3(Box::new(S3 { bucket: bucket.into(), ..S3::default() }));
            Destination::Store(Box::new(Store { provider, prefix: String::new(), presign: false }))
        };
        let to = |primary, backup| Destinations { primary, backup };
        let outputs = ObjectNames::of_outputs(&[
            to(store("one"), None),
            to(Destination::Disk, None),
            to(store("two"), Some(store("one"))),
            to(store("two"), None),
        ]);
        let taken: Vec<String> = outputs.iter().map(|names| names.take("a")).collect();
        assert_eq!(taken, ["a", "a", "a-2", "a"]);
    }
}
