//! The picture mixer's thread: one picture per output time, made once every track is known up to it.
//!
//! Everything that happens is shown at the output time nearest to it. Pictures come with the output time they belong
//! to (`policy::pacing`); those of a camera that is faster than the output come with their own. Reads no clock.

use std::collections::HashMap;
use std::sync::Arc;

use gstreamer as gst;
use gstreamer_video as gst_video;

use super::canvas::{CanvasError, FramePool};
use super::input::VideoInput;
use crate::compositor::event::{CompositorEvent, EventFn};
use crate::compositor::policy::degradation::{DegradationBounds, DegradationLevel, DegradationPolicy};
use crate::compositor::policy::focus::Focus;
use crate::compositor::policy::layer_request::LayerRequests;
use crate::compositor::policy::layout::{self, Arrangement, PlacedTile, Rect, Size, TileDrawing};
use crate::compositor::policy::pacing::{output_number, output_time};
use crate::compositor::policy::page::PageOrder;
use crate::compositor::stats::StatsCounter;
use crate::compositor::sync::decoded_queue::DecodedQueue;
use crate::compositor::sync::mixer_sync::{MixerSync, SyncWait, VideoEvent};
use crate::key_grid::KeyGrid;
use crate::output::RawSink;
use crate::track::TrackId;
use crate::units::MediaTime;

/// A picture older than this is not fresh: with several videos of one participant another one is shown.
const FRESH_NS: u64 = 2_000_000_000;

/// A key frame that waits and is older than this is no place to jump to: it takes a tenth of that to get a fresh one.
const JUMP_KEY_AGE_NS: u64 = 1_000_000_000;

/// What pictures are made.
#[derive(Clone, Debug)]
pub struct VideoMixerOptions {
    /// Of the canvas.
    pub size: Size,
    /// Pictures a second.
    pub framerate: u32,
    /// Which tracks are shown where.
    pub arrangement: Arrangement,
    /// Where the encoder is asked for key frames: the first picture at a line or later is never left out.
    pub key_grid: Option<KeyGrid>,
}

/// State of the picture mixer; its `run` is the thread.
pub struct VideoMixer {
    options: VideoMixerOptions,
    sync: Arc<MixerSync>,
    stats_counter: Arc<StatsCounter>,
    tell: EventFn,
    frame_pool: FramePool,
    bounds: DegradationBounds,
    degradation: DegradationPolicy,
    requests: LayerRequests,
    focus: Focus,
    page: PageOrder,
    inputs: Vec<VideoInput>,
    orders: HashMap<TrackId, usize>,
    came: u64,
    /// What the last canvas shows, and the canvas.
    last: Option<LastCanvas>,
}

struct LastCanvas {
    canvas: gst::Buffer,
    drawn: Vec<(TrackId, TileDrawing)>,
    light: bool,
}

impl VideoMixer {
    /// Nothing is made before [`VideoMixer::run`].
    ///
    /// # Errors
    ///
    /// When no canvas of this size can be made.
    pub fn new(
        options: VideoMixerOptions,
        bounds: DegradationBounds,
        sync: Arc<MixerSync>,
        stats_counter: Arc<StatsCounter>,
        tell: EventFn,
    ) -> Result<Self, CanvasError> {
        Ok(Self {
            frame_pool: FramePool::new(options.size, options.arrangement.is_light())?,
            options,
            sync,
            stats_counter,
            tell,
            bounds,
            degradation: DegradationPolicy::default(),
            requests: LayerRequests::default(),
            focus: Focus::default(),
            page: PageOrder::default(),
            inputs: Vec::new(),
            orders: HashMap::new(),
            came: 0,
            last: None,
        })
    }

    /// Until the recording's end, or until the feed takes nothing more.
    pub fn run(mut self, start: Option<MediaTime>, feed: Box<dyn RawSink>) {
        if let Some(start) = start {
            self.record(start, feed.as_ref());
        }
        feed.end();
        for input in &self.inputs {
            input.pictures.abandon();
        }
    }

