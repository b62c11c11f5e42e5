//! The page's picture as I420, kept, of which what was damaged is painted anew. In: rows of the display as BGRX, four bytes a
//! pixel. Out: copies of the whole picture. Runs in the capture thread.

use std::io;

use yuv::{
    BufferStoreMut, YuvConversionMode, YuvError, YuvPlanarImageMut, YuvRange, YuvStandardMatrix, bgra_to_yuv420,
};

/// Bytes of a pixel of the display.
pub const PIXEL_BYTES: u32 = 4;
/// Rows are read and converted in pieces of about this size, which stay in the processor's L2 cache in between.
const BAND_BYTES: u32 = 256 * 1024;

/// Why rows could not be painted.
#[derive(Debug, thiserror::Error)]
pub enum PaintError {
    /// The display's memory cannot be read.
    #[error("read the memory shared with the X server")]
    Read(#[source] io::Error),
    /// The sizes do not fit; a fault of ours.
    #[error("convert rows to I420")]
    Convert(#[from] YuvError),
}

/// A picture of even width and height in GStreamer's layout of I420.
pub struct I420Canvas {
    width: u32,
    luma_stride: u32,
    chroma_stride: u32,
    /// Where U and V begin.
    chroma: [usize; 2],
    data: Vec<u8>,
    band: Vec<u8>,
}

impl I420Canvas {
    /// Black. Width and height are even.
    pub fn new(width: u32, height: u32) -> Self {
        let luma_stride = width.next_multiple_of(4);
        let chroma_stride = (width / 2).next_multiple_of(4);
        let luma_bytes = luma_stride as usize * height as usize;
        let chroma_bytes = chroma_stride as usize * (height as usize / 2);
        let mut data = vec![128; luma_bytes + 2 * chroma_bytes];
        data[..luma_bytes].fill(16);
        let chroma = [luma_bytes, luma_bytes + chroma_bytes];
        Self { width, luma_stride, chroma_stride, chroma, data, band: Vec::new() }
    }

    /// The whole picture.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Paints rows from `first` on; both numbers are even, and the rows are within the picture. `read` fills a buffer with
    /// BGRX from a byte offset, counted from the first of these rows. Whole rows: yuv's loops leave out the last row of a
    /// plane that begins in the middle of one.
    ///
    /// # Errors
    ///
    /// When `read` fails, which leaves the picture partly painted.
    pub fn paint_rows(
        &mut self,
        first: u32,
        rows: u32,
        mut read: impl FnMut(&mut [u8], u64) -> io::Result<()>,
    ) -> Result<(), PaintError> {
        let stride = self.width * PIXEL_BYTES;
        let band_rows = (BAND_BYTES / stride / 2 * 2).max(2);
        let mut done = 0;
        while done < rows {
            let count = band_rows.min(rows - done);
            self.band.resize(stride as usize * count as usize, 0);
            read(&mut self.band, u64::from(stride) * u64::from(done)).map_err(PaintError::Read)?;
            self.convert(first + done, count)?;
            done += count;
        }
        Ok(())
    }

    /// The band is the rows from `first` on.
    fn convert(&mut self, first: u32, rows: u32) -> Result<(), YuvError> {
        let [u_begin, v_begin] = self.chroma;
        let (luma, chroma) = self.data.split_at_mut(u_begin);
        let (u, v) = chroma.split_at_mut(v_begin - u_begin);
        let luma_row = self.luma_stride as usize * first as usize;
        let chroma_row = self.chroma_stride as usize * (first as usize / 2);
        let mut image = YuvPlanarImageMut {
            y_plane: BufferStoreMut::Borrowed(&mut luma[luma_row..]),
            y_stride: self.luma_stride,
            u_plane: BufferStoreMut::Borrowed(&mut u[chroma_row..]),
            u_stride: self.chroma_stride,
            v_plane: BufferStoreMut::Borrowed(&mut v[chroma_row..]),
            v_stride: self.chroma_stride,
            width: self.width,
            height: rows,
        };
        bgra_to_yuv420(
            &mut image,
            &self.band,
            self.width * PIXEL_BYTES,
            YuvRange::Limited,
            YuvStandardMatrix::Bt709,
            YuvConversionMode::Balanced,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// B, G, R, X.
    const WHITE: [u8; 4] = [255, 255, 255, 0];
    const RED: [u8; 4] = [0, 0, 255, 255];
    /// BT.709, limited range.
    const RED_I420: [u8; 3] = [63, 102, 240];

    fn near(found: u8, expected: u8) -> bool {
        found.abs_diff(expected) <= 1
    }

    /// Luma, U and V of the block of two by two pixels at this place.
    fn block(canvas: &I420Canvas, x: usize, y: usize) -> [u8; 3] {
        let luma = canvas.data[y * canvas.luma_stride as usize + x];
        let chroma = canvas.chroma.map(|begin| canvas.data[begin + y / 2 * canvas.chroma_stride as usize + x / 2]);
        [luma, chroma[0], chroma[1]]
    }

    fn painted(canvas: &mut I420Canvas, first: u32, rows: u32, pixel: impl Fn(usize, usize) -> [u8; 4]) {
        let width = canvas.width as usize;
        canvas
            .paint_rows(first, rows, |band, from| {
                for (index, out) in band.chunks_exact_mut(4).enumerate() {
                    let place = from as usize / 4 + index;
                    out.copy_from_slice(&pixel(place % width, place / width));
                }
                Ok(())
            })
            .unwrap();
    }

    #[test]
    fn the_layout_is_gstreamers() {
        use gstreamer_video::{VideoFormat, VideoInfo};
        gstreamer::init().unwrap();
        for (width, height) in [(1280, 720), (854, 480), (1918, 1080), (2, 2), (426, 240)] {
            let info = VideoInfo::builder(VideoFormat::I420, width, height).build().unwrap();
            let canvas = I420Canvas::new(width, height);
            assert_eq!(canvas.data.len(), info.size(), "{width}x{height}");
            assert_eq!(&info.offset()[1..3], &canvas.chroma);
            assert_eq!(info.stride()[0], canvas.luma_stride as i32);
            assert_eq!(info.stride()[1..3], [canvas.chroma_stride as i32; 2]);
        }
    }

    #[test]
    fn every_pixel_of_the_rows_is_painted_and_no_other() {
        // 854: padded rows. 4096: more than one band.
        for (width, height) in [(854, 480), (4096, 64), (64, 2)] {
            let mut canvas = I420Canvas::new(width, height);
            painted(&mut canvas, 0, height, |_, _| WHITE);
            let (first, rows) = (height / 4 / 2 * 2, height / 2 / 2 * 2 + 2 * u32::from(height == 2));
            painted(&mut canvas, first, rows, |_, _| RED);
            for y in 0..height as usize {
                let red = (first..first + rows).contains(&(y as u32));
                for x in 0..width as usize {
                    let found = block(&canvas, x, y);
                    let expected = if red { RED_I420 } else { [235, 128, 128] };
                    let same = found.iter().zip(expected).all(|(found, expected)| near(*found, expected));
                    assert!(same, "{found:?} at {x},{y} of {width}x{height}");
                }
            }
        }
    }

    #[test]
    fn pixels_stay_in_their_places() {
        let mut canvas = I420Canvas::new(854, 480);
        // Luma rises to the right and downwards, over several bands.
        let grey = |x: usize, y: usize| [((x / 4 + y / 4) % 256) as u8; 4];
        painted(&mut canvas, 0, 480, grey);
        for (x, y) in [(0, 0), (853, 0), (0, 479), (853, 479), (400, 306), (401, 307), (852, 200)] {
            let expected = 16.0 + f32::from(grey(x, y)[0]) * 219.0 / 255.0;
            let [luma, u, v] = block(&canvas, x, y);
            assert!((f32::from(luma) - expected).abs() <= 1.5, "{luma} for {expected} at {x},{y}");
            assert!(near(u, 128) && near(v, 128));
        }
    }
}
