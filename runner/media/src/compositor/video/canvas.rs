//! Tiles onto the canvas: rows copied where nothing is scaled, means of two by two samples where a picture is twice as large
//! as its tile, else scaled straight into it, without a picture in between. Runs in the picture mixer's thread; I420 only.

use std::sync::Arc;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;

use crate::compositor::decode::VideoFrame;
use crate::compositor::policy::layout::{Rect, Size, TileDrawing};

/// Why a picture cannot be made. None of these passes by itself.
#[derive(Debug, thiserror::Error)]
pub enum CanvasError {
    /// No canvas can have this size.
    #[error("no canvas of {width}x{height}")]
    Impossible {
        /// Pixels of a row.
        width: u32,
        /// Rows.
        height: u32,
        /// What GStreamer says.
        source: gst::glib::BoolError,
    },
    /// No memory for another picture.
    #[error("no memory for another picture")]
    NoMemory {
        /// What GStreamer says.
        source: gst::FlowError,
    },
    /// The canvas cannot be written.
    #[error("write into the canvas")]
    Map {
        /// What GStreamer says.
        source: gst::glib::BoolError,
    },
}

/// Where canvases come from.
pub struct FramePool {
    info: gst_video::VideoInfo,
    pool: gst_video::VideoBufferPool,
    ground: [u8; 3],
}

impl FramePool {
    /// `light`: the ground is white.
    ///
    /// # Errors
    ///
    /// When no pool of such buffers can be made (a size of zero).
    pub fn new(size: Size, light: bool) -> Result<Self, CanvasError> {
        let Size { width, height } = size;
        let impossible = |source| CanvasError::Impossible { width, height, source };
        let info =
            gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, width, height).build().map_err(impossible)?;
        let caps = info.to_caps().map_err(impossible)?;
        let pool = gst_video::VideoBufferPool::new();
        let mut config = pool.config();
        config.set_params(Some(&caps), info.size() as u32, 4, 0);
        pool.set_config(config).map_err(impossible)?;
        pool.set_active(true).map_err(impossible)?;
        let mut frame_pool = Self { info, pool, ground: [0; 3] };
        frame_pool.set_ground(light);
        Ok(frame_pool)
    }

    /// White or black, from the next canvas on.
    pub fn set_ground(&mut self, light: bool) {
        // Video range: 16 is black, 235 white.
        self.ground = [if light { 235 } else { 16 }, 128, 128];
    }

    /// A canvas whose content is undefined.
    ///
    /// # Errors
    ///
    /// When there is no memory.
    pub fn canvas(&self) -> Result<gst::Buffer, CanvasError> {
        self.pool.acquire_buffer(None).map_err(|source| CanvasError::NoMemory { source })
    }

    /// Format and size of every canvas.
    pub fn info(&self) -> &gst_video::VideoInfo {
        &self.info
    }

    /// Opens a canvas for painting.
    ///
    /// # Errors
    ///
    /// When the buffer cannot be mapped for writing.
    pub fn open<'a>(&'a self, buffer: &'a mut gst::BufferRef) -> Result<Canvas<'a>, CanvasError> {
        let frame = gst_video::VideoFrameRef::from_buffer_ref_writable(buffer, &self.info)
            .map_err(|source| CanvasError::Map { source })?;
        Ok(Canvas { frame, ground: self.ground })
    }
}

impl Drop for FramePool {
    fn drop(&mut self) {
        let _ = self.pool.set_active(false);
    }
}

/// A canvas that is painted on.
pub struct Canvas<'a> {
    frame: gst_video::VideoFrameRef<&'a mut gst::BufferRef>,
    ground: [u8; 3],
}