    fn record(&mut self, start: MediaTime, feed: &dyn RawSink) {
        // End of the lines that belong to pictures so far.
        let mut lines_to = 0;
        let mut next_n = 0;
        loop {
            let n = next_n;
            next_n += 1;
            let offset = output_time(n, self.options.framerate);
            let next = output_time(n + 1, self.options.framerate);
            let at = start.plus_ns(offset);
            let half = start.plus_ns((offset + next) / 2);
            let known = match self.sync.wait_for_video_events(at, half) {
                SyncWait::Known((video_events, known)) => {
                    video_events.into_iter().for_each(|(when, video_event)| self.follow(when, video_event));
                    known
                }
                SyncWait::Over => return,
            };
            self.advance(at, known);
            let (lag, live) = (self.sync.lag(at), self.sync.live());
            let level = self.degradation.on(lag, live.bounds(self.bounds));
            self.stats_counter.on_picture_time(at, lag);
            if live.jumps(lag)
                && let Some(landing) = self.jump(at, lag)
            {
                next_n = next_n.max(output_number(landing.ns_since(start), self.options.framerate));
                self.stats_counter.on_jump(landing, next_n - n);
                continue;
            }
            let lines_from = std::mem::replace(&mut lines_to, offset + 1);
            let key = self.options.key_grid.is_some_and(|grid| grid.has_line_in(lines_from, lines_to));
            if self.degradation.skips(n) && !key {
                self.stats_counter.on_skipped(1, live.is_on());
                continue;
            }
            let picture = match self.compose(at, level) {
                Ok((mut picture, repeats)) => {
                    // Just made or a copy that shares memory: its times are ours to write.
                    let fresh = picture.make_mut();
                    fresh.set_pts(gst::ClockTime::from_nseconds(offset));
                    fresh.set_duration(gst::ClockTime::from_nseconds(next - offset));
                    if repeats && !key {
                        fresh.set_flags(gst::BufferFlags::DROPPABLE);
                    }
                    picture
                }
                Err(error) => {
                    (self.tell)(CompositorEvent::Broken { message: spillway_process::chain(&error).to_string() });
                    return;
                }
            };
            if feed.push(picture).is_err() {
                return;
            }
        }
    }

    /// Gives up the pictures that wait, `lag_ns` of them from `at` on. Answers where pictures go on: at the first key frame
    /// that is left, else where the recording is known to. `None`: it ends before.
    fn jump(&mut self, at: MediaTime, lag_ns: u64) -> Option<MediaTime> {
        let known = at.plus_ns(lag_ns).minus_ns(1);
        let SyncWait::Known((video_events, known)) = self.sync.wait_for_video_events(known, known) else { return None };
        video_events.into_iter().for_each(|(when, video_event)| self.follow(when, video_event));
        let recent = known.minus_ns(JUMP_KEY_AGE_NS);
        let inboxes = self.inputs.iter().filter_map(|input| input.inbox.upgrade());
        Some(inboxes.filter_map(|inbox| inbox.jump_to_key(recent)).min().unwrap_or(known))
    }

    fn follow(&mut self, when: MediaTime, video_event: VideoEvent) {
        match video_event {
            VideoEvent::Video(track, pictures, inbox) => {
                let next = self.orders.len();
                let order = *self.orders.entry(track.id).or_insert(next);
                self.inputs.push(VideoInput::new(track, (pictures, inbox), order));
                self.inputs.sort_by_key(|input| input.order);
            }
            VideoEvent::Speakers(identities) => self.focus.heard(when, &identities),
            VideoEvent::Layout(name) => {
                // One source at a time knows no layouts.
                if let Arrangement::Tiles(_) = self.options.arrangement {
                    self.options.arrangement = Arrangement::Tiles(name);
                    self.frame_pool.set_ground(name.light);
                }
            }
        }
    }

    /// Every track up to `known`.
    fn advance(&mut self, at: MediaTime, known: MediaTime) {
        for input in &mut self.inputs {
            if input.advance(at, known) {
                self.came += 1;
                input.came = self.came;
            }
        }
        self.inputs.retain(|input| !input.left);
    }

