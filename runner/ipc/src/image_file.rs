//! Names of images in a spool folder: the media process makes them, the runner and a salvage find them. Pure.

use spillway_plan::ImageCodec;

/// Of image `n` of an output: `<output>-<n>.jpeg`.
pub fn name(output: u32, n: u32, codec: ImageCodec) -> String {
    format!("{output}-{n}{}", codec.extension())
}

/// Of an image of an output while it is written; renamed when it is whole.
pub fn unfinished_name(output: u32) -> String {
    format!("{output}-image.part")
}

/// Number of the image in the file `name`, if it is one of this output.
pub fn number(name: &str, output: u32, codec: ImageCodec) -> Option<u32> {
    let n = name.strip_suffix(codec.extension())?.strip_prefix(&format!("{output}-"))?;
    let number = n.parse().ok()?;
    // One spelling only: `+1` and `01` are not ours.
    (self::name(output, number, codec) == name).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_back_and_no_other_is() {
        let (jpeg, png) = (ImageCodec::Jpeg, ImageCodec::Png);
        assert_eq!((name(1, 12, jpeg), name(1, 0, png)), ("1-12.jpeg".into(), "1-0.png".into()));
        assert_eq!(number("1-12.jpeg", 1, jpeg), Some(12));
        for other in ["1-12.png", "11-12.jpeg", "1-+2.jpeg", "1-02.jpeg", "1-.jpeg", "1-2-3.jpeg", "x1-2.jpeg"] {
            assert_eq!(number(other, 1, jpeg), None, "{other}");
        }
        assert_eq!(number(&unfinished_name(1), 1, jpeg), None);
    }
}