impl Canvas<'_> {
    /// Fills a rectangle with the ground.
    pub fn clear(&mut self, rect: Rect) {
        for plane in 0..3 {
            let area = Area::of(rect, plane);
            let stride = self.frame.plane_stride()[plane] as usize;
            let value = self.ground[plane];
            let Ok(data) = self.frame.plane_data_mut(plane as u32) else { return };
            for row in 0..area.height {
                data[(area.y + row) * stride + area.x..][..area.width].fill(value);
            }
        }
    }

    /// Rows of `source`, from `crop`, to `dest`: both of one size.
    pub fn copy<T>(&mut self, source: &gst_video::VideoFrameRef<T>, crop: Rect, dest: Rect) {
        for plane in 0..3 {
            let (from, to) = (Area::of(crop, plane), Area::of(dest, plane));
            let (from_stride, to_stride) =
                (source.plane_stride()[plane] as usize, self.frame.plane_stride()[plane] as usize);
            let Ok(read) = source.plane_data(plane as u32) else { return };
            let Ok(write) = self.frame.plane_data_mut(plane as u32) else { return };
            for row in 0..to.height {
                let line = &read[(from.y + row) * from_stride + from.x..][..to.width];
                write[(to.y + row) * to_stride + to.x..][..to.width].copy_from_slice(line);
            }
        }
    }

    /// `crop` of `source` to `dest`, which is half as wide and half as high. GStreamer's scaler reads four samples by their
    /// indices for each one of a row (`video_scale_h_ntap_u8`), one after the other.
    pub fn halve<T>(&mut self, source: &gst_video::VideoFrameRef<T>, crop: Rect, dest: Rect) {
        for plane in 0..3 {
            let (from, to) = (Area::of(crop, plane), Area::of(dest, plane));
            let (from_stride, to_stride) =
                (source.plane_stride()[plane] as usize, self.frame.plane_stride()[plane] as usize);
            let Ok(read) = source.plane_data(plane as u32) else { return };
            let Ok(write) = self.frame.plane_data_mut(plane as u32) else { return };
            for row in 0..to.height {
                let line = |index: usize| &read[(from.y + index) * from_stride + from.x..][..2 * to.width];
                let write = &mut write[(to.y + row) * to_stride + to.x..][..to.width];
                halve_row(line(2 * row), line(2 * row + 1), write);
            }
        }
    }
}

/// Whether two pictures are equal to the sample; only those of I420 are compared. A camera's noise differs in the first rows,
/// so the whole of a picture is only read (0.2 ms for 720p) where composing and encoding it (3 to 6 ms) can be saved.
pub fn is_same_picture(one: &VideoFrame, other: &VideoFrame) -> bool {
    if one.info != other.info || one.info.format() != gst_video::VideoFormat::I420 {
        return false;
    }
    let (Some(one), Some(other)) = (readable(one), readable(other)) else { return false };
    (0..3u32).all(|plane| {
        let index = plane as usize;
        let (width, height) = (one.comp_width(plane) as usize, one.comp_height(plane) as usize);
        let (one_stride, other_stride) = (one.plane_stride()[index] as usize, other.plane_stride()[index] as usize);
        let (Ok(one), Ok(other)) = (one.plane_data(plane), other.plane_data(plane)) else { return false };
        // The last row need not have its whole stride.
        let mut rows = one.chunks(one_stride.max(1)).zip(other.chunks(other_stride.max(1))).take(height);
        rows.all(|(one, other)| match (one.get(..width), other.get(..width)) {
            (Some(one), Some(other)) => one == other,
            _ => false,
        })
    })
}

fn readable(picture: &VideoFrame) -> Option<gst_video::VideoFrameRef<&gst::BufferRef>> {
    gst_video::VideoFrameRef::from_buffer_ref_readable(&picture.buffer, &picture.info).ok()
}

/// Each sample of `to` is the mean of two by two. Written so that the compiler makes vector code of it.
fn halve_row(upper: &[u8], lower: &[u8], to: &mut [u8]) {
    for ((upper, lower), to) in upper.chunks_exact(2).zip(lower.chunks_exact(2)).zip(to) {
        let sum = u16::from(upper[0]) + u16::from(upper[1]) + u16::from(lower[0]) + u16::from(lower[1]);
        *to = ((sum + 2) / 4) as u8;
    }
}

/// A rectangle in samples of one plane.
struct Area {
    x: usize,
    y: usize,
    width: usize,
    height: usize,
}

impl Area {
    fn of(rect: Rect, plane: usize) -> Self {
        let shift = if plane == 0 { 0 } else { 1 };
        let samples = |length: u32| (length >> shift) as usize;
        Self { x: samples(rect.x), y: samples(rect.y), width: samples(rect.width), height: samples(rect.height) }
    }
}

/// Draws one track, and keeps its scaler while neither the source nor the place changes.
#[derive(Default)]
pub struct TileScaler {
    scaler: Option<(Arc<gst_video::VideoInfo>, TileDrawing, gst_video::VideoConverter)>,
}

