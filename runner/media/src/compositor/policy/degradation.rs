//! What is given up when the machine cannot keep up: little while the lag is small, and never anything of the sound. Early
//! while a stream is watched: its lag is kept within seconds.
//! In: the lag of the picture mixer. Out: which pictures are left out, and whether lower layers are asked for. Pure.

/// What a recording that lags gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum DegradationLevel {
    #[default]
    Nothing,
    /// Every second picture; a skipped one costs only its decoding.
    HalfThePictures,
    /// And the server is asked for lower layers.
    LowerLayers,
    /// And only every fourth picture is made: of 720p it saves a third of the CPU time, where half of them save a fifth.
    QuarterOfThePictures,
}

/// Lag from which on a recording gives something up, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DegradationBounds {
    /// Beyond it every second picture is left out.
    pub half_above_ns: u64,
    /// Beyond it lower layers are asked for as well.
    pub lower_above_ns: u64,
    /// Beyond it three of four pictures are left out.
    pub quarter_above_ns: u64,
}

const SECOND: u64 = 1_000_000_000;

impl DegradationBounds {
    /// A file may be late; it must not lose what can still be made. A machine that gave us nothing for ten seconds has
    /// cost nothing: what waits is encoded, bounded in bytes, and spilled to disk.
    pub const FILE: Self = Self { half_above_ns: 30 * SECOND, lower_above_ns: 60 * SECOND, quarter_above_ns: u64::MAX };
    /// A stream that is watched is late for its viewers. With 60 % of the CPU time that is needed these keep it at 4.3 s,
    /// with 45 % of the pictures; half of them alone come to 7.4 s in a minute.
    pub const LIVE: Self = Self { half_above_ns: 2 * SECOND, lower_above_ns: 4 * SECOND, quarter_above_ns: 4 * SECOND };
    /// A replay is as far behind as its reader is fast: nothing is given up.
    pub const NEVER: Self = Self { half_above_ns: u64::MAX, lower_above_ns: u64::MAX, quarter_above_ns: u64::MAX };

    /// The highest level whose bound is reached.
    fn level(self, is_reached: impl Fn(u64) -> bool) -> DegradationLevel {
        if is_reached(self.quarter_above_ns) {
            DegradationLevel::QuarterOfThePictures
        } else if is_reached(self.lower_above_ns) {
            DegradationLevel::LowerLayers
        } else if is_reached(self.half_above_ns) {
            DegradationLevel::HalfThePictures
        } else {
            DegradationLevel::Nothing
        }
    }
}

/// Whether a stream is watched, and what may be given up for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LiveRule {
    /// None is, or files come first: the bounds are the recording's own.
    #[default]
    Off,
    /// Pictures are left out by [`DegradationBounds::LIVE`]. Every moment is still recorded.
    Thin,
    /// And beyond 6 s of lag the pictures that wait are given up: nothing but streams is made of them.
    Jump,
}

/// The lag that no stream has for longer than it takes to give up what waits.
const JUMP_ABOVE_NS: u64 = 6 * SECOND;

impl LiveRule {
    /// What is given up at which lag, of a recording with these bounds.
    pub fn bounds(self, own: DegradationBounds) -> DegradationBounds {
        match self {
            Self::Off => own,
            Self::Thin | Self::Jump => DegradationBounds::LIVE,
        }
    }

    /// A stream is watched and may cost pictures.
    pub fn is_on(self) -> bool {
        self != Self::Off
    }

    /// Are the pictures given up that wait?
    pub fn jumps(self, lag_ns: u64) -> bool {
        self == Self::Jump && lag_ns > JUMP_ABOVE_NS
    }
}

/// Climbs at the bounds and comes down at half of them, so that it does not sway.
#[derive(Debug, Default)]
pub struct DegradationPolicy {
    level: DegradationLevel,
}

impl DegradationPolicy {
    /// The level at this lag. Other bounds than before count at once.
    pub fn on(&mut self, lag_ns: u64, bounds: DegradationBounds) -> DegradationLevel {
        let floor = bounds.level(|bound| lag_ns > bound);
        let ceiling = bounds.level(|bound| lag_ns >= bound / 2);
        self.level = self.level.clamp(floor, ceiling.max(floor));
        self.level
    }

