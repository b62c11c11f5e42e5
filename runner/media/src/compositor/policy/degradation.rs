//! What is given up when the machine cannot keep up: little while the lag is small, and never anything of the sound.
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
}

/// Lag from which on a recording gives something up, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DegradationBounds {
    /// Beyond it every second picture is left out.
    pub half_above_ns: u64,
    /// Beyond it lower layers are asked for as well.
    pub lower_above_ns: u64,
}

const SECOND: u64 = 1_000_000_000;

impl DegradationBounds {
    /// A file may be late; it must not lose what can still be made. A machine that gave us nothing for ten seconds has
    /// cost nothing: what waits is encoded, bounded in bytes, and spilled to disk.
    pub const FILE: Self = Self { half_above_ns: 30 * SECOND, lower_above_ns: 60 * SECOND };
    /// A replay is as far behind as its reader is fast: nothing is given up.
    pub const NEVER: Self = Self { half_above_ns: u64::MAX, lower_above_ns: u64::MAX };
}

/// Climbs at the bounds and comes down at half of them, so that it does not sway.
#[derive(Debug)]
pub struct DegradationPolicy {
    bounds: DegradationBounds,
    level: DegradationLevel,
}

impl DegradationPolicy {
    /// Nothing is given up yet.
    pub fn new(bounds: DegradationBounds) -> Self {
        Self { bounds, level: DegradationLevel::Nothing }
    }

    /// The level at this lag.
    pub fn on(&mut self, lag_ns: u64) -> DegradationLevel {
        let DegradationBounds { half_above_ns, lower_above_ns } = self.bounds;
        let floor = if lag_ns > lower_above_ns {
            DegradationLevel::LowerLayers
        } else if lag_ns > half_above_ns {
            DegradationLevel::HalfThePictures
        } else {
            DegradationLevel::Nothing
        };
        let ceiling = if lag_ns < half_above_ns / 2 {
            DegradationLevel::Nothing
        } else if lag_ns < lower_above_ns / 2 {
            DegradationLevel::HalfThePictures
        } else {
            DegradationLevel::LowerLayers
        };
        self.level = self.level.clamp(floor, ceiling.max(floor));
        self.level
    }

    /// Is picture `n` left out?
    pub fn skips(&self, n: u64) -> bool {
        self.level >= DegradationLevel::HalfThePictures && n % 2 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_climbs_at_the_bounds_and_comes_down_at_half_of_them() {
        let mut degradation = DegradationPolicy::new(DegradationBounds::FILE);
        let told: Vec<_> =
            [1, 29, 31, 29, 16, 14, 31, 61, 40, 29, 16, 14].map(|lag| degradation.on(lag * SECOND)).into();
        use DegradationLevel::{HalfThePictures as Half, LowerLayers as Lower, Nothing};
        assert_eq!(told, [Nothing, Nothing, Half, Half, Half, Nothing, Half, Lower, Lower, Half, Half, Nothing]);
    }

    #[test]
    fn only_every_second_picture_goes() {
        let mut degradation = DegradationPolicy::new(DegradationBounds::FILE);
        assert!(!(0..100).any(|n| degradation.skips(n)));
        degradation.on(31 * SECOND);
        assert_eq!((0..100).filter(|n| degradation.skips(*n)).count(), 50);
    }

    #[test]
    fn a_replay_gives_up_nothing() {
        let mut degradation = DegradationPolicy::new(DegradationBounds::NEVER);
        assert_eq!(degradation.on(u64::MAX - 1), DegradationLevel::Nothing);
    }
}
