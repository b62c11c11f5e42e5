//! Many small pictures side by side in one JPEG. In: I420 pictures of one size, and where each goes. Out: the bytes of the
//! file. Runs in the caller's thread, which waits for the encoder.

use bytes::Bytes;
use gstreamer as gst;
use gstreamer_video as gst_video;
use spillway_plan::ImageCodec;

use super::image::{ImageEncoder, info};
use crate::element::{PipelineError, build};

/// Of video: luma and chroma.
const BLACK: [u8; 3] = [16, 128, 128];

/// A large picture that is put together of tiles; black where none was put.
pub struct SheetCanvas {
    tile: gst_video::VideoInfo,
    sheet: gst_video::VideoInfo,
    data: Vec<u8>,
}

/// One plane of a picture within its bytes.
struct PlaneLayout {
    offset: usize,
    stride: usize,
    width: usize,
    height: usize,
}

impl SheetCanvas {
    /// For tiles of this size, on a sheet of this size, in pixels; all even.
    ///
    /// # Errors
    ///
    /// When a size is impossible.
    pub fn new(tile: (u32, u32), size: (u32, u32)) -> Result<Self, PipelineError> {
        let (tile, sheet) = (info(tile)?, info(size)?);
        let mut canvas = Self { data: vec![0; sheet.size()], tile, sheet };
        canvas.clear();
        Ok(canvas)
    }

    /// All of it is black.
    pub fn clear(&mut self) {
        for (plane, black) in planes(&self.sheet).into_iter().zip(BLACK) {
            let end = (plane.offset + plane.stride * plane.height).min(self.data.len());
            if let Some(bytes) = self.data.get_mut(plane.offset..end) {
                bytes.fill(black);
            }
        }
    }

    /// Puts a tile with its left upper corner at `at`, in pixels; both even.
    ///
    /// # Errors
    ///
    /// When the tile has less pixels than that. What would lie outside is left out.
    pub fn put(&mut self, tile: &gst::BufferRef, at: (u32, u32)) -> Result<(), PipelineError> {
        let tile = tile.map_readable().map_err(build)?;
        copy((tile.as_slice(), &self.tile), (self.data.as_mut_slice(), &self.sheet), at)
    }

    /// The upper part, so many pixels high, as a JPEG file.
    ///
    /// # Errors
    ///
    /// When an element is missing or broke, or the height is impossible.
    pub fn jpeg(&self, height: u32) -> Result<Bytes, PipelineError> {
        let size = (self.sheet.width(), height.min(self.sheet.height()));
        let upper = info(size)?;
        let mut data = vec![0; upper.size()];
        copy((self.data.as_slice(), &self.sheet), (data.as_mut_slice(), &upper), (0, 0))?;
        jpeg(&gst::Buffer::from_mut_slice(data), size)
    }
}

/// A picture of this size, in pixels, as a JPEG file.
///
/// # Errors
///
/// When an element is missing or broke, or the picture is of another size.
pub fn jpeg(picture: &gst::BufferRef, size: (u32, u32)) -> Result<Bytes, PipelineError> {
    ImageEncoder::new(ImageCodec::Jpeg, size, size)?.encode(picture, 0)
}

/// How much there is to see in a picture of this size: the variance of its luma. A picture of one colour has none.
///
/// # Errors
///
/// When the picture has another size.
pub fn contrast(picture: &gst::BufferRef, size: (u32, u32)) -> Result<u64, PipelineError> {
    let info = info(size)?;
    let data = picture.map_readable().map_err(build)?;
    let [luma, ..] = planes(&info);
    let rows = (0..luma.height).filter_map(|row| {
        let begin = luma.offset + row * luma.stride;
        data.as_slice().get(begin..begin + luma.width)
    });
    let (mut count, mut sum, mut squares) = (0u64, 0u64, 0u64);
    for sample in rows.flatten().map(|sample| u64::from(*sample)) {
        (count, sum, squares) = (count + 1, sum + sample, squares + sample * sample);
    }
    let count = count.max(1);
    Ok((squares / count).saturating_sub((sum / count) * (sum / count)))
}

