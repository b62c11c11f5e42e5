//! Frames into our own IVF writer. Runs in the recorder's thread.

use spillway_ipc::SpoolFile;

use crate::element::{PipelineError, build};
use crate::encoded::{EncodedFormat, EncodedUnit, StreamNumber};
use crate::mux::Ivf;
use crate::output::taker::{OutputTaker, TakerEnd, TakerError};

/// An IVF file that is being written.
pub(super) struct IvfFile {
    ivf: Ivf,
}

impl IvfFile {
    /// Writes the header.
    pub(super) fn open(file: SpoolFile, inputs: &[(StreamNumber, EncodedFormat)]) -> Result<Self, PipelineError> {
        let [(_, format)] = inputs else { return Err(build("an IVF holds one stream")) };
        let EncodedFormat::Video { codec, size, .. } = format else {
            return Err(build(format_args!("{format} does not go into an IVF")));
        };
        let ivf = Ivf::open(file, *codec, *size).map_err(|source| PipelineError::Write { source })?;
        Ok(Self { ivf })
    }
}

impl OutputTaker for IvfFile {
    fn take(&mut self, unit: &EncodedUnit) -> Result<(), TakerError> {
        Ok(self.ivf.write(unit.at_ns, &unit.data)?)
    }

    fn end(&mut self, _: u64) -> Result<TakerEnd, TakerError> {
        self.ivf.finish()?;
        Ok(TakerEnd::Whole)
    }
}
