//! What becomes of the pictures that are looked at: the poster is the one with the most contrast, the contact sheet has some of
//! the whole recording, and sprite sheets fill up one after the other. Blocks for the encoder and the disk.

use std::path::PathBuf;

use bytes::Bytes;
use gstreamer as gst;
use spillway_ipc::sheet_file::{self, SheetIndex};
use spillway_plan::SheetsPlan;

use super::thinned::Thinned;
use super::tiles::{CONTACT, CONTACT_TILES, THUMBNAIL, TileGrid, interval_ns, tile_size};
use crate::element::{PipelineError, build};
use crate::encode::{ImageScaler, SheetCanvas, contrast, jpeg};
use crate::output::images::grid::CaptureGrid;
use crate::output::images::slot::TakenPicture;
use crate::output::images::spooled;
use crate::output::taker::TakerError;

/// What a crash costs of the sheets.
const SAVE_EVERY_NS: u64 = 60_000_000_000;
/// Another picture becomes the poster if it has so much more contrast, in percent: a recording has few of them.
const CLEARLY_MORE: u64 = 110;

/// What is made, and where.
#[derive(Clone, Debug)]
pub struct SheetOptions {
    /// What is asked for.
    pub plan: SheetsPlan,
    /// An existing folder of the spool.
    pub folder: PathBuf,
    /// Pixels of the pictures that come.
    pub from: (u32, u32),
}

/// Everything that is not in the spool yet.
pub(super) struct SheetComposer {
    folder: PathBuf,
    from: (u32, u32),
    /// Makes the pictures of the contact sheet, by which the poster is chosen too.
    small: ImageScaler,
    small_size: (u32, u32),
    poster: Option<Poster>,
    contact: Option<Thinned<gst::Buffer>>,
    sprites: Option<Sprites>,
    index: SheetIndex,
    save_at_ns: u64,
}

#[derive(Default)]
struct Poster {
    /// Of the one that was chosen last.
    contrast: Option<u64>,
    /// Not written yet.
    file: Option<Bytes>,
}

/// The sprite sheet that is being filled.
struct Sprites {
    asked_ns: u64,
    lines: CaptureGrid,
    scaler: ImageScaler,
    grid: TileGrid,
    canvas: SheetCanvas,
    /// Its thumbnails were written.
    saved: usize,
}

impl SheetComposer {
    pub(super) fn new(options: SheetOptions) -> Result<Self, PipelineError> {
        let SheetOptions { plan, folder, from } = options;
        let small_size = tile_size(from, CONTACT);
        let sprites = plan.rules.thumbnails_ns.map(|asked_ns| Sprites::new(asked_ns, from)).transpose()?;
        let grid = sprites.as_ref().map(|sprites| sprites.grid);
        Ok(Self {
            folder,
            from,
            small: ImageScaler::new(from, small_size)?,
            small_size,
            poster: plan.rules.poster.then(Poster::default),
            contact: plan.rules.contact_sheet.then(|| Thinned::new(CONTACT_TILES)),
            index: SheetIndex {
                output: plan.output,
                tile: grid.map(|grid| grid.tile).unwrap_or_default(),
                columns: grid.map(|grid| grid.columns).unwrap_or_default(),
                ..SheetIndex::default()
            },
            sprites,
            save_at_ns: SAVE_EVERY_NS,
        })
    }

    /// A picture is looked at.
    pub(super) fn take(&mut self, TakenPicture { buffer, at_ns }: &TakenPicture) -> Result<(), TakerError> {
        if self.poster.is_some() || self.contact.is_some() {
            let small = self.small.scale(buffer)?;
            if let Some(poster) = &mut self.poster {
                let seen = contrast(&small, self.small_size)?;
                if poster.is_beaten_by(seen) {
                    *poster = Poster { contrast: Some(seen), file: Some(jpeg(buffer, self.from)?) };
                }
            }
            if let Some(contact) = &mut self.contact {
                contact.offer(|| small);
            }
        }
        if let Some(sprites) = &mut self.sprites
            && sprites.lines.takes(*at_ns)
        {
            let full = sprites.put(buffer, *at_ns, &mut self.index.sheets)?;
            self.index.end_ns = at_ns.saturating_add(interval_ns(sprites.asked_ns, self.index.sheets.len() - 1));
            if full {
                self.save()?;
            }
        }
        if *at_ns >= self.save_at_ns {
            self.save_at_ns = at_ns.saturating_add(SAVE_EVERY_NS);
            self.save()?;
        }
        Ok(())
    }

