//! What stands behind a muxer of GStreamer's: an element that writes muxed bytes at their positions into the spool. Runs
//! in the muxer's thread; an error of the disk ends the muxer's pipeline and is kept for its output.

use gst::glib;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::prelude::*;
use gstreamer as gst;
use gstreamer_base as gst_base;
use spillway_ipc::{SpoolError, SpoolFile};

glib::wrapper! {
    /// GStreamer element that writes into a spool file.
    pub struct SpoolSink(ObjectSubclass<imp::SpoolSink>) @extends gst_base::BaseSink, gst::Element, gst::Object;
}

impl SpoolSink {
    /// Takes the file over; `close` or the last reference closes it.
    pub fn new(file: SpoolFile) -> Self {
        let sink: Self = glib::Object::builder().property("name", "spool").build();
        sink.set_sync(false);
        sink.set_async(false);
        sink.imp().open(file);
        sink
    }

    /// Why writing stopped, once.
    pub fn take_error(&self) -> Option<SpoolError> {
        self.imp().take_error()
    }

    /// Closes the file: nothing is written after this.
    pub fn close(&self) {
        self.imp().close();
    }
}

mod imp {
    use std::sync::{LazyLock, Mutex, MutexGuard};

    use super::*;

    /// Implementation behind the wrapper.
    #[derive(Default)]
    pub struct SpoolSink {
        state: Mutex<SinkState>,
    }

    #[derive(Default)]
    struct SinkState {
        file: Option<SpoolFile>,
        position: u64,
        error: Option<SpoolError>,
    }

    #[glib::object_subclass]
    impl ObjectSubclass for SpoolSink {
        const NAME: &'static str = "SpillwaySpoolSink";
        type Type = super::SpoolSink;
        type ParentType = gst_base::BaseSink;
    }

    impl SpoolSink {
        /// Writes into this file from position 0.
        pub fn open(&self, file: SpoolFile) {
            *self.state() = SinkState { file: Some(file), ..SinkState::default() };
        }

        /// Nothing is written after this.
        pub fn close(&self) {
            self.state().file = None;
        }

        /// Why writing stopped, once.
        pub fn take_error(&self) -> Option<SpoolError> {
            self.state().error.take()
        }

        fn state(&self) -> MutexGuard<'_, SinkState> {
            // A panic inside a write leaves nothing half changed that a later write could trip over.
            self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
        }

        fn write(&self, buffer: &gst::BufferRef) -> Result<(), gst::FlowError> {
            let map = buffer.map_readable().map_err(|_| gst::FlowError::Error)?;
            let mut state = self.state();
            let at = state.position;
            let file = state.file.as_mut().ok_or(gst::FlowError::Flushing)?;
            if let Err(error) = file.write_at(at, &map) {
                state.error.get_or_insert(error);
                drop(state);
                gst::element_imp_error!(self, gst::ResourceError::Write, ["the spool takes no more"]);
                return Err(gst::FlowError::Error);
            }
            state.position = at + map.len() as u64;
            Ok(())
        }
    }

    impl ObjectImpl for SpoolSink {}
    impl GstObjectImpl for SpoolSink {}

    impl ElementImpl for SpoolSink {
        fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
            static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
                gst::subclass::ElementMetadata::new(
                    "Spool sink",
                    "Sink/File",
                    "Keeps muxed bytes at their positions",
                    "Spillway",
                )
            });
            Some(&METADATA)
        }

        fn pad_templates() -> &'static [gst::PadTemplate] {
            static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
                gst::PadTemplate::new("sink", gst::PadDirection::Sink, gst::PadPresence::Always, &gst::Caps::new_any())
                    .into_iter()
                    .collect()
            });
            &TEMPLATES
        }
    }

    impl BaseSinkImpl for SpoolSink {
        /// A segment in bytes is a muxer going somewhere to write.
        fn event(&self, event: gst::Event) -> bool {
            if let gst::EventView::Segment(segment) = event.view()
                && let gst::GenericFormattedValue::Bytes(Some(start)) = segment.segment().start()
            {
                self.state().position = *start;
            }
            self.parent_event(event)
        }

        /// Muxers ask whether they may come back; ours may, anywhere.
        fn query(&self, query: &mut gst::QueryRef) -> bool {
            if let gst::QueryViewMut::Seeking(seeking) = query.view_mut() {
                let format = seeking.format();
                seeking.set(
                    format == gst::Format::Bytes,
                    gst::GenericFormattedValue::new(format, 0),
                    gst::GenericFormattedValue::new(format, -1),
                );
                return true;
            }
            BaseSinkImplExt::parent_query(self, query)
        }

        fn render(&self, buffer: &gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
            self.write(buffer).map(|()| gst::FlowSuccess::Ok)
        }
    }
}
