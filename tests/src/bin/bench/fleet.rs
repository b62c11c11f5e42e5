use std::time::Duration;

use anyhow::Result;
use spillway_tests::fleet::{Scene, Story, play};

/// StartEgress many times in 2 s, two dispatchers, a Fargate with its usual quota and moods, a real runner for each.
pub async fn measure(egresses: usize, seed: u64) -> Result<Story> {
    let scene = Scene {
        egresses,
        within: Duration::from_secs(2),
        burst: 100,
        per_second: 20.0,
        throttled: 0.01,
        no_capacity: 0.01,
        seed,
        provisioning: Duration::from_millis(1500),
        pulling: Duration::from_millis(1500),
        pulls: 6,
        records: Duration::from_secs(5),
    };
    let story = play(&scene).await?;
    println!(
        "fleet: {} of {} recorded, {} refused, {} failed, {} twice; from the call to the platform's task p50 {:.2} s, p99 \
         {:.2} s; to ACTIVE p50 {:.1} s, p99 {:.1} s; StartEgress p99 {:.0} ms",
        story.recorded,
        story.asked,
        story.refused.len(),
        story.failed.len(),
        story.doubles,
        story.wait_p50_s,
        story.wait_p99_s,
        story.active_p50_s,
        story.active_p99_s,
        story.start_answer_p99_ms,
    );
    Ok(story)
}
