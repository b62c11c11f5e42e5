//! One image output: what its images have become, and which is sent next. Images that lie in the spool come in, and answers
//! of the store; names of files to send go out. Pure but for the machine's time zone, which names with a time need: `task`
//! carries out what is answered here.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;

use spillway_plan::image_name::ImageNames;

use super::saved::{ImageTotals, ImagesCheckpoint, SpooledImage};
use crate::clock;

/// What one image output is.
#[derive(Clone, Debug)]
pub struct ImagesPlan {
    /// Number of the output.
    pub output: u32,
    /// Its place among the image outputs, as in the EgressInfo.
    pub index: usize,
    /// Of every image.
    pub names: ImageNames,
    /// From one image to the next, nanoseconds.
    pub interval_ns: u64,
    /// Of the spool; empty: there is none on this machine.
    pub folder: PathBuf,
    /// Unix nanoseconds at media time zero.
    pub started_at: i64,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ImagesAction {
    /// The file of image `n` becomes this object.
    Put(u32, String),
    /// The file of image `n` is of no use: a newer one takes its place.
    Remove(u32),
}

/// State of one image output.
pub struct ImagesMachine {
    plan: ImagesPlan,
    /// Whole and not stored.
    pending: BTreeMap<u32, SpooledImage>,
    /// Of images that replace each other: the one on its way. Two requests at once could be stored in the wrong order.
    in_flight: Option<u32>,
    /// Stored by this process, by number: when they were captured, and whether the backup has them.
    stored: BTreeMap<u32, (u64, bool)>,
    totals: ImageTotals,
    span_ns: Option<(u64, u64)>,
    next_n: u32,
    newest_ns: Option<u64>,
    actions: VecDeque<ImagesAction>,
}

impl ImagesMachine {
    /// Nothing is recorded yet.
    pub fn new(plan: ImagesPlan) -> Self {
        Self {
            plan,
            pending: BTreeMap::new(),
            in_flight: None,
            stored: BTreeMap::new(),
            totals: ImageTotals::default(),
            span_ns: None,
            next_n: 0,
            newest_ns: None,
            actions: VecDeque::new(),
        }
    }

    /// That of a dead task. What is not stored is pending, and not sent by itself: [`Self::send`], [`Self::stored`] or
    /// [`Self::lost`] decides about each.
    pub fn resume(checkpoint: &ImagesCheckpoint) -> Self {
        let mut machine = Self::new(ImagesPlan {
            output: checkpoint.output,
            index: checkpoint.index,
            names: checkpoint.names.clone(),
            interval_ns: checkpoint.interval_ns,
            folder: checkpoint.folder.clone(),
            started_at: checkpoint.started_at,
        });
        machine.totals = checkpoint.totals;
        machine.span_ns = checkpoint.span_ns;
        machine.next_n = checkpoint.next_n;
        machine.newest_ns = checkpoint.newest_ns;
        machine.pending = checkpoint.unstored.iter().map(|image| (image.n, *image)).collect();
        machine
    }

    /// An image lies in the spool; it is sent. One that is known already is left alone.
    pub fn captured(&mut self, image: SpooledImage) {
        if image.n < self.next_n {
            return;
        }
        self.next_n = image.n.saturating_add(1);
        self.newest_ns = self.newest_ns.max(Some(image.at_ns));
        self.pending.insert(image.n, image);
        self.send(image.n);
    }

    /// A file of the spool of which nothing was said: the media process died between the write and its event. Its time is
    /// about that of the next image.
    pub fn left_behind(&mut self, n: u32, bytes: u64) {
        let at_ns = self.newest_ns.map_or(0, |newest| newest.saturating_add(self.plan.interval_ns));
        self.captured(SpooledImage { n, at_ns, bytes });
    }

    /// A pending image is sent.
    pub fn send(&mut self, n: u32) {
        if self.plan.names.is_one() {
            return self.send_newest();
        }
        if let Some(image) = self.pending.get(&n) {
            self.actions.push_back(ImagesAction::Put(n, self.name(image)));
        }
    }

    /// Of images that replace each other the newest is sent, one at a time.
    fn send_newest(&mut self) {
        if self.in_flight.is_some() {
            return;
        }
        let Some((newest, image)) = self.pending.last_key_value().map(|(n, image)| (*n, *image)) else { return };
        self.in_flight = Some(newest);
        let older: Vec<u32> = self.pending.range(..newest).map(|(n, _)| *n).collect();
        for n in older {
            self.pending.remove(&n);
            self.actions.push_back(ImagesAction::Remove(n));
        }
        self.actions.push_back(ImagesAction::Put(newest, self.name(&image)));
    }

