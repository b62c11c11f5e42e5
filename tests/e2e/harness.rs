//! Shared by all cases: one runtime, one livekit-server, one dispatcher, started by the first case that needs them; the
//! kinds of cases; and what is left when one with servers of its own is over.

mod times;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use libtest_mimic::{Failed, Trial};
use rustix::process::{Pid, Signal, kill_process};
use spillway_tests::publisher::epoch;
use spillway_tests::servers::bucket::TestBucket;
use spillway_tests::servers::{DispatcherProcess, TestServers};
use spillway_tests::twirp::Api;
use tokio::runtime::Runtime;

pub use self::times::table as times;
use self::times::{Share, timed};

/// The shared servers.
pub struct E2eHarness {
    dispatcher: Mutex<Option<DispatcherProcess>>,
    servers: TestServers,
}

static HARNESS: Mutex<Option<Arc<E2eHarness>>> = Mutex::new(None);

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        epoch();
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime starts")
    })
}

/// The shared servers. A failed start is repeated by the next case.
pub fn harness() -> Result<Arc<E2eHarness>> {
    let mut shared = HARNESS.lock().map_err(|_| anyhow!("the shared servers broke while they were started"))?;
    if let Some(harness) = &*shared {
        return Ok(harness.clone());
    }
    // On a thread that lives as long as the runtime: servers die with the thread that started them.
    let started = runtime().spawn(async {
        let servers = TestServers::start("").await?;
        let dispatcher = servers.dispatcher("dispatcher", "").await?;
        Ok::<_, anyhow::Error>(E2eHarness { dispatcher: Mutex::new(Some(dispatcher)), servers })
    });
    let (sender, receiver) = std::sync::mpsc::channel();
    runtime().spawn(async move {
        // The receiver waits just below.
        let _ = sender.send(started.await);
    });
    let started = receiver.recv().context("the servers' start vanished")?.context("the servers' start panicked")??;
    let harness = Arc::new(started);
    *shared = Some(harness.clone());
    Ok(harness)
}

impl E2eHarness {
    /// API of the shared livekit-server.
    pub fn api(&self) -> &Api {
        &self.servers.api
    }

    /// A room name that no other case uses.
    pub fn room(&self, kind: &str) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        format!("{kind}-{}", COUNT.fetch_add(1, Ordering::Relaxed))
    }

    /// A path for a recording, in the folder of the shared servers.
    pub fn file(&self, name: &str) -> PathBuf {
        self.servers.folder().join("files").join(name)
    }
}

/// Stops the shared servers; gives the processes that the idle dispatcher has left behind.
pub fn close() -> Vec<(i32, String)> {
    let Ok(mut shared) = HARNESS.lock() else { return Vec::new() };
    let Some(harness) = shared.take() else { return Vec::new() };
    if let Ok(mut dispatcher) = harness.dispatcher.lock()
        && let Some(mut dispatcher) = dispatcher.take()
        && let Err(error) = dispatcher.process.stop(Duration::from_secs(10))
    {
        eprintln!("{error:#}");
    }
    harness.servers.left_behind()
}

fn on_shared_servers<F>(
    body: impl FnOnce(Arc<E2eHarness>) -> F + Send + 'static,
) -> impl FnOnce() -> Result<()> + Send + 'static
where
    F: Future<Output = Result<()>>,
{
    move || {
        let harness = harness()?;
        runtime().block_on(body(harness))
    }
}