    /// Is picture `n` left out?
    pub fn skips(&self, n: u64) -> bool {
        match self.level {
            DegradationLevel::Nothing => false,
            DegradationLevel::HalfThePictures | DegradationLevel::LowerLayers => !n.is_multiple_of(2),
            DegradationLevel::QuarterOfThePictures => !n.is_multiple_of(4),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::DegradationLevel::{
        HalfThePictures as Half, LowerLayers as Lower, Nothing, QuarterOfThePictures as Quarter,
    };
    use super::*;

    /// The levels at these lags, milliseconds, one after the other.
    fn levels<const N: usize>(bounds: DegradationBounds, lags_ms: [u64; N]) -> [DegradationLevel; N] {
        let mut degradation = DegradationPolicy::default();
        lags_ms.map(|lag| degradation.on(lag * 1_000_000, bounds))
    }

    #[test]
    fn it_climbs_at_the_bounds_and_comes_down_at_half_of_them() {
        let lags = [1, 29, 31, 29, 16, 14, 31, 61, 400, 40, 29, 16, 14].map(|seconds| seconds * 1000);
        let wanted = [Nothing, Nothing, Half, Half, Half, Nothing, Half, Lower, Lower, Lower, Half, Half, Nothing];
        assert_eq!(levels(DegradationBounds::FILE, lags), wanted);
    }

    #[test]
    fn while_a_stream_is_watched_it_climbs_early() {
        let lags = [0, 2000, 2001, 1000, 999, 3900, 4001, 2000, 1999, 1000, 999, 9000, 0];
        let wanted =
            [Nothing, Nothing, Half, Half, Nothing, Half, Quarter, Quarter, Half, Half, Nothing, Quarter, Nothing];
        assert_eq!(levels(DegradationBounds::LIVE, lags), wanted);
    }

    #[test]
    fn without_a_viewer_it_comes_down_at_once() {
        let mut degradation = DegradationPolicy::default();
        let mut on =
            |seconds: u64, rule: LiveRule| degradation.on(seconds * SECOND, rule.bounds(DegradationBounds::FILE));
        assert_eq!(on(5, LiveRule::Thin), Quarter);
        assert_eq!(on(5, LiveRule::Off), Nothing);
        assert_eq!(on(5, LiveRule::Jump), Quarter);
        assert_eq!(on(29, LiveRule::Off), Half, "not before half of the bound of a file");
        assert_eq!(on(70, LiveRule::Thin), Quarter);
        assert_eq!(on(70, LiveRule::Off), Lower);
    }

    #[test]
    fn of_two_or_four_pictures_one_stays() {
        let skipped = |bounds, lag_ns| {
            let mut degradation = DegradationPolicy::default();
            degradation.on(lag_ns, bounds);
            (0..100).filter(|n| degradation.skips(*n)).count()
        };
        assert_eq!(skipped(DegradationBounds::FILE, 30 * SECOND), 0);
        assert_eq!(skipped(DegradationBounds::FILE, 31 * SECOND), 50);
        assert_eq!(skipped(DegradationBounds::FILE, 61 * SECOND), 50);
        assert_eq!(skipped(DegradationBounds::LIVE, 3 * SECOND), 50);
        assert_eq!(skipped(DegradationBounds::LIVE, 5 * SECOND), 75);
    }

    #[test]
    fn a_replay_gives_up_nothing() {
        assert_eq!(levels(DegradationBounds::NEVER, [0, 1_000_000, u64::MAX / 1_000_001]), [Nothing; 3]);
        let mut degradation = DegradationPolicy::default();
        assert_eq!(degradation.on(u64::MAX - 1, DegradationBounds::NEVER), Nothing);
    }

    #[test]
    fn only_streams_alone_give_up_what_waits() {
        let jumps = |lag_ns| [LiveRule::Off, LiveRule::Thin, LiveRule::Jump].map(|rule| rule.jumps(lag_ns));
        assert_eq!(jumps(6 * SECOND), [false; 3]);
        assert_eq!(jumps(6 * SECOND + 1), [false, false, true]);
        assert_eq!(jumps(u64::MAX), [false, false, true]);
    }

    /// A minute of 30 pictures a second on a machine with a share of the CPU time they need, where decoding is 38 % of it:
    /// the most that the mixer is behind, milliseconds, and how many pictures it made.
    fn starved(bounds: DegradationBounds, share_percent: u64) -> (u64, u64) {
        const PICTURE_NS: u64 = SECOND / 30;
        let mut degradation = DegradationPolicy::default();
        let (mut now_ns, mut worst_ns, mut made) = (0u64, 0u64, 0u64);
        for n in 0..60 * 30 {
            let at_ns = n * PICTURE_NS;
            now_ns = now_ns.max(at_ns);
            worst_ns = worst_ns.max(now_ns - at_ns);
            degradation.on(now_ns - at_ns, bounds);
            let skips = degradation.skips(n);
            made += u64::from(!skips);
            let cost_percent = if skips { 38 } else { 100 };
            now_ns += PICTURE_NS * cost_percent / share_percent;
        }
        (worst_ns / 1_000_000, made)
    }

    #[test]
    fn with_six_tenths_of_the_cpu_time_a_stream_is_at_most_four_and_a_half_seconds_late() {
        let (worst_ms, made) = starved(DegradationBounds::LIVE, 60);
        assert!(worst_ms <= 4500, "{worst_ms} ms");
        assert!((600..1100).contains(&made), "{made} of 1800");
        let (worst_ms, made) = starved(DegradationBounds::LIVE, 90);
        assert!(worst_ms <= 2500 && made > 1500, "{worst_ms} ms, {made} of 1800");
        assert_eq!(starved(DegradationBounds::LIVE, 100), (0, 1800));
        for bounds in [DegradationBounds::FILE, DegradationBounds::NEVER] {
            let (worst_ms, made) = starved(bounds, 70);
            assert!(worst_ms > 20_000 && made == 1800, "{worst_ms} ms, {made} of 1800");
        }
    }
}