    /// The store has image `n`, of so many bytes.
    pub fn stored(&mut self, n: u32, bytes: u64, on_backup: bool) {
        if let Some(image) = self.pending.remove(&n) {
            self.totals.count += 1;
            self.totals.bytes += bytes;
            let (first, last) = self.span_ns.unwrap_or((image.at_ns, image.at_ns));
            self.span_ns = Some((first.min(image.at_ns), last.max(image.at_ns)));
            if self.plan.names.is_one() {
                self.stored.clear();
            }
            self.stored.insert(n, (image.at_ns, on_backup));
        }
        self.answered(n);
    }

    /// Image `n` will not be in the store.
    pub fn lost(&mut self, n: u32) {
        if self.pending.remove(&n).is_some() {
            self.totals.lost += 1;
        }
        self.answered(n);
    }

    fn answered(&mut self, n: u32) {
        if self.in_flight == Some(n) {
            self.in_flight = None;
            self.send_newest();
        }
    }

    /// What is to be done next.
    pub(super) fn next_action(&mut self) -> Option<ImagesAction> {
        self.actions.pop_front()
    }

    /// Everything is stored or lost.
    pub fn is_complete(&self) -> bool {
        self.pending.is_empty() && self.actions.is_empty()
    }

    /// Sums.
    pub fn totals(&self) -> ImageTotals {
        self.totals
    }

    /// Bytes in the spool.
    pub fn spooled_bytes(&self) -> u64 {
        self.pending.values().map(|image| image.bytes).sum()
    }

    /// Images that are whole and not stored: number, object, size.
    pub fn pending(&self) -> Vec<(u32, String, u64)> {
        self.pending.values().map(|image| (image.n, self.name(image), image.bytes)).collect()
    }

    /// When the first and the last of the stored images were captured, Unix nanoseconds.
    pub fn span(&self) -> Option<(i64, i64)> {
        self.span_ns.map(|(first, last)| (self.unix_ns(first), self.unix_ns(last)))
    }

    /// Objects that this process has stored: name, when it was captured (Unix nanoseconds), whether the backup has it.
    pub fn objects(&self) -> Vec<(String, i64, bool)> {
        let object = |(n, (at_ns, on_backup)): (&u32, &(u64, bool))| {
            let image = SpooledImage { n: *n, at_ns: *at_ns, bytes: 0 };
            (self.name(&image), self.unix_ns(*at_ns), *on_backup)
        };
        self.stored.iter().map(object).collect()
    }

    /// For a salvage.
    pub fn checkpoint(&self) -> ImagesCheckpoint {
        ImagesCheckpoint {
            output: self.plan.output,
            index: self.plan.index,
            names: self.plan.names.clone(),
            interval_ns: self.plan.interval_ns,
            folder: self.plan.folder.clone(),
            started_at: self.plan.started_at,
            on_backup: false,
            totals: self.totals,
            span_ns: self.span_ns,
            unstored: self.pending.values().copied().collect(),
            next_n: self.next_n,
            newest_ns: self.newest_ns,
        }
    }

    /// What it was made with.
    pub fn plan(&self) -> &ImagesPlan {
        &self.plan
    }

    fn unix_ns(&self, at_ns: u64) -> i64 {
        self.plan.started_at.saturating_add_unsigned(at_ns)
    }