impl TileScaler {
    /// False: the picture cannot be drawn (a format without a way to I420); its place is left as it was.
    pub fn draw(
        &mut self,
        canvas: &mut Canvas<'_>,
        picture: &VideoFrame,
        drawn: TileDrawing,
        onto: &gst_video::VideoInfo,
    ) -> bool {
        let Some(source) = readable(picture) else { return false };
        if picture.info.format() == gst_video::VideoFormat::I420 && !is_full_range(&picture.info) {
            if drawn.is_exact() {
                canvas.copy(&source, drawn.crop, drawn.dest);
                return true;
            }
            if drawn.is_half() {
                canvas.halve(&source, drawn.crop, drawn.dest);
                return true;
            }
        }
        let same = |(info, at, _): &(Arc<gst_video::VideoInfo>, TileDrawing, _)| *info == picture.info && *at == drawn;
        if !self.scaler.as_ref().is_some_and(same) {
            self.scaler = scaler(&picture.info, drawn, onto).map(|scaler| (picture.info.clone(), drawn, scaler));
        }
        let Some((_, _, scaler)) = &self.scaler else { return false };
        scaler.frame_ref(&source, &mut canvas.frame);
        true
    }
}

fn is_full_range(info: &gst_video::VideoInfo) -> bool {
    info.colorimetry().range() == gst_video::VideoColorRange::Range0_255
}

