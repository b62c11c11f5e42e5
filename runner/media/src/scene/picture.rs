//! The picture mixer's thread: one picture per output time, made once every track is known up to it.
//!
//! Everything that happens is shown at the output time nearest to it. Pictures come with the output time they belong
//! to (`phase`); those of a camera that is faster than the output come with their own.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use gstreamer as gst;
use gstreamer_video as gst_video;

use super::canvas::{Brush, CanvasError, Easel, output_time};
use super::decode::Picture;
use super::focus::Focus;
use super::handover::{Pictures, Shown};
use super::ladder::{Ladder, LadderBounds, Rung};
use super::layout::{self, Arrangement, Drawn, Placed, Rect, Size};
use super::stage::{Cue, Stage, Until};
use super::tally::Tally;
use super::wish::Wishes;
use super::{Onward, SceneEvent};
use crate::cadence::Cadence;
use crate::track::{Origin, SessionTime, Track, TrackId};

/// A picture older than this is not fresh: with several videos of one participant another one is shown.
const FRESH_NS: u64 = 2_000_000_000;

#[derive(Clone, Debug)]
pub struct PictureOptions {
    pub size: Size,
    pub framerate: u32,
    pub arrangement: Arrangement,
    /// How long the last picture of a camera that sends nothing (and was not muted) is held. A screen share may stand
    /// still for ever.
    pub hold_ns: u64,
}

/// A video track in the scene.
struct Shot {
    track: Track,
    pictures: Arc<Pictures>,
    current: Option<Picture>,
    /// Taken and not shown yet.
    due: VecDeque<Picture>,
    cadence: Cadence,
    /// Order of first joining: the layouts' stable order.
    order: usize,
    /// Counts up whenever any track begins to be seen.
    came: u64,
    /// `current` is not what the last canvas shows.
    changed: bool,
    brush: Brush,
    left: bool,
}

impl Shot {
    fn is_screen(&self) -> bool {
        self.track.origin == Origin::ScreenShare
    }

    fn size(&self) -> Option<Size> {
        self.current.as_ref().map(|picture| Size { width: picture.info.width(), height: picture.info.height() })
    }
}

pub struct PictureMixer {
    options: PictureOptions,
    stage: Arc<Stage>,
    tally: Arc<Tally>,
    tell: Arc<dyn Fn(SceneEvent) + Send + Sync>,
    easel: Easel,
    ladder: Ladder,
    wishes: Wishes,
    focus: Focus,
    shots: Vec<Shot>,
    orders: HashMap<TrackId, usize>,
    came: u64,
    /// What the last canvas shows, and the canvas.
    last: Option<Last>,
}

struct Last {
    canvas: gst::Buffer,
    drawn: Vec<(TrackId, Drawn)>,
    light: bool,
}

impl PictureMixer {
    pub fn new(
        options: PictureOptions,
        bounds: LadderBounds,
        stage: Arc<Stage>,
        tally: Arc<Tally>,
        tell: Arc<dyn Fn(SceneEvent) + Send + Sync>,
    ) -> Result<Self, CanvasError> {
        Ok(Self {
            easel: Easel::new(options.size, options.arrangement.is_light())?,
            options,
            stage,
            tally,
            tell,
            ladder: Ladder::new(bounds),
            wishes: Wishes::default(),
            focus: Focus::default(),
            shots: Vec::new(),
            orders: HashMap::new(),
            came: 0,
            last: None,
        })
    }

    /// Until the session's end, or until the feed takes nothing more.
    pub fn run(mut self, start: Option<SessionTime>, feed: Box<dyn Onward>) {
        if let Some(start) = start {
            self.record(start, feed.as_ref());
        }
        feed.end();
        for shot in &self.shots {
            shot.pictures.abandon();
        }
    }