    fn name(&self, image: &SpooledImage) -> String {
        self.plan.names.image(image.n, clock::local_of_ms(self.unix_ns(image.at_ns).div_euclid(1_000_000)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use spillway_plan::{ImageCodec, ImageSuffix};

    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;
    const ORIGIN: i64 = 1_772_366_400_000_000_000;

    fn machine(suffix: ImageSuffix) -> ImagesMachine {
        let names = ImageNames { prefix: "d/a".into(), told: "d/a".into(), suffix, codec: ImageCodec::Jpeg };
        let (interval_ns, started_at) = (SECOND_NS, ORIGIN);
        ImagesMachine::new(ImagesPlan { output: 1, index: 0, names, interval_ns, folder: PathBuf::new(), started_at })
    }

    fn image(n: u32) -> SpooledImage {
        SpooledImage { n, at_ns: u64::from(n) * SECOND_NS, bytes: 7 }
    }

    fn actions(machine: &mut ImagesMachine) -> Vec<ImagesAction> {
        std::iter::from_fn(|| machine.next_action()).collect()
    }

    fn put(n: u32, name: &str) -> ImagesAction {
        ImagesAction::Put(n, name.to_owned())
    }

    #[test]
    fn images_are_sent_as_they_come_and_counted_when_they_are_stored() {
        let mut machine = machine(ImageSuffix::Index);
        (0..3).for_each(|n| machine.captured(image(n)));
        machine.captured(image(1));
        let expected = [put(0, "d/a_00000.jpeg"), put(1, "d/a_00001.jpeg"), put(2, "d/a_00002.jpeg")];
        assert_eq!(actions(&mut machine), expected);
        machine.stored(2, 7, false);
        machine.stored(0, 7, true);
        assert_eq!((machine.totals(), machine.spooled_bytes()), (ImageTotals { count: 2, bytes: 14, lost: 0 }, 7));
        machine.lost(1);
        machine.lost(1);
        assert!(machine.is_complete());
        assert_eq!(machine.totals().lost, 1);
        assert_eq!(machine.span(), Some((ORIGIN, ORIGIN + 2 * SECOND_NS as i64)));
        let second = ORIGIN + 2 * SECOND_NS as i64;
        let expected = [("d/a_00000.jpeg".to_owned(), ORIGIN, true), ("d/a_00002.jpeg".to_owned(), second, false)];
        assert_eq!(machine.objects(), expected);
    }

    #[test]
    fn of_images_that_replace_each_other_only_the_newest_is_sent_next() {
        let mut machine = machine(ImageSuffix::NoneOverwrite);
        (0..4).for_each(|n| machine.captured(image(n)));
        assert_eq!(actions(&mut machine), [put(0, "d/a.jpeg")]);
        machine.stored(0, 7, false);
        let expected = [ImagesAction::Remove(1), ImagesAction::Remove(2), put(3, "d/a.jpeg")];
        assert_eq!(actions(&mut machine), expected);
        machine.captured(image(4));
        assert!(actions(&mut machine).is_empty() && !machine.is_complete());
        machine.lost(3);
        assert_eq!(actions(&mut machine), [put(4, "d/a.jpeg")]);
        machine.stored(4, 7, false);
        assert!(machine.is_complete());
        assert_eq!(machine.totals(), ImageTotals { count: 2, bytes: 14, lost: 1 });
        assert_eq!(machine.objects().len(), 1, "they are one object");
    }

    #[test]
    fn an_image_of_which_nothing_was_said_follows_the_newest() {
        let mut machine = machine(ImageSuffix::Timestamp);
        machine.captured(image(5));
        machine.left_behind(5, 7);
        machine.left_behind(6, 9);
        assert_eq!(machine.pending().iter().map(|(n, _, bytes)| (*n, *bytes)).collect::<Vec<_>>(), [(5, 7), (6, 9)]);
        machine.stored(6, 9, false);
        assert_eq!(machine.span(), Some((ORIGIN + 6 * SECOND_NS as i64, ORIGIN + 6 * SECOND_NS as i64)));
    }

    #[test]
    fn another_process_goes_on_from_the_checkpoint() {
        let mut machine = machine(ImageSuffix::Index);
        (0..3).for_each(|n| machine.captured(image(n)));
        machine.stored(0, 7, false);
        let text = serde_json::to_string(&machine.checkpoint()).unwrap();
        let read: ImagesCheckpoint = serde_json::from_str(&text).unwrap();
        let mut resumed = ImagesMachine::resume(&read);
        assert_eq!((resumed.checkpoint(), resumed.pending()), (read, machine.pending()));
        assert!(actions(&mut resumed).is_empty());
        resumed.send(2);
        assert_eq!(actions(&mut resumed), [put(2, "d/a_00002.jpeg")]);
        resumed.stored(2, 7, false);
        resumed.lost(1);
        resumed.left_behind(3, 5);
        assert_eq!(actions(&mut resumed), [put(3, "d/a_00003.jpeg")]);
        assert_eq!(resumed.totals(), ImageTotals { count: 2, bytes: 14, lost: 1 });
    }

    proptest! {
        /// Whatever the store answers: each image is stored, lost or replaced, and never two of one name are on their way.
        #[test]
        fn every_image_comes_to_an_end(
            answers in proptest::collection::vec(any::<(bool, bool)>(), 1..60),
            one in any::<bool>(),
        ) {
            let suffix = if one { ImageSuffix::NoneOverwrite } else { ImageSuffix::Index };
            let mut machine = machine(suffix);
            let (mut sent, mut removed) = (vec![], 0);
            let mut n = 0;
            let mut step = |machine: &mut ImagesMachine, sent: &mut Vec<u32>| {
                for action in actions(machine) {
                    match action {
                        ImagesAction::Put(n, _) => sent.push(n),
                        ImagesAction::Remove(_) => removed += 1,
                    }
                }
            };
            for (is_new, is_stored) in answers {
                if is_new {
                    machine.captured(image(n));
                    n += 1;
                } else if let Some(n) = sent.pop() {
                    if is_stored { machine.stored(n, 7, false) } else { machine.lost(n) }
                }
                step(&mut machine, &mut sent);
                prop_assert!(!one || sent.len() <= 1);
            }
            while let Some(n) = sent.pop() {
                machine.stored(n, 7, false);
                step(&mut machine, &mut sent);
            }
            prop_assert!(machine.is_complete());
            prop_assert_eq!(machine.totals().count + machine.totals().lost + removed, u64::from(n));
        }
    }
}