    /// No picture comes any more; the recording is so long, nanoseconds.
    pub(super) fn finish(mut self, length_ns: u64) -> Result<(), TakerError> {
        let last_ns = self.index.sheets.last().and_then(|sheet| sheet.last()).copied().unwrap_or_default();
        self.index.end_ns = length_ns.max(last_ns.saturating_add(1));
        self.save()
    }

    /// Writes what is not written, and the index behind it. Nothing is written of a recording without a picture.
    fn save(&mut self) -> Result<(), TakerError> {
        if let Some(file) = self.poster.as_mut().and_then(|poster| poster.file.take()) {
            self.write(sheet_file::POSTER, &file)?;
            self.index.poster = true;
        }
        if let Some(file) = self.contact_sheet()? {
            self.write(sheet_file::CONTACT_SHEET, &file)?;
            self.index.contact_sheet = true;
        }
        if let (Some(sprites), Some(open)) = (&mut self.sprites, self.index.sheets.last())
            && sprites.saved < open.len()
        {
            let file = sprites.canvas.jpeg(sprites.grid.height(open.len()))?;
            sprites.saved = open.len();
            self.write(&sheet_file::sprite_sheet(self.index.sheets.len() - 1), &file)?;
        }
        let is_empty = !self.index.poster && !self.index.contact_sheet && self.index.sheets.is_empty();
        if is_empty {
            return Ok(());
        }
        let index = serde_json::to_vec(&self.index).map_err(build)?;
        self.write(sheet_file::INDEX, &index)
    }

    /// As many pictures as there are, up to 16.
    fn contact_sheet(&self) -> Result<Option<Bytes>, TakerError> {
        let pictures = self.contact.as_ref().map(Thinned::spread).unwrap_or_default();
        if pictures.is_empty() {
            return Ok(None);
        }
        let grid = TileGrid::of(self.small_size, pictures.len());
        let mut canvas = SheetCanvas::new(grid.tile, grid.size())?;
        for (n, picture) in pictures.into_iter().enumerate() {
            canvas.put(picture, grid.place(n))?;
        }
        Ok(Some(canvas.jpeg(grid.size().1)?))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), TakerError> {
        Ok(spooled::write(&self.folder, sheet_file::UNFINISHED, name, bytes)?)
    }
}

impl Poster {
    fn is_beaten_by(&self, contrast: u64) -> bool {
        self.contrast.is_none_or(|best| contrast * 100 > best * CLEARLY_MORE)
    }
}

impl Sprites {
    fn new(asked_ns: u64, from: (u32, u32)) -> Result<Self, PipelineError> {
        let tile = tile_size(from, THUMBNAIL);
        let grid = TileGrid::sprites(tile);
        Ok(Self {
            asked_ns,
            lines: CaptureGrid::new(asked_ns),
            scaler: ImageScaler::new(from, tile)?,
            canvas: SheetCanvas::new(tile, grid.size())?,
            grid,
            saved: 0,
        })
    }

    /// Adds a thumbnail, on another sheet if the last one is full. True: this one is full now.
    fn put(&mut self, picture: &gst::BufferRef, at_ns: u64, sheets: &mut Vec<Vec<u64>>) -> Result<bool, TakerError> {
        let small = self.scaler.scale(picture)?;
        if sheets.last().is_none_or(|open| open.len() >= self.grid.capacity()) {
            self.canvas.clear();
            self.saved = 0;
            sheets.push(vec![]);
            self.lines = CaptureGrid::new(interval_ns(self.asked_ns, sheets.len() - 1));
            // The picture in hand is the first one of these lines.
            self.lines.takes(at_ns);
        }
        let Some(open) = sheets.last_mut() else { return Ok(false) };
        self.canvas.put(&small, self.grid.place(open.len()))?;
        open.push(at_ns);
        Ok(open.len() >= self.grid.capacity())
    }
}
