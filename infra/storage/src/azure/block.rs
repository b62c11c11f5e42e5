//! Ids of blocks: upload, number and generation as text, and back. Pure.

use crate::checksum::hex;
use crate::storage::{Part, PartTag};

/// Number of the block that proves at `begin` that the upload may write. It becomes no part of the blob.
pub const PROBE: u32 = 0;

/// A block as Azure lists it.
pub struct Block {
    /// As made by [`block_id`], or another program's.
    pub id: String,
    /// Its length.
    pub bytes: u64,
}

/// The tag of a part of so many bytes with this MD5. Azure gives blocks no tag.
pub fn tag(bytes: u64, digest: &[u8]) -> PartTag {
    PartTag { bytes, etag: hex(digest), crc32c: None }
}

/// Of the same length for every upload: Azure requires that of all blocks of a blob.
pub fn block_id(upload: &str, number: u32, generation: u32) -> String {
    format!("{upload}-{number:05}-{generation:06}")
}

/// The part that a block is; `None`: it belongs to another upload.
pub fn parse_block(upload: &str, block: &Block) -> Option<Part> {
    let (number, generation) = block.id.strip_prefix(upload)?.strip_prefix('-')?.split_once('-')?;
    let tag = PartTag { bytes: block.bytes, etag: String::new(), crc32c: None };
    Some(Part { number: number.parse().ok()?, generation: generation.parse().ok()?, tag })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_tells_its_upload_number_and_generation() {
        let id = block_id("0123456789abcdef", 50_000, 12);
        assert_eq!(id.len(), block_id("fedcba9876543210", 1, 999_999).len());
        let part = parse_block("0123456789abcdef", &Block { id: id.clone(), bytes: 7 }).unwrap();
        assert_eq!((part.number, part.generation, part.tag.bytes), (50_000, 12, 7));
        assert_eq!(parse_block("fedcba9876543210", &Block { id, bytes: 7 }), None);
    }
}
