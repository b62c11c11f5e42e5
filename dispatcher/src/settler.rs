//! A house for one piece of news: what a function does that is started for an event and frozen after it. It takes no
//! calls and watches nothing; what it finishes or launches is done by the same rooms as in a dispatcher.

use std::sync::Arc;
use std::time::Duration;

use spillway_bus::{Beat, Bus, BusError, Switches};
use spillway_launchers::Launcher;
use spillway_process::Clock;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::config::Config;
use crate::dispatcher::{DispatcherError, house, launchers};
use crate::house::{House, Lines};
use crate::launch;
use crate::targets::SWITCHES;
use crate::watch::OUR_BEAT;
use crate::watch::news::{self, Heard, News};

const LOOK_AT_HANDS: Duration = Duration::from_millis(20);
/// Of the time that is left, for those who are told to leave.
const LEAVING: Duration = Duration::from_secs(2);

pub struct Settler {
    house: Arc<House>,
}

impl Settler {
    /// With the targets the configuration names; each finished task is a line on standard output.
    pub async fn open(config: Config, bus: Bus) -> Result<Self, DispatcherError> {
        let clock = bus.clock().clone();
        let launchers = launchers(&config, &clock).await?;
        let lines: Lines = Box::new(|line| println!("{line}"));
        Self::with(config, bus, launchers, clock, Some(lines)).await
    }

    /// With a launcher for each target, in their order.
    pub async fn on(
        config: Config,
        bus: Bus,
        launchers: Vec<Arc<dyn Launcher>>,
        clock: Clock,
    ) -> Result<Self, DispatcherError> {
        Self::with(config, bus, launchers, clock, None).await
    }

    async fn with(
        config: Config,
        bus: Bus,
        launchers: Vec<Arc<dyn Launcher>>,
        clock: Clock,
        lines: Option<Lines>,
    ) -> Result<Self, DispatcherError> {
        let house = house("settler", config, bus, launchers, clock, lines)?;
        house.learn_installation().await?;
        house.io.listen().await?;
        // While it beats no dispatcher takes over what it has in hand.
        beat(&house).await?;
        house.targets.listen_to(&Switches::new(&house.bus, SWITCHES).all().await?);
        house.spawn(keep_beating(Arc::clone(&house)));
        house.spawn(launch::run(Arc::clone(&house)));
        Ok(Self { house })
    }

    /// Whose tasks are ours.
    pub fn stack(&self) -> String {
        self.house.config().stack.clone()
    }

    pub async fn hear(&self, news: &News) -> Result<Heard, BusError> {
        news::hear(&self.house, news).await
    }

    /// Waits until launches have landed and last words are delivered. False: not by then; whoever hears the same news
    /// again, or a dispatcher, goes on from what stands in the registry.
    pub async fn finish(self, by: Instant) -> bool {
        let emptied = tokio::time::timeout_at(by - LEAVING, async {
            while !self.house.hands_are_empty() {
                tokio::time::sleep(LOOK_AT_HANDS).await;
            }
        });
        let emptied = emptied.await.is_ok();
        self.house.stop.shut_down(LEAVING).await && emptied
    }
}

async fn beat(house: &House) -> Result<(), BusError> {
    house.beats.beat(&house.name, 1, &Beat::default(), OUR_BEAT).await.map(drop)
}

async fn keep_beating(house: Arc<House>) {
    let mut ticks = interval(OUR_BEAT / 3);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = house.stop.asked() => return,
        }
        // One that is missed is one that is late.
        let _ = beat(&house).await;
    }
}
