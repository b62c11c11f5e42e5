//! NAL units of H264 and H265, as both the receiver and the MP4 writer read them; `Bits` reads headers of other codecs too.
//! Pure.

mod sps;
mod bits;
mod unescape;

pub(crate) use self::bits::Bits;
pub(crate) use self::sps::{h264_size, h265_size};
pub(crate) use self::unescape::unescaped;
