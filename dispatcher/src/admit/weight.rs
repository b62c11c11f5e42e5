use spillway_plan::{EgressPlan, Picture, Sound, VideoEncoding};

/// Pictures of 1280×720 at 30/s, composed and encoded, cost about this many cores.
const CORES_PER_720P30: f64 = 0.75;
const PIXELS_PER_720P30: f64 = 1280.0 * 720.0 * 30.0;
const MIXED_SOUND: f64 = 0.08;
/// Room connection, muxing, upload.
const ANY: f64 = 0.03;

/// Cores a plan is likely to keep busy. Coarse on purpose: a busy CPU makes a recording lag, not lose frames.
pub fn weight(plan: &EgressPlan) -> f64 {
    let picture = match &plan.picture {
        None | Some(Picture::Copied) => 0.0,
        // Nearly always copied; when the source is not H264 it is encoded, at half the price of a composition.
        Some(Picture::CopiedIfPossible(encoding)) => 0.2 * encoded(encoding),
        Some(Picture::Single(encoding)) => 0.7 * encoded(encoding),
        Some(Picture::Composed { encoding, .. }) => encoded(encoding),
    };
    let sound = match &plan.sound {
        None | Some(Sound::Copied) => 0.0,
        Some(Sound::Mixed { .. }) => MIXED_SOUND,
    };
    ANY + picture + sound
}

fn encoded(encoding: &VideoEncoding) -> f64 {
    let pixels = f64::from(encoding.width) * f64::from(encoding.height) * f64::from(encoding.framerate);
    CORES_PER_720P30 * pixels / PIXELS_PER_720P30
}