    fn record(&mut self, start: SessionTime, feed: &dyn Onward) {
        for n in 0.. {
            let offset = output_time(n, self.options.framerate);
            let next = output_time(n + 1, self.options.framerate);
            let at = SessionTime(start.0 + offset);
            let half = SessionTime(start.0 + (offset + next) / 2);
            let known = match self.stage.picture_cues(at, half) {
                Until::Known((cues, known)) => {
                    cues.into_iter().for_each(|(when, cue)| self.follow(when, cue));
                    known
                }
                Until::Over => return,
            };
            self.advance(at, known);
            let lag = self.stage.lag(at);
            let rung = self.ladder.on(lag);
            self.tally.on_picture_time(at, lag);
            if self.ladder.skips(n) {
                self.tally.on_skipped();
                continue;
            }
            let picture = match self.compose(at, rung) {
                Ok(mut picture) => {
                    // Just made or a copy that shares memory: its times are ours to write.
                    let fresh = picture.make_mut();
                    fresh.set_pts(gst::ClockTime::from_nseconds(offset));
                    fresh.set_duration(gst::ClockTime::from_nseconds(next - offset));
                    picture
                }
                Err(error) => {
                    (self.tell)(SceneEvent::Broken { words: spillway_process::chain(&error).to_string() });
                    return;
                }
            };
            if feed.push(picture).is_err() {
                return;
            }
        }
    }

    fn follow(&mut self, when: SessionTime, cue: Cue) {
        match cue {
            Cue::Video(track, pictures) => {
                let next = self.orders.len();
                let order = *self.orders.entry(track.id).or_insert(next);
                self.shots.push(Shot {
                    track,
                    pictures,
                    current: None,
                    due: VecDeque::new(),
                    cadence: Cadence::default(),
                    order,
                    came: 0,
                    changed: false,
                    brush: Brush::default(),
                    left: false,
                });
                self.shots.sort_by_key(|shot| shot.order);
            }
            Cue::Speakers(identities) => self.focus.heard(when, &identities),
            Cue::Layout(name) => {
                // One source at a time knows no layouts.
                if let Arrangement::Tiles(_) = self.options.arrangement {
                    self.options.arrangement = Arrangement::Tiles(name);
                    self.easel.set_ground(name.light);
                }
            }
        }
    }

    /// Every track up to `known`: an absence empties the tile, nothing goes back in time.
    fn advance(&mut self, at: SessionTime, known: SessionTime) {
        for shot in &mut self.shots {
            let Shot { pictures, current, due, cadence, left, .. } = shot;
            pictures.take_to(known, |shown| match shown {
                Shown::Picture(picture) => match due.back().or(current.as_ref()).map(|last| last.at) {
                    Some(last) if last > picture.at => {}
                    last => {
                        last.into_iter().for_each(|last| cadence.distance(picture.at.0 - last.0));
                        due.push_back(picture);
                    }
                },
                Shown::Absent(_) => {
                    due.clear();
                    *current = None;
                }
                Shown::Left(_) => {
                    due.clear();
                    *current = None;
                    *left = true;
                }
            });
            if let Some(picture) = next_due(due, at, |picture| picture.at) {
                if current.is_none() {
                    self.came += 1;
                    shot.came = self.came;
                }
                *current = Some(picture);
                shot.changed = true;
            }
            let old = current.as_ref().is_some_and(|shown| at.0.saturating_sub(shown.at.0) > self.options.hold_ns);
            if old && !shot.is_screen() {
                shot.current = None;
            }
        }
        self.shots.retain(|shot| !shot.left);
    }

    fn compose(&mut self, at: SessionTime, rung: Rung) -> Result<gst::Buffer, CanvasError> {
        let placed = self.place(at);
        self.wish(at, &placed, rung);
        let drawn: Vec<(usize, TrackId, Drawn)> = placed
            .iter()
            .filter_map(|placed| {
                let index =
                    self.shots.iter().position(|shot| shot.track.id == placed.track && shot.current.is_some())?;
                let drawn = layout::fit(self.shots[index].size()?, placed.rect, placed.fit)?;
                Some((index, placed.track, drawn))
            })
            .collect();
        let light = self.options.arrangement.is_light();
        let same_places = self.last.as_ref().is_some_and(|last| {
            last.light == light && last.drawn.iter().copied().eq(drawn.iter().map(|(_, track, drawn)| (*track, *drawn)))
        });
        let any_changed = drawn.iter().any(|(index, ..)| self.shots[*index].changed);
        let mut cameras =
            drawn.iter().map(|(index, ..)| &self.shots[*index]).filter(|shot| !shot.is_screen()).peekable();
        let moving = cameras.peek().is_some();
        let usual_ns = cameras.filter_map(|shot| shot.cadence.usual()).min();
        self.tally.on_picture(at, any_changed || !same_places, moving, usual_ns);
        let canvas = match &self.last {
            // Nothing to paint: the same memory again, under another time.
            Some(last) if same_places && !any_changed => return Ok(last.canvas.copy()),
            _ => self.paint(&drawn, same_places)?,
        };
        for (index, ..) in &drawn {
            self.shots[*index].changed = false;
        }
        let drawn = drawn.into_iter().map(|(_, track, drawn)| (track, drawn)).collect();
        self.last = Some(Last { canvas: canvas.clone(), drawn, light });
        Ok(canvas.copy())
    }

