//! GStreamer elements by name, and what can go wrong with a pipeline of them.

use gst::element_factory::ElementBuilder;
use gstreamer as gst;
use spillway_ipc::SpoolError;

#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    #[error("GStreamer has no element {name}")]
    Missing { name: &'static str },
    #[error("the pieces of the pipeline do not fit: {message}")]
    Build { message: String },
    #[error("{element}: {message}")]
    Element { element: String, message: String },
    #[error("keep the recording")]
    Write { source: SpoolError },
}

pub(crate) fn build(error: impl std::fmt::Display) -> PipelineError {
    PipelineError::Build { message: error.to_string() }
}

/// An element by its factory's name.
pub(crate) fn make(
    name: &'static str,
    set: impl for<'a> FnOnce(ElementBuilder<'a>) -> ElementBuilder<'a>,
) -> Result<gst::Element, PipelineError> {
    set(gst::ElementFactory::make(name)).build().map_err(|_| PipelineError::Missing { name })
}
