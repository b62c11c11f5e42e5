//! Refresh rates of a display without a screen. Chromium takes the interval of its frames from RandR, and Xvfb accepts modes
//! that are made up: without one it says 0 Hz, and Chromium paints 60 times a second. 30 Hz instead of 60 halves Chromium on
//! an animated page (0.203 → 0.105 cores, measured). Requests are waited for: milliseconds.

use x11rb::CURRENT_TIME;
use x11rb::connection::Connection;
use x11rb::errors::{ConnectionError, ReplyError};
use x11rb::protocol::randr::{
    ConnectionExt as _, GetScreenResourcesReply, Mode, ModeFlag, ModeInfo, Rotation, SetConfig,
};
use x11rb::protocol::xproto::Window;

/// Blanking of every mode, pixels and rows: what a reader of the mode's rate divides by.
const BLANK_COLUMNS: u32 = 160;
const BLANK_ROWS: u32 = 30;

/// Why a display does not have the refresh rate that was asked for. A retry changes nothing.
#[derive(Debug, thiserror::Error)]
pub enum ModeError {
    /// A request failed, or the server is gone.
    #[error("ask the X server for a mode")]
    Request(#[from] ReplyError),
    /// There is no output or CRTC whose mode could be set.
    #[error("the X server has no output")]
    NoOutput,
    /// RandR's status (1 to 3) instead of success.
    #[error("the X server does not take the mode (RandR status {0})")]
    NotTaken(u8),
    /// No mode of RandR can be so large.
    #[error("no mode of {width}x{height} at {hz} Hz")]
    Impossible {
        /// Pixels of a row.
        width: u32,
        /// Rows.
        height: u32,
        /// Refreshes a second.
        hz: u32,
    },
}

impl From<ConnectionError> for ModeError {
    fn from(error: ConnectionError) -> Self {
        Self::Request(error.into())
    }
}

/// Gives the first output of the display (Xvfb has one, `screen`) a mode of this rate; `width` and `height` are those of the
/// screen. Programs that are connected are told by RandR.
///
/// # Errors
///
/// When the server has no RandR or does not take the mode.
pub fn set(connection: &impl Connection, root: Window, size: (u32, u32), hz: u32) -> Result<(), ModeError> {
    connection.randr_query_version(1, 3)?.reply()?;
    let resources = connection.randr_get_screen_resources(root)?.reply()?;
    let output = *resources.outputs.first().ok_or(ModeError::NoOutput)?;
    let state = connection.randr_get_output_info(output, resources.config_timestamp)?.reply()?;
    let crtc = state.crtcs.first().copied().filter(|_| state.crtc == 0).unwrap_or(state.crtc);
    if crtc == 0 {
        return Err(ModeError::NoOutput);
    }
    let name = format!("{}x{}@{hz}", size.0, size.1);
    let mode = match named(&resources, name.as_bytes()) {
        Some(mode) => mode,
        None => {
            let info =
                mode_info(size, hz, name.len()).ok_or(ModeError::Impossible { width: size.0, height: size.1, hz })?;
            connection.randr_create_mode(root, info, name.as_bytes())?.reply()?.mode
        }
    };
    if !state.modes.contains(&mode) {
        connection.randr_add_output_mode(output, mode)?.check()?;
    }
    // A new mode changes the configuration: the time of the one that is changed is asked for again.
    let configured = connection.randr_get_screen_resources(root)?.reply()?.config_timestamp;
    let taken = connection
        .randr_set_crtc_config(crtc, CURRENT_TIME, configured, 0, 0, mode, Rotation::ROTATE0, &[output])?
        .reply()?;
    if taken.status == SetConfig::SUCCESS { Ok(()) } else { Err(ModeError::NotTaken(taken.status.into())) }
}

/// The mode of this name. The names of all modes are one string, in the order of the modes.
fn named(resources: &GetScreenResourcesReply, name: &[u8]) -> Option<Mode> {
    let mut names = resources.names.as_slice();
    resources.modes.iter().find_map(|mode| {
        let (this, rest) = names.split_at_checked(usize::from(mode.name_len))?;
        names = rest;
        (this == name).then_some(mode.id)
    })
}

/// `None`: beyond what a mode can say.
fn mode_info((width, height): (u32, u32), hz: u32, name_len: usize) -> Option<ModeInfo> {
    let short = |number: u32| u16::try_from(number).ok();
    let (columns, rows) = (width.checked_add(BLANK_COLUMNS)?, height.checked_add(BLANK_ROWS)?);
    let dot_clock = u64::from(columns) * u64::from(rows) * u64::from(hz);
    Some(ModeInfo {
        id: 0,
        width: short(width)?,
        height: short(height)?,
        dot_clock: u32::try_from(dot_clock).ok()?,
        hsync_start: short(width + 48)?,
        hsync_end: short(width + 80)?,
        htotal: short(columns)?,
        hskew: 0,
        vsync_start: short(height + 3)?,
        vsync_end: short(height + 8)?,
        vtotal: short(rows)?,
        name_len: u16::try_from(name_len).ok()?,
        mode_flags: ModeFlag::from(0u32),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_says_the_rate_that_was_asked_for() {
        for (size, hz) in [((1280, 720), 30), ((1920, 1080), 60), ((854, 480), 25), ((3840, 2160), 60)] {
            let info = mode_info(size, hz, 11).unwrap();
            assert_eq!(info.dot_clock, hz * u32::from(info.htotal) * u32::from(info.vtotal));
            assert_eq!((u32::from(info.width), u32::from(info.height), info.name_len), (size.0, size.1, 11));
            assert!(info.width < info.hsync_start && info.hsync_end < info.htotal);
            assert!(info.height < info.vsync_start && info.vsync_end < info.vtotal);
        }
        assert!(mode_info((65_500, 100), 30, 1).is_none());
        assert!(mode_info((16_000, 16_000), 60, 1).is_none());
    }

    #[test]
    fn a_mode_is_found_by_its_name() {
        let mode = |id, name_len| ModeInfo { id, ..mode_info((640, 480), 30, name_len).unwrap() };
        let resources = GetScreenResourcesReply {
            modes: vec![mode(7, 7), mode(8, 10), mode(9, 10)],
            names: b"640x480640x480@30640x480@60".to_vec(),
            ..Default::default()
        };
        assert_eq!(named(&resources, b"640x480@60"), Some(9));
        assert_eq!(named(&resources, b"640x480"), Some(7));
        assert_eq!(named(&resources, b"640x480@25"), None);
    }
}
