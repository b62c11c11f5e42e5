//! One raw picture becomes one JPEG, PNG or WebP file. In: I420 pictures of one size, in the caller's thread, which waits for
//! each. Out: the bytes of the file. Scaled keeping its proportions, the rest black. The encoders are GStreamer's, in a small
//! pipeline of their own: 1.2 ms for a JPEG of 1280×720, 9 to 18 ms for a PNG, 37 ms for a WebP; no crate is needed.

use bytes::Bytes;
use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use spillway_plan::ImageCodec;

use super::chain::{copied, filter, whole};
use crate::element::{PipelineError, build, element_error, make};

/// How long one picture may take on a starved machine.
const ENCODE_TIMEOUT: gst::ClockTime = gst::ClockTime::from_seconds(10);

/// Encodes pictures of one size. Dropping it stops its threads.
pub struct ImageEncoder {
    codec: ImageCodec,
    scaler: ImageScaler,
    pipeline: gst::Pipeline,
    appsrc: gst_app::AppSrc,
    appsink: gst_app::AppSink,
}

impl ImageEncoder {
    /// For I420 pictures of the size `from` that become images of the size `to`, both in pixels.
    ///
    /// # Errors
    ///
    /// When an element is missing or a size is impossible.
    pub fn new(codec: ImageCodec, from: (u32, u32), to: (u32, u32)) -> Result<Self, PipelineError> {
        let scaler = ImageScaler::new(from, to)?;
        let (width, height) = to;
        let caps = gst::Caps::builder("video/x-raw")
            .field("format", "I420")
            .field("width", whole(width))
            .field("height", whole(height))
            .field("framerate", gst::Fraction::new(1, 1))
            .field("pixel-aspect-ratio", gst::Fraction::new(1, 1))
            .field("interlace-mode", "progressive")
            .field("colorimetry", "bt601")
            .build();
        let appsrc = copied(caps);
        let appsink = gst_app::AppSink::builder().sync(false).build();
        let mut chain: Vec<gst::Element> = vec![appsrc.clone().upcast()];
        match codec {
            ImageCodec::Jpeg => chain.push(make("jpegenc", |e| e)?),
            ImageCodec::Png => {
                let rgb = gst::Caps::builder("video/x-raw").field("format", "RGB").build();
                chain.extend([make("videoconvert", |c| c)?, filter(&rgb)?, make("pngenc", |e| e)?]);
            }
            ImageCodec::Webp => chain.push(make("webpenc", |e| e)?),
        }
        chain.push(appsink.clone().upcast());
        let pipeline = gst::Pipeline::new();
        pipeline.add_many(&chain).map_err(build)?;
        gst::Element::link_many(&chain).map_err(build)?;
        let encoder = Self { codec, scaler, pipeline, appsrc, appsink };
        encoder.pipeline.set_state(gst::State::Playing).map_err(build)?;
        Ok(encoder)
    }

    /// The whole file. `at_ns` rises from picture to picture.
    ///
    /// # Errors
    ///
    /// When the picture is of another size, or an element broke. The encoder is of no use then.
    pub fn encode(&self, picture: &gst::BufferRef, at_ns: u64) -> Result<Bytes, PipelineError> {
        let mut scaled = self.scaler.scale(picture)?;
        let fresh = scaled.make_mut();
        fresh.set_pts(gst::ClockTime::from_nseconds(at_ns));
        if self.codec == ImageCodec::Jpeg {
            let frame = gst_video::VideoFrameRef::from_buffer_ref_writable(fresh, &self.scaler.to);
            widen(&mut frame.map_err(build)?);
        }
        self.appsrc.push_buffer(scaled).map_err(|_| self.fault("takes no picture"))?;
        let sample =
            self.appsink.try_pull_sample(ENCODE_TIMEOUT).ok_or_else(|| self.fault("no image came of a picture"))?;
        let buffer = sample.buffer_owned().ok_or_else(|| self.fault("an empty image"))?;
        let data = buffer.into_mapped_buffer_readable().map_err(|_| self.fault("an image that cannot be read"))?;
        Ok(Bytes::from_owner(data))
    }

