//! How small pictures stand on a sheet, and how much time lies between two of them. Pure.

/// Longest side of a thumbnail, pixels.
pub(super) const THUMBNAIL: u32 = 160;
/// Longest side of a picture of the contact sheet, pixels.
pub(super) const CONTACT: u32 = 320;
/// Thumbnails in a row of a sprite sheet, and rows.
pub(super) const SPRITE_COLUMNS: u32 = 10;
/// Pictures on a contact sheet.
pub(super) const CONTACT_TILES: usize = 16;
/// After so many sprite sheets the time between two thumbnails doubles: a day at 5 s is 137 sheets, a day at 1 s 321, and eight
/// days 610.
const SHEETS_PER_DOUBLING: usize = 100;

/// Tiles in rows, from the left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TileGrid {
    /// Width and height of a tile, pixels; even.
    pub(super) tile: (u32, u32),
    pub(super) columns: u32,
    pub(super) rows: u32,
}

impl TileGrid {
    /// Of a sprite sheet.
    pub(super) fn sprites(tile: (u32, u32)) -> Self {
        Self { tile, columns: SPRITE_COLUMNS, rows: SPRITE_COLUMNS }
    }

    /// Of so many pictures, in about as many rows as columns.
    pub(super) fn of(tile: (u32, u32), count: usize) -> Self {
        let count = u32::try_from(count).unwrap_or(u32::MAX).max(1);
        let columns = (1..=count).find(|columns| columns.saturating_mul(*columns) >= count).unwrap_or(count);
        Self { tile, columns, rows: count.div_ceil(columns) }
    }

    /// How many there is room for.
    pub(super) fn capacity(&self) -> usize {
        self.columns as usize * self.rows as usize
    }

    /// Width and height of the sheet, pixels.
    pub(super) fn size(&self) -> (u32, u32) {
        (self.tile.0 * self.columns, self.tile.1 * self.rows)
    }

    /// Left upper corner of tile `n`, pixels.
    pub(super) fn place(&self, n: usize) -> (u32, u32) {
        let n = u32::try_from(n).unwrap_or(u32::MAX);
        (self.tile.0 * (n % self.columns), self.tile.1 * (n / self.columns))
    }

    /// Height of the rows that the first `count` tiles take, pixels; of one row at least.
    pub(super) fn height(&self, count: usize) -> u32 {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.tile.1 * count.div_ceil(self.columns).clamp(1, self.rows)
    }
}

/// Size of a tile for pictures of this size: in proportion, even, its longer side `longest` pixels.
pub(super) fn tile_size((width, height): (u32, u32), longest: u32) -> (u32, u32) {
    let (width, height) = (width.max(1), height.max(1));
    let short = |short: u32, long: u32| {
        let scaled = u64::from(short) * u64::from(longest) / u64::from(long);
        // To the nearest even number.
        (u32::try_from(scaled).unwrap_or(longest).saturating_add(1) & !1).clamp(2, longest)
    };
    if width >= height { (longest, short(height, width)) } else { (short(width, height), longest) }
}

/// Nanoseconds between two thumbnails of sprite sheet `sheet`.
pub(super) fn interval_ns(asked_ns: u64, sheet: usize) -> u64 {
    let doublings = u32::try_from(sheet / SHEETS_PER_DOUBLING).unwrap_or(u32::MAX).min(32);
    asked_ns.saturating_mul(1 << doublings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_are_in_proportion_and_even() {
        for (from, longest, expected) in [
            ((1280, 720), 160, (160, 90)),
            ((1920, 1080), 320, (320, 180)),
            ((640, 480), 160, (160, 120)),
            ((720, 1280), 160, (90, 160)),
            ((720, 720), 160, (160, 160)),
            ((854, 480), 160, (160, 90)),
            ((4096, 16), 160, (160, 2)),
            ((16, 4096), 320, (2, 320)),
            ((0, 0), 160, (160, 160)),
        ] {
            assert_eq!(tile_size(from, longest), expected, "{from:?}");
        }
    }

    #[test]
    fn sprites_stand_in_rows_of_ten() {
        let grid = TileGrid::sprites((160, 90));
        assert_eq!((grid.size(), grid.capacity()), ((1600, 900), 100));
        for (n, place) in [(0, (0, 0)), (9, (1440, 0)), (10, (0, 90)), (57, (1120, 450)), (99, (1440, 810))] {
            assert_eq!(grid.place(n), place, "{n}");
        }
        for (count, height) in [(0, 90), (1, 90), (10, 90), (11, 180), (100, 900), (101, 900)] {
            assert_eq!(grid.height(count), height, "{count}");
        }
    }

    #[test]
    fn a_contact_sheet_is_about_square() {
        for (count, columns, rows) in
            [(0, 1, 1), (1, 1, 1), (2, 2, 1), (3, 2, 2), (4, 2, 2), (5, 3, 2), (8, 3, 3), (12, 4, 3), (16, 4, 4)]
        {
            let grid = TileGrid::of((320, 180), count);
            assert_eq!((grid.columns, grid.rows), (columns, rows), "{count}");
            assert_eq!(grid.size(), (320 * columns, 180 * rows));
            assert!(grid.capacity() >= count);
        }
    }

    #[test]
    fn thumbnails_become_rarer_in_a_long_recording() {
        const SECOND_NS: u64 = 1_000_000_000;
        for (sheet, seconds) in [(0, 5), (99, 5), (100, 10), (199, 10), (200, 20), (1000, 5120)] {
            assert_eq!(interval_ns(5 * SECOND_NS, sheet), seconds * SECOND_NS, "{sheet}");
        }
        assert_eq!(interval_ns(u64::MAX, usize::MAX), u64::MAX);
        // Sheets of a day.
        for (seconds, sheets) in [(5, 137), (1, 321)] {
            let mut length_ns = 0u64;
            let full = (0..).find(|sheet| {
                length_ns += 100 * interval_ns(seconds * SECOND_NS, *sheet);
                length_ns >= 86_400 * SECOND_NS
            });
            assert_eq!(full.map(|last| last + 1), Some(sheets), "{seconds} s");
        }
    }
}