fn scaler(
    info: &gst_video::VideoInfo,
    drawn: TileDrawing,
    onto: &gst_video::VideoInfo,
) -> Option<gst_video::VideoConverter> {
    let mut config = gst_video::VideoConverterConfig::new();
    let whole = |length: u32| length as i32;
    config.set_src_x(whole(drawn.crop.x));
    config.set_src_y(whole(drawn.crop.y));
    config.set_src_width(Some(whole(drawn.crop.width)));
    config.set_src_height(Some(whole(drawn.crop.height)));
    config.set_dest_x(whole(drawn.dest.x));
    config.set_dest_y(whole(drawn.dest.y));
    config.set_dest_width(Some(whole(drawn.dest.width)));
    config.set_dest_height(Some(whole(drawn.dest.height)));
    config.set_fill_border(false);
    // The default is cubic: a quarter more work, and no difference to be seen.
    config.set_resampler_method(gst_video::VideoResamplerMethod::Linear);
    if 5 * drawn.crop.width <= 8 * drawn.dest.width && 5 * drawn.crop.height <= 8 * drawn.dest.height {
        // Up to 1.6 times larger than its tile (a layer of 640x360 in a grid of nine): between two neighbours, as browsers
        // draw a video. Of three or four, which it would take for what becomes smaller at all, the scaler reads each by its
        // index, one after the other.
        config.set_resampler_taps(2);
    }
    config.set_threads(1);
    let colorimetry = info.colorimetry();
    // The file is labelled with what tracks normally are; converting SD colour to HD colour would double the work.
    // Full range is different: unconverted it would be seen with crushed blacks.
    let colorimetry = if is_full_range(info) {
        gst_video::VideoColorimetry::new(
            gst_video::VideoColorRange::Range16_235,
            colorimetry.matrix(),
            colorimetry.transfer(),
            colorimetry.primaries(),
        )
    } else {
        config.set_matrix_mode(gst_video::VideoMatrixMode::None);
        colorimetry
    };
    // The converter refuses different rates and interlace modes; ours are only labels.
    let target = gst_video::VideoInfo::builder(onto.format(), onto.width(), onto.height())
        .fps(info.fps())
        .interlace_mode(info.interlace_mode())
        .colorimetry(&colorimetry)
        .build()
        .ok()?;
    gst_video::VideoConverter::new(info, &target, Some(config)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::MediaTime;

    const SIZE: (usize, usize) = (32, 4);

    /// Rows are `stride` bytes apart, and `behind` lies between them; every sample is `sample` but the last one.
    fn picture(sample: u8, last: u8, (stride, behind): (usize, u8)) -> VideoFrame {
        gst::init().unwrap();
        let (width, height) = SIZE;
        let format = gst_video::VideoFormat::I420;
        let info = gst_video::VideoInfo::builder(format, width as u32, height as u32).build().unwrap();
        let strides = [stride, stride / 2, stride / 2];
        let lengths = [stride * height, stride * height / 4, stride * height / 4];
        let offsets = [0, lengths[0], lengths[0] + lengths[1]];
        let mut data = vec![behind; lengths.iter().sum()];
        let mut end = 0;
        for (plane, (offset, stride)) in offsets.into_iter().zip(strides).enumerate() {
            let shift = usize::from(plane > 0);
            for row in 0..height >> shift {
                let begin = offset + row * stride;
                end = begin + (width >> shift);
                data[begin..end].fill(sample);
            }
        }
        data[end - 1] = last;
        let mut buffer = gst::Buffer::from_mut_slice(data);
        let flags = gst_video::VideoFrameFlags::empty();
        let strides = strides.map(|stride| stride as i32);
        let fresh = buffer.get_mut().unwrap();
        gst_video::VideoMeta::add_full(fresh, flags, format, width as u32, height as u32, &offsets, &strides).unwrap();
        VideoFrame { at: MediaTime::ZERO, buffer, info: Arc::new(info) }
    }

    /// A camera without layers in a grid of four: its picture is twice as large as its tile.
    #[test]
    fn a_picture_twice_as_large_as_its_tile_is_drawn_as_means() {
        gst::init().unwrap();
        let rect = |x, y, width, height| Rect { x, y, width, height };
        let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, 64, 32).build().unwrap();
        let data: Vec<u8> = (0..info.size()).map(|n| (n * 37 % 251) as u8).collect();
        let picture = VideoFrame {
            at: MediaTime::ZERO,
            buffer: gst::Buffer::from_mut_slice(data.clone()),
            info: Arc::new(info.clone()),
        };
        let pool = FramePool::new(Size { width: 64, height: 32 }, false).unwrap();
        let mut buffer = pool.canvas().unwrap();
        let drawn = TileDrawing { crop: rect(8, 4, 40, 20), dest: rect(12, 6, 20, 10) };
        {
            let mut canvas = pool.open(buffer.make_mut()).unwrap();
            canvas.clear(rect(0, 0, 64, 32));
            assert!(TileScaler::default().draw(&mut canvas, &picture, drawn, pool.info()));
        }
        let shown = gst_video::VideoFrameRef::from_buffer_ref_readable(&buffer, pool.info()).unwrap();
        for plane in 0..3usize {
            let (crop, dest) = (Area::of(drawn.crop, plane), Area::of(drawn.dest, plane));
            let stride = shown.plane_stride()[plane] as usize;
            let of = |x: usize, y: usize| u32::from(data[info.offset()[plane] + y * info.stride()[plane] as usize + x]);
            let (width, height) = (stride.min(64 >> usize::from(plane > 0)), 32 >> usize::from(plane > 0));
            for (x, y) in (0..height).flat_map(|y| (0..width).map(move |x| (x, y))) {
                let is_inside =
                    (dest.x..dest.x + dest.width).contains(&x) && (dest.y..dest.y + dest.height).contains(&y);
                let wanted = if is_inside {
                    let (left, top) = (crop.x + 2 * (x - dest.x), crop.y + 2 * (y - dest.y));
                    let sum = of(left, top) + of(left + 1, top) + of(left, top + 1) + of(left + 1, top + 1);
                    ((sum + 2) / 4) as u8
                } else {
                    pool.ground[plane]
                };
                assert_eq!(shown.plane_data(plane as u32).unwrap()[y * stride + x], wanted, "plane {plane} at {x},{y}");
            }
        }
    }

    #[test]
    fn a_picture_a_little_larger_than_its_tile_is_interpolated() {
        gst::init().unwrap();
        let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, 80, 40).build().unwrap();
        let mut data = vec![128; info.size()];
        for row in data[..80 * 40].chunks_exact_mut(80) {
            row.iter_mut().zip(0u8..).for_each(|(luma, x)| *luma = 40 + 2 * x);
        }
        let (at, buffer) = (MediaTime::ZERO, gst::Buffer::from_mut_slice(data));
        let picture = VideoFrame { at, buffer, info: Arc::new(info) };
        let pool = FramePool::new(Size { width: 64, height: 32 }, false).unwrap();
        let mut buffer = pool.canvas().unwrap();
        let rect = |width, height| Rect { x: 0, y: 0, width, height };
        let drawn = TileDrawing { crop: rect(80, 40), dest: rect(64, 32) };
        {
            let mut canvas = pool.open(buffer.make_mut()).unwrap();
            assert!(TileScaler::default().draw(&mut canvas, &picture, drawn, pool.info()));
        }
        let shown = gst_video::VideoFrameRef::from_buffer_ref_readable(&buffer, pool.info()).unwrap();
        let stride = shown.plane_stride()[0] as usize;
        for row in shown.plane_data(0).unwrap().chunks(stride).take(32) {
            for (x, luma) in row[..64].iter().enumerate() {
                let wanted = 40.0 + 2.0 * (x as f64 * 79.0 / 63.0);
                assert!((f64::from(*luma) - wanted).abs() <= 2.5, "{luma} instead of {wanted} at {x}");
            }
        }
    }

    #[test]
    fn pictures_are_compared_by_what_is_seen() {
        let (narrow, wide) = ((32, 0), (48, 200));
        assert!(is_same_picture(&picture(60, 60, narrow), &picture(60, 60, wide)));
        assert!(!is_same_picture(&picture(60, 60, narrow), &picture(61, 61, narrow)));
        assert!(!is_same_picture(&picture(60, 60, narrow), &picture(60, 61, wide)), "one sample of chroma");
    }
}