    /// What the bus says; else `otherwise`.
    fn fault(&self, otherwise: &str) -> PipelineError {
        let message = self.pipeline.bus().and_then(|bus| bus.pop_filtered(&[gst::MessageType::Error]));
        match message.as_ref().map(|message| message.view()) {
            Some(gst::MessageView::Error(error)) => element_error(error),
            _ => PipelineError::Element { element: "image encoder".to_owned(), message: otherwise.to_owned() },
        }
    }
}

impl Drop for ImageEncoder {
    fn drop(&mut self) {
        // Going down cannot fail for these elements.
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// Makes I420 pictures of one size into such of another, keeping their proportions; the rest is black.
pub struct ImageScaler {
    from: gst_video::VideoInfo,
    to: gst_video::VideoInfo,
    converter: gst_video::VideoConverter,
}

impl ImageScaler {
    /// Both sizes in pixels.
    ///
    /// # Errors
    ///
    /// When a size is impossible.
    pub fn new(from: (u32, u32), to: (u32, u32)) -> Result<Self, PipelineError> {
        let (from, to) = (info(from)?, info(to)?);
        let converter = converter(&from, &to)?;
        Ok(Self { from, to, converter })
    }

    /// A picture of the other size, without a time.
    ///
    /// # Errors
    ///
    /// When the picture is not of the size it was said to be.
    pub fn scale(&self, picture: &gst::BufferRef) -> Result<gst::Buffer, PipelineError> {
        let mut scaled = gst::Buffer::with_size(self.to.size()).map_err(build)?;
        {
            let source = gst_video::VideoFrameRef::from_buffer_ref_readable(picture, &self.from).map_err(build)?;
            let fresh = scaled.make_mut();
            let mut frame = gst_video::VideoFrameRef::from_buffer_ref_writable(fresh, &self.to).map_err(build)?;
            self.converter.frame_ref(&source, &mut frame);
        }
        Ok(scaled)
    }
}

/// The layout of I420 pictures of a size in a buffer.
pub(super) fn info((width, height): (u32, u32)) -> Result<gst_video::VideoInfo, PipelineError> {
    // The same for every size: nothing is converted from SD to HD colour.
    let colorimetry = gst_video::VideoColorimetry::new(
        gst_video::VideoColorRange::Range16_235,
        gst_video::VideoColorMatrix::Bt601,
        gst_video::VideoTransferFunction::Bt709,
        gst_video::VideoColorPrimaries::Smpte170m,
    );
    let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, width, height).colorimetry(&colorimetry);
    info.build().map_err(build)
}

fn converter(
    from: &gst_video::VideoInfo,
    to: &gst_video::VideoInfo,
) -> Result<gst_video::VideoConverter, PipelineError> {
    let placed = letterbox((from.width(), from.height()), (to.width(), to.height()));
    let mut config = gst_video::VideoConverterConfig::new();
    config.set_dest_x(whole(placed.x));
    config.set_dest_y(whole(placed.y));
    config.set_dest_width(Some(whole(placed.width)));
    config.set_dest_height(Some(whole(placed.height)));
    config.set_fill_border(true);
    config.set_resampler_method(gst_video::VideoResamplerMethod::Linear);
    config.set_threads(1);
    gst_video::VideoConverter::new(from, to, Some(config)).map_err(build)
}

/// Where a picture stands in an image of other proportions, pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PictureArea {
    x: u32,
    y: u32,
    width: u32,
    height: u32,
}