    fn place(&mut self, at: SessionTime) -> Vec<Placed> {
        let shots = &self.shots;
        let seen = |identity: &str| shots.iter().any(|shot| shot.current.is_some() && shot.track.identity == identity);
        let speaker = self.focus.at(at, seen);
        let mut tiles: Vec<_> = shots
            .iter()
            .filter_map(|shot| {
                let picture = shot.current.as_ref()?;
                Some(layout::Tile {
                    track: shot.track.id,
                    identity: &shot.track.identity,
                    screen: shot.is_screen(),
                    size: shot.size()?,
                    came: shot.came,
                    fresh: at.0.saturating_sub(picture.at.0) <= FRESH_NS,
                })
            })
            .collect();
        // A stay that has not ended yet beside the one that replaces it: one tile per track.
        tiles.dedup_by_key(|tile| tile.track);
        layout::place(self.options.arrangement, self.options.size, &tiles, speaker)
    }

    fn wish(&mut self, at: SessionTime, placed: &[Placed], rung: Rung) {
        let live = self.shots.iter().filter(|shot| shot.current.is_some());
        let tracks: Vec<TrackId> = live.map(|shot| shot.track.id).collect();
        for wish in self.wishes.on(at, &tracks, placed, rung) {
            (self.tell)(SceneEvent::Wish(wish));
        }
    }

    fn paint(&mut self, drawn: &[(usize, TrackId, Drawn)], same_places: bool) -> Result<gst::Buffer, CanvasError> {
        let mut buffer = self.easel.canvas()?;
        let last = self.last.as_ref().filter(|_| same_places);
        let old = last
            .and_then(|last| gst_video::VideoFrameRef::from_buffer_ref_readable(&last.canvas, self.easel.info()).ok());
        {
            let mut canvas = self.easel.open(buffer.make_mut())?;
            let covered: Vec<Rect> = drawn.iter().map(|(_, _, drawn)| drawn.dest).collect();
            for free in layout::background(self.options.size, &covered) {
                canvas.clear(free);
            }
            for (index, _, drawn) in drawn {
                let shot = &mut self.shots[*index];
                let Some(picture) = &shot.current else { continue };
                match &old {
                    // Copying rows of the last canvas is never dearer than scaling again.
                    Some(old) if !shot.changed && !drawn.is_exact() => canvas.copy(old, drawn.dest, drawn.dest),
                    _ => {
                        if !shot.brush.draw(&mut canvas, picture, *drawn, self.easel.info()) {
                            canvas.clear(drawn.dest);
                        }
                    }
                }
            }
        }
        Ok(buffer)
    }
}

/// Which of the pictures that fall on one output time is shown: the nearest. Those after it wait for the next.
fn next_due<T>(due: &mut VecDeque<T>, at: SessionTime, time: impl Fn(&T) -> SessionTime) -> Option<T> {
    while let (Some(first), Some(second)) = (due.front().map(&time), due.get(1).map(&time))
        && second.0.abs_diff(at.0) < first.0.abs_diff(at.0)
    {
        due.pop_front();
    }
    due.pop_front()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_faster_camera_is_thinned_evenly() {
        let pictures: Vec<u64> = (0..120).map(|n| output_time(n, 60)).collect();
        let (mut due, mut coming) = (VecDeque::new(), pictures.iter().copied().peekable());
        let mut shown = Vec::new();
        for n in 0..58 {
            let (at, next) = (output_time(n, 30), output_time(n + 1, 30));
            due.extend(std::iter::from_fn(|| coming.next_if(|picture| *picture <= (at + next) / 2)));
            shown.extend(next_due(&mut due, SessionTime(at), |picture| SessionTime(*picture)));
        }
        let steps: Vec<u64> = shown.windows(2).map(|pair| (pair[1] - pair[0]) / 1_000_000).collect();
        assert_eq!(steps.len(), 57);
        assert!(steps.iter().all(|step| (33..=34).contains(step)), "{steps:?}");
    }
}
