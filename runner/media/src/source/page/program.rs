//! Programs of a page (Chromium, its X server): they die with this process, however it ends. Standard programs do not ask
//! for that by themselves, and what runs between fork and exec cannot be written without `unsafe`. So this program is
//! started a second time, asks the kernel for a signal at the death of its parent, and becomes the other one.
//!
//! The signal is sent when the thread ends that has started the program: start it from one that lives as long.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use nix::sched::{CloneFlags, unshare};
use rustix::process::{Signal, geteuid, getppid, set_parent_process_death_signal};
use tracing::warn;

/// First argument: become the program that follows, for the parent with this process id.
const BECOME: &str = "become";
/// First argument: say by the exit code whether a user namespace can be made.
const PROBE: &str = "probe-user-namespace";

/// This program, where it answers to these arguments: set by its `main`.
static OURSELVES: OnceLock<PathBuf> = OnceLock::new();

/// For `main`, before anything else and before a second thread: does what the arguments of this process ask for. `None`: they
/// ask for nothing, and this program may be started by [`command`] from now on.
///
/// # Errors
///
/// Inner: the other program was not executed, or no namespace can be made. The process ends with a failure then.
pub fn on_start() -> Option<io::Result<()>> {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(first) if first == BECOME => Some(become_program(arguments)),
        Some(first) if first == PROBE => Some(unshare(CloneFlags::CLONE_NEWUSER).map_err(io::Error::from)),
        _ => {
            match std::env::current_exe() {
                Ok(program) => {
                    // Set already by an earlier call.
                    let _ = OURSELVES.set(program);
                }
                Err(error) => warn!(%error, "our own program is not known: a browser may outlive us"),
            }
            None
        }
    }
}

/// Returns only when it fails.
fn become_program(mut arguments: impl Iterator<Item = OsString>) -> io::Result<()> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    let parent: Option<u32> = arguments.next().and_then(|parent| parent.to_str()?.parse().ok());
    let program = arguments.next().ok_or_else(invalid)?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have died before that.
    let is_now = getppid().map(|pid| pid.as_raw_pid().unsigned_abs());
    if is_now != Some(parent.ok_or_else(invalid)?) {
        return Err(io::Error::other("the parent process is gone"));
    }
    Err(Command::new(program).args(arguments).exec())
}

/// Starts `program` in a process group of its own and with an empty environment. Where this process has not called
/// [`on_start`] (in tests) the program does not die with it.
pub fn command(program: &Path) -> Command {
    let mut command = match OURSELVES.get() {
        Some(ourselves) => {
            let mut command = Command::new(ourselves);
            command.arg(BECOME).arg(std::process::id().to_string()).arg(program);
            command
        }
        None => Command::new(program),
    };
    command.env_clear().process_group(0);
    command
}

/// Whether this user may make user namespaces, which Chromium's sandbox is built on: container runtimes forbid it, and root
/// cannot use it. Takes some milliseconds.
pub fn allows_user_namespaces() -> bool {
    if geteuid().is_root() {
        return false;
    }
    let Some(ourselves) = OURSELVES.get() else { return true };
    let mut probe = Command::new(ourselves);
    probe.arg(PROBE).env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success())
}
