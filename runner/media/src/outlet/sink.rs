//! The end of every pipeline: an element that gives muxed bytes, with their position, to whatever keeps them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gst::glib;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::prelude::*;
use gstreamer as gst;
use gstreamer_base as gst_base;

/// Keeps muxed bytes. Muxers come back to places they wrote before (`spec/storage.md` 4).
pub trait Keeper: Send {
    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()>;
}

glib::wrapper! {
    pub struct SpoolSink(ObjectSubclass<imp::SpoolSink>) @extends gst_base::BaseSink, gst::Element, gst::Object;
}

impl SpoolSink {
    pub fn new(keeper: Box<dyn Keeper>) -> Self {
        let sink: Self = glib::Object::builder().property("name", "spool").build();
        sink.set_sync(false);
        sink.set_async(false);
        sink.imp().open(keeper);
        sink
    }

    /// How the keeping stands; readable from any thread, also after the pipeline is gone.
    pub fn kept(&self) -> Arc<Kept> {
        self.imp().kept()
    }

    /// Takes the keeper out: nothing is written after this.
    pub fn close(&self) -> Option<Box<dyn Keeper>> {
        self.imp().close()
    }
}

/// What the sink has done so far.
#[derive(Debug, Default)]
pub struct Kept {
    end: AtomicU64,
    error: std::sync::Mutex<Option<io::Error>>,
}

impl Kept {
    /// One past the last byte ever written.
    pub fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// Why writing stopped, once.
    pub fn take_error(&self) -> Option<io::Error> {
        self.error.lock().ok()?.take()
    }
}

mod imp {
    use std::sync::{LazyLock, Mutex, MutexGuard};

    use super::*;

    #[derive(Default)]
    pub struct SpoolSink {
        state: Mutex<State>,
        kept: Arc<Kept>,
    }

    #[derive(Default)]
    struct State {
        keeper: Option<Box<dyn Keeper>>,
        position: u64,
    }

    #[glib::object_subclass]
    impl ObjectSubclass for SpoolSink {
        const NAME: &'static str = "SpillwaySpoolSink";
        type Type = super::SpoolSink;
        type ParentType = gst_base::BaseSink;
    }

    impl SpoolSink {
        pub fn open(&self, keeper: Box<dyn Keeper>) {
            *self.state() = State { keeper: Some(keeper), position: 0 };
        }

        pub fn close(&self) -> Option<Box<dyn Keeper>> {
            self.state().keeper.take()
        }

        pub fn kept(&self) -> Arc<Kept> {
            self.kept.clone()
        }

        fn state(&self) -> MutexGuard<'_, State> {
            // A panic inside a write leaves nothing half changed that a later write could trip over.
            self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
        }

        fn write(&self, buffer: &gst::BufferRef) -> io::Result<()> {
            let map = buffer.map_readable().map_err(io::Error::other)?;
            let mut state = self.state();
            let at = state.position;
            let keeper = state.keeper.as_mut().ok_or_else(|| io::Error::other("the file is closed"))?;
            keeper.write_at(at, &map)?;
            state.position = at + map.len() as u64;
            self.kept.end.fetch_max(state.position, Ordering::AcqRel);
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
            self.write(buffer).map(|()| gst::FlowSuccess::Ok).map_err(|error| {
                gst::element_imp_error!(self, gst::ResourceError::Write, ["{error}"]);
                if let Ok(mut slot) = self.kept.error.lock() {
                    slot.get_or_insert(error);
                }
                gst::FlowError::Error
            })
        }
    }
}