fn planes(info: &gst_video::VideoInfo) -> [PlaneLayout; 3] {
    [0u8, 1, 2].map(|plane| {
        let index = usize::from(plane);
        PlaneLayout {
            offset: info.offset().get(index).copied().unwrap_or_default(),
            stride: info.stride().get(index).and_then(|stride| usize::try_from(*stride).ok()).unwrap_or_default(),
            width: info.comp_width(plane) as usize,
            height: info.comp_height(plane) as usize,
        }
    })
}

/// As much of a picture as there is room for in another one.
fn copy(
    (from, from_info): (&[u8], &gst_video::VideoInfo),
    (to, to_info): (&mut [u8], &gst_video::VideoInfo),
    (x, y): (u32, u32),
) -> Result<(), PipelineError> {
    let short = || build("a picture has another size");
    for (index, (from_plane, to_plane)) in planes(from_info).into_iter().zip(planes(to_info)).enumerate() {
        // Chroma has half of the pixels in both directions.
        let share = if index == 0 { 1 } else { 2 };
        let (x, y) = (x as usize / share, y as usize / share);
        let width = from_plane.width.min(to_plane.width.saturating_sub(x));
        for row in 0..from_plane.height.min(to_plane.height.saturating_sub(y)) {
            let source = from_plane.offset + row * from_plane.stride;
            let target = to_plane.offset + (y + row) * to_plane.stride + x;
            let source = from.get(source..source + width).ok_or_else(short)?;
            to.get_mut(target..target + width).ok_or_else(short)?.copy_from_slice(source);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TILE: (u32, u32) = (90, 50);

    /// All luma is this.
    fn tile(luma: u8) -> gst::Buffer {
        let info = info(TILE).unwrap();
        let mut data = vec![128; info.size()];
        let [plane, ..] = planes(&info);
        data[..plane.stride * plane.height].fill(luma);
        gst::Buffer::from_mut_slice(data)
    }

    #[test]
    fn tiles_stand_where_they_are_put() {
        gst::init().unwrap();
        let mut canvas = SheetCanvas::new(TILE, (180, 100)).unwrap();
        canvas.put(&tile(100), (0, 0)).unwrap();
        canvas.put(&tile(200), (90, 50)).unwrap();
        let [plane, ..] = planes(&canvas.sheet);
        let at = |canvas: &SheetCanvas, x: usize, y: usize| canvas.data[plane.offset + y * plane.stride + x];
        let corners = [(0, 0), (89, 49), (90, 49), (89, 50), (90, 50), (179, 99)];
        assert_eq!(corners.map(|(x, y)| at(&canvas, x, y)), [100, 100, 16, 16, 200, 200]);
        canvas.clear();
        assert_eq!(corners.map(|(x, y)| at(&canvas, x, y)), [16; 6]);
    }

    #[test]
    fn the_upper_part_becomes_a_file() {
        gst::init().unwrap();
        let canvas = SheetCanvas::new(TILE, (180, 100)).unwrap();
        for height in [50, 100] {
            let file = canvas.jpeg(height).unwrap();
            assert!(file.starts_with(b"\xff\xd8\xff"), "{height}");
            // SOF0: precision, height, width.
            let sof = file.windows(4).position(|bytes| bytes[..2] == [0xff, 0xc0]).unwrap();
            let said = |at: usize| u32::from(u16::from_be_bytes([file[sof + at], file[sof + at + 1]]));
            assert_eq!((said(7), said(5)), (180, height));
        }
    }

    #[test]
    fn a_picture_of_one_colour_has_no_contrast() {
        gst::init().unwrap();
        assert_eq!(contrast(&tile(16), TILE).unwrap(), 0);
        let mut half = tile(16);
        half.make_mut().map_writable().unwrap()[..92 * 25].fill(216);
        assert!(contrast(&half, TILE).unwrap() > 9000);
    }
}