    /// The picture, and whether it repeats the one before.
    fn compose(&mut self, at: MediaTime, level: DegradationLevel) -> Result<(gst::Buffer, bool), CanvasError> {
        let placed = self.place(at);
        self.request(at, &placed, level);
        let drawn: Vec<(usize, TrackId, TileDrawing)> = placed
            .iter()
            .filter_map(|placed| {
                let index =
                    self.inputs.iter().position(|input| input.track.id == placed.track && input.current.is_some())?;
                let drawn = layout::fit(self.inputs[index].size()?, placed.rect, placed.fit)?;
                Some((index, placed.track, drawn))
            })
            .collect();
        let light = self.options.arrangement.is_light();
        let same_places = self.last.as_ref().is_some_and(|last| {
            last.light == light && last.drawn.iter().copied().eq(drawn.iter().map(|(_, track, drawn)| (*track, *drawn)))
        });
        let any = |of: fn(&VideoInput) -> bool| drawn.iter().any(|(index, ..)| of(&self.inputs[*index]));
        let (any_renewed, any_changed) = (any(|input| input.renewed), any(|input| input.changed));
        let mut cameras =
            drawn.iter().map(|(index, ..)| &self.inputs[*index]).filter(|input| !input.is_screen()).peekable();
        let moving = cameras.peek().is_some();
        let usual_ns = cameras.filter_map(|input| input.cadence.usual()).min();
        self.stats_counter.on_picture(at, any_renewed || !same_places, moving, usual_ns);
        for (index, ..) in &drawn {
            self.inputs[*index].renewed = false;
        }
        let canvas = match &self.last {
            // Nothing to paint: the same memory again, under another time.
            Some(last) if same_places && !any_changed => return Ok((last.canvas.copy(), true)),
            _ => self.paint(&drawn, same_places)?,
        };
        for (index, ..) in &drawn {
            self.inputs[*index].changed = false;
        }
        let drawn = drawn.into_iter().map(|(_, track, drawn)| (track, drawn)).collect();
        self.last = Some(LastCanvas { canvas: canvas.clone(), drawn, light });
        Ok((canvas.copy(), false))
    }

    fn place(&mut self, at: MediaTime) -> Vec<PlacedTile> {
        let inputs = &self.inputs;
        let seen =
            |identity: &str| inputs.iter().any(|input| input.current.is_some() && input.track.identity == identity);
        let speaker = self.focus.at(at, seen);
        let mut tiles: Vec<_> = inputs
            .iter()
            .filter_map(|input| {
                let picture = input.current.as_ref()?;
                Some(layout::Tile {
                    track: input.track.id,
                    identity: &input.track.identity,
                    screen: input.is_screen(),
                    size: input.size()?,
                    came: input.came,
                    fresh: at.ns_since(picture.at) <= FRESH_NS,
                })
            })
            .collect();
        // A decoder thread that has not ended yet beside the one that replaces it: one tile per track.
        tiles.dedup_by_key(|tile| tile.track);
        let places = layout::places(self.options.arrangement, self.options.size, &tiles);
        self.page.arrange(&mut tiles, &self.orders, places, speaker, at);
        layout::place(self.options.arrangement, self.options.size, &tiles, speaker)
    }

    fn request(&mut self, at: MediaTime, placed: &[PlacedTile], level: DegradationLevel) {
        let live = self.inputs.iter().filter(|input| input.current.is_some());
        let tracks: Vec<TrackId> = live.map(|input| input.track.id).collect();
        // Where one source is shown at a time, another one stands in as soon as it stalls.
        let pauses = matches!(self.options.arrangement, Arrangement::Tiles(_));
        for request in self.requests.on(at, &tracks, placed, pauses, level) {
            (self.tell)(CompositorEvent::LayerRequest(request));
        }
    }

    fn paint(
        &mut self,
        drawn: &[(usize, TrackId, TileDrawing)],
        same_places: bool,
    ) -> Result<gst::Buffer, CanvasError> {
        let mut buffer = self.frame_pool.canvas()?;
        let last = self.last.as_ref().filter(|_| same_places);
        let old = last.and_then(|last| {
            gst_video::VideoFrameRef::from_buffer_ref_readable(&last.canvas, self.frame_pool.info()).ok()
        });
        {
            let mut canvas = self.frame_pool.open(buffer.make_mut())?;
            let covered: Vec<Rect> = drawn.iter().map(|(_, _, drawn)| drawn.dest).collect();
            for free in layout::background(self.options.size, &covered) {
                canvas.clear(free);
            }
            for (index, _, drawn) in drawn {
                let input = &mut self.inputs[*index];
                let Some(picture) = &input.current else { continue };
                match &old {
                    // Copying rows of the last canvas is never dearer than scaling again.
                    Some(old) if !input.changed && !drawn.is_exact() => canvas.copy(old, drawn.dest, drawn.dest),
                    _ => {
                        if !input.scaler.draw(&mut canvas, picture, *drawn, self.frame_pool.info()) {
                            canvas.clear(drawn.dest);
                        }
                    }
                }
            }
        }
        Ok(buffer)
    }
}