/// As large as it fits, in the middle, on even pixels where it does not fill the image.
fn letterbox((width, height): (u32, u32), (to_width, to_height): (u32, u32)) -> PictureArea {
    let (wide, high) = (u64::from(width) * u64::from(to_height), u64::from(height) * u64::from(to_width));
    let even = |length: u64, full: u32| match u32::try_from(length).unwrap_or(full) {
        length if length >= full => full,
        length => (length & !1).max(2).min(full),
    };
    let (width, height) = if wide >= high {
        (to_width, even(high / u64::from(width.max(1)), to_height))
    } else {
        (even(wide / u64::from(height.max(1)), to_width), to_height)
    };
    PictureArea { x: ((to_width - width) / 2) & !1, y: ((to_height - height) / 2) & !1, width, height }
}

/// From the range of video (16 to 235) to that of a JPEG file (0 to 255), which jpegenc takes for granted and GStreamer's
/// converters do not make: they compare the matrix of two formats and not their range.
fn widen(frame: &mut gst_video::VideoFrameRef<&mut gst::BufferRef>) {
    let (luma, chroma) = wider();
    for (plane, table) in [(0, &luma), (1, &chroma), (2, &chroma)] {
        if let Ok(data) = frame.plane_data_mut(plane) {
            data.iter_mut().for_each(|sample| *sample = table[usize::from(*sample)]);
        }
    }
}

/// What each value of luma and of chroma becomes.
fn wider() -> ([u8; 256], [u8; 256]) {
    let scaled = |value: i32, zero: i32, span: i32, middle: i32| {
        let wide = (value - zero) * 255;
        let rounded = (wide + wide.signum() * span / 2) / span;
        u8::try_from((rounded + middle).clamp(0, 255)).unwrap_or_default()
    };
    let table = |zero, span, middle| std::array::from_fn(|value| scaled(value as i32, zero, span, middle));
    (table(16, 219, 0), table(128, 224, 128))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn black_and_white_are_those_of_a_file() {
        let (luma, chroma) = wider();
        assert_eq!((luma[0], luma[16], luma[235], luma[255]), (0, 0, 255, 255));
        assert_eq!((luma[126], chroma[128]), (128, 128));
        assert_eq!((chroma[16], chroma[240], chroma[0], chroma[255]), (0, 255, 0, 255));
        assert!(luma.is_sorted() && chroma.is_sorted());
    }

    #[test]
    fn proportions_are_kept() {
        for (from, to, expected) in [
            ((1280, 720), (1280, 720), (0, 0, 1280, 720)),
            ((1280, 720), (640, 360), (0, 0, 640, 360)),
            ((1280, 720), (640, 361), (0, 0, 640, 360)),
            ((1280, 720), (640, 480), (0, 60, 640, 360)),
            ((720, 1280), (640, 360), (218, 0, 202, 360)),
            ((640, 360), (1280, 720), (0, 0, 1280, 720)),
            ((4096, 16), (32, 32), (0, 14, 32, 2)),
            ((16, 16), (1, 1), (0, 0, 1, 1)),
        ] {
            let PictureArea { x, y, width, height } = letterbox(from, to);
            assert_eq!((x, y, width, height), expected, "{from:?} {to:?}");
        }
    }

    #[test]
    fn every_codec_makes_a_file_of_the_size_asked_for() {
        gst::init().unwrap();
        for (codec, begins) in
            [(ImageCodec::Jpeg, &b"\xff\xd8\xff"[..]), (ImageCodec::Png, b"\x89PNG\r\n"), (ImageCodec::Webp, b"RIFF")]
        {
            let encoder = ImageEncoder::new(codec, (320, 180), (161, 91)).unwrap();
            for n in 0..3 {
                let mut picture = gst::Buffer::with_size(encoder.scaler.from.size()).unwrap();
                picture.make_mut().map_writable().unwrap().fill(128);
                let file = encoder.encode(&picture, n * 1_000_000_000).unwrap();
                assert!(file.starts_with(begins) && file.len() > 100, "{codec:?} {}", file.len());
            }
        }
    }
}
