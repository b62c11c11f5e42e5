//! What is done when the machine cannot keep up: little while the lag is small, and never anything to the sound. Pure.

/// What a recording that lags gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Rung {
    #[default]
    Nothing,
    /// Every second picture; a skipped one costs only its decoding.
    HalfThePictures,
    /// And the server is asked for lower layers.
    LowerLayers,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LadderBounds {
    pub half_above_ns: u64,
    pub lower_above_ns: u64,
}

const SECOND: u64 = 1_000_000_000;

impl LadderBounds {
    /// A file may be late; it must not lose what can still be made. A machine that gave us nothing for ten seconds has
    /// cost nothing: what waits is encoded, bounded in bytes, and spilled to disk.
    pub const FILE: Self = Self { half_above_ns: 30 * SECOND, lower_above_ns: 60 * SECOND };
    /// Somebody watches.
    pub const LIVE: Self = Self { half_above_ns: 2 * SECOND, lower_above_ns: 4 * SECOND };
    /// A replay is as far behind as its reader is fast: nothing is given up.
    pub const NEVER: Self = Self { half_above_ns: u64::MAX, lower_above_ns: u64::MAX };
}

/// Climbs at the bounds and comes down at half of them, so that it does not sway.
#[derive(Debug)]
pub struct Ladder {
    bounds: LadderBounds,
    rung: Rung,
}

impl Ladder {
    pub fn new(bounds: LadderBounds) -> Self {
        Self { bounds, rung: Rung::Nothing }
    }

    pub fn on(&mut self, lag_ns: u64) -> Rung {
        let LadderBounds { half_above_ns, lower_above_ns } = self.bounds;
        let floor = if lag_ns > lower_above_ns {
            Rung::LowerLayers
        } else if lag_ns > half_above_ns {
            Rung::HalfThePictures
        } else {
            Rung::Nothing
        };
        let ceiling = if lag_ns < half_above_ns / 2 {
            Rung::Nothing
        } else if lag_ns < lower_above_ns / 2 {
            Rung::HalfThePictures
        } else {
            Rung::LowerLayers
        };
        self.rung = self.rung.clamp(floor, ceiling.max(floor));
        self.rung
    }

    /// Is picture `n` left out?
    pub fn skips(&self, n: u64) -> bool {
        self.rung >= Rung::HalfThePictures && n % 2 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_climbs_at_the_bounds_and_comes_down_at_half_of_them() {
        let mut ladder = Ladder::new(LadderBounds::FILE);
        let told: Vec<_> = [1, 29, 31, 29, 16, 14, 31, 61, 40, 29, 16, 14].map(|lag| ladder.on(lag * SECOND)).into();
        use Rung::{HalfThePictures as Half, LowerLayers as Lower, Nothing};
        assert_eq!(told, [Nothing, Nothing, Half, Half, Half, Nothing, Half, Lower, Lower, Half, Half, Nothing]);
    }

    #[test]
    fn only_every_second_picture_goes() {
        let mut ladder = Ladder::new(LadderBounds::FILE);
        assert!(!(0..100).any(|n| ladder.skips(n)));
        ladder.on(31 * SECOND);
        assert_eq!((0..100).filter(|n| ladder.skips(*n)).count(), 50);
    }

    #[test]
    fn a_replay_gives_up_nothing() {
        let mut ladder = Ladder::new(LadderBounds::NEVER);
        assert_eq!(ladder.on(u64::MAX - 1), Rung::Nothing);
    }
}
