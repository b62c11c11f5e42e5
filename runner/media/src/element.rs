//! GStreamer elements by name, and what can go wrong with a pipeline of them. Below `encode`, `mux` and `output`, which
//! all build elements.

use gst::element_factory::ElementBuilder;
use gst::prelude::*;
use gstreamer as gst;
use spillway_ipc::SpoolError;

/// Why a pipeline cannot be built, or broke. A broken one does not recover; another file may be tried.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// A plugin is not installed.
    #[error("GStreamer has no element {name}")]
    Missing {
        /// Of the factory.
        name: &'static str,
    },
    /// Elements cannot be linked or started, or inputs do not go into the container.
    #[error("the pieces of the pipeline do not fit: {message}")]
    Build {
        /// What does not fit.
        message: String,
    },
    /// An element reported an error.
    #[error("{element}: {message}")]
    Element {
        /// Its name.
        element: String,
        /// What it said.
        message: String,
    },
    /// The spool takes nothing more.
    #[error("keep the recording")]
    Write {
        /// Why.
        source: SpoolError,
    },
}

pub(crate) fn build(error: impl std::fmt::Display) -> PipelineError {
    PipelineError::Build { message: error.to_string() }
}

/// What an element complained about on the bus.
pub(crate) fn element_error(error: &gst::message::Error) -> PipelineError {
    let element = error.src().map(|source| source.name().to_string()).unwrap_or_default();
    let message = match error.debug() {
        Some(debug) => format!("{} ({debug})", error.error()),
        None => error.error().to_string(),
    };
    PipelineError::Element { element, message }
}

/// An element by its factory's name.
pub(crate) fn make(
    name: &'static str,
    set: impl for<'a> FnOnce(ElementBuilder<'a>) -> ElementBuilder<'a>,
) -> Result<gst::Element, PipelineError> {
    set(gst::ElementFactory::make(name)).build().map_err(|_| PipelineError::Missing { name })
}