/// A case on the shared servers.
pub fn case<F>(name: &str, body: impl FnOnce(Arc<E2eHarness>) -> F + Send + 'static) -> Trial
where
    F: Future<Output = Result<()>> + Send,
{
    alone(name, on_shared_servers(body))
}

/// As [`case`], with no case beside it.
pub fn exclusive_case<F>(name: &str, body: impl FnOnce(Arc<E2eHarness>) -> F + Send + 'static) -> Trial
where
    F: Future<Output = Result<()>> + Send,
{
    exclusive(name, on_shared_servers(body))
}

/// As [`exclusive_case`], and what it has recorded is looked at beside other cases.
pub fn exclusive_recording<T, R, L>(
    name: &str,
    record: impl FnOnce(Arc<E2eHarness>) -> R + Send + 'static,
    look: impl FnOnce(T) -> L + Send + 'static,
) -> Trial
where
    R: Future<Output = Result<T>>,
    L: Future<Output = Result<()>>,
{
    let case = name.to_owned();
    Trial::test(name.to_owned(), move || {
        let recording = || harness().and_then(|harness| runtime().block_on(record(harness)));
        let recorded = on_machine(&case, Share::Whole, recording);
        let looking = || recorded.and_then(|recorded| runtime().block_on(look(recorded)));
        on_machine(&case, Share::Place, looking).map_err(|error| failed(&case, &error))
    })
}

/// As [`case`], of one that waits nearly all the time: it takes no place, and runs beside all others.
pub fn waiting_case<F>(name: &str, body: impl FnOnce(Arc<E2eHarness>) -> F + Send + 'static) -> Trial
where
    F: Future<Output = Result<()>> + Send,
{
    waiting(name, on_shared_servers(body))
}

/// Recordings are real time: cases wait more than they compute, but a machine that is too full proves nothing. So many
/// cases run beside one another. With three the run took 20 to 23 min instead of 28, and in one of two of them browsers sent
/// less than they can (`applications`), and a picture of a crash was recorded.
pub const PLACES: usize = 2;
/// So many more threads wait for a place, or run a case that takes none.
pub const WAITING: usize = 3;

static MACHINE: Machine =
    Machine { state: Mutex::new(MachineState { places: PLACES, taken: 0, wanted_whole: 0 }), changed: Condvar::new() };

/// What cases share: each takes a place, one that fills the machine by itself takes all of them.
struct Machine {
    state: Mutex<MachineState>,
    changed: Condvar,
}

struct MachineState {
    places: usize,
    taken: usize,
    /// Cases that wait for all places: others wait behind them.
    wanted_whole: usize,
}

/// Places that are taken until this is dropped.
struct TakenPlaces(usize);

impl Machine {
    fn place(&self) -> TakenPlaces {
        let is_full = |state: &mut MachineState| state.wanted_whole > 0 || state.taken >= state.places;
        let state = self.changed.wait_while(self.locked(), is_full);
        state.unwrap_or_else(PoisonError::into_inner).taken += 1;
        TakenPlaces(1)
    }

    fn all_places(&self) -> TakenPlaces {
        let mut state = self.locked();
        state.wanted_whole += 1;
        let state = self.changed.wait_while(state, |state| state.taken > 0);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        state.wanted_whole -= 1;
        state.taken = state.places;
        TakenPlaces(state.places)
    }

    fn locked(&self) -> MutexGuard<'_, MachineState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for TakenPlaces {
    fn drop(&mut self) {
        MACHINE.locked().taken -= self.0;
        MACHINE.changed.notify_all();
    }
}

/// Of all cases that are run from now on: so many beside one another.
pub fn set_places(places: usize) {
    MACHINE.locked().places = places.max(1);
}

static FAILURES: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn failed(name: &str, error: &anyhow::Error) -> Failed {
    let text = format!("{error:#}");
    FAILURES.lock().unwrap_or_else(PoisonError::into_inner).push(format!("FAILED {name}: {text}"));
    Failed::from(text)
}

/// The failed cases with their errors, for the end of the output: of a long one often nothing else is kept.
pub fn failures() -> Vec<String> {
    FAILURES.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Runs something with its share of the machine, and notes how long it waited and ran.
fn on_machine<T>(name: &str, share: Share, body: impl FnOnce() -> T) -> T {
    let take = || match share {
        Share::Place => Some(MACHINE.place()),
        Share::Whole => Some(MACHINE.all_places()),
        Share::Waiting => None,
    };
    timed(name, share, take, body)
}

fn trial(name: &str, share: Share, body: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    let case = name.to_owned();
    Trial::test(name.to_owned(), move || on_machine(&case, share, body).map_err(|error| failed(&case, &error)))
}

/// A case that starts its own servers, or needs none.
pub fn alone(name: &str, body: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    trial(name, Share::Place, body)
}

/// As [`alone`], of one that waits nearly all the time: it takes no place, and runs beside all others.
pub fn waiting(name: &str, body: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    trial(name, Share::Waiting, body)
}

/// As [`alone`], with no case beside it: three composites and three copies at once are what two cores record in time, and
/// what a kill then costs is the fault's doing, not the load's.
pub fn exclusive(name: &str, body: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    trial(name, Share::Whole, body)
}

/// With a reason, the case is skipped: counted as ignored, and listed at the end of the run. `--include-ignored` runs
/// it all the same.
pub fn unless(left_out: Option<String>, case: Trial) -> Trial {
    let Some(reason) = left_out else { return case };
    if let Ok(mut skipped) = SKIPPED.lock() {
        skipped.push((case.name().to_owned(), reason));
    }
    case.with_ignored_flag(true)
}

/// Where one of these programs is not installed, the case fails at once: nothing has checked a case that is skipped.
pub fn needing(programs: &[&str], case: Trial) -> Trial {
    let Some(missing) = programs.iter().find(|program| !Path::new(program).is_file()) else { return case };
    let reason = format!("no {missing}: `cargo verify` installs it");
    Trial::test(case.name().to_owned(), move || Err(reason.into()))
}

static SKIPPED: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

/// A line for each skipped case that the filter selects, with its reason.
pub fn skipped(filter: Option<&str>) -> Vec<String> {
    let Ok(skipped) = SKIPPED.lock() else { return Vec::new() };
    let asked = skipped.iter().filter(|(name, _)| filter.is_none_or(|filter| name.contains(filter)));
    asked.map(|(name, reason)| format!("skipped {name}: {reason}")).collect()
}

/// Runs a future on the shared runtime.
pub fn block_on<F: Future>(future: F) -> F::Output {
    runtime().block_on(future)
}

/// Signals a process that must be there.
pub fn signal(pid: i32, signal: Signal) -> Result<()> {
    kill_process(Pid::from_raw(pid).context("a pid is not zero")?, signal).context("signal a process")
}

/// A case with servers of its own is over: no process left, nothing unfinished in the bucket, nothing in the folder `spool`.
pub async fn tidy(servers: &TestServers, bucket: Option<&TestBucket>) -> Result<()> {
    servers.nothing_runs(Duration::from_secs(10)).await?;
    if let Some(bucket) = bucket {
        let unfinished = bucket.unfinished().await?;
        ensure!(unfinished.is_empty(), "unfinished uploads: {unfinished:?}");
    }
    let spooled = std::fs::read_dir(servers.folder().join("spool")).map_or(0, Iterator::count);
    ensure!(spooled == 0, "{spooled} folders left in the spool");
    Ok(())
}

/// A value that several cases need, made by the first of them; its error is the error of all of them.
pub struct SharedRun<T>(OnceLock<Result<Arc<T>, String>>);

impl<T> SharedRun<T> {
    /// Not made yet.
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// The value; `make` runs at most once.
    pub fn get(&self, make: impl FnOnce() -> Result<T>) -> Result<Arc<T>> {
        let made = self.0.get_or_init(|| make().map(Arc::new).map_err(|error| format!("{error:#}")));
        made.clone().map_err(|error| anyhow!(error))
    }
}
