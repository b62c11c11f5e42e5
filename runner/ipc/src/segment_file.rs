//! Names of segment files in a spool folder: the media process makes them, the runner and a salvage find them, and none of
//! them asks for a name. Pure.

use spillway_plan::segment_name::SegmentFormat;

/// Of segment `n` of an output: `<output>-<n>.ts`.
pub fn name(output: u32, n: u32, format: SegmentFormat) -> String {
    format!("{output}-{n}{}", format.extension())
}

/// Of the init segment of an output whose format has one.
pub fn init_name(output: u32) -> String {
    format!("{output}-init.mp4")
}

/// Number of the segment in the file `name`, if it is one of this output.
pub fn number(name: &str, output: u32, format: SegmentFormat) -> Option<u32> {
    let n = name.strip_suffix(format.extension())?.strip_prefix(&format!("{output}-"))?;
    let number = n.parse().ok()?;
    // One spelling only: `+1` and `01` are not ours.
    (self::name(output, number, format) == name).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_back_and_no_other_is() {
        let (ts, fragments) = (SegmentFormat::MpegTs, SegmentFormat::FragmentedMp4);
        assert_eq!((name(1, 12, ts), name(1, 0, fragments)), ("1-12.ts".into(), "1-0.m4s".into()));
        assert_eq!(number("1-12.ts", 1, ts), Some(12));
        for other in ["1-12.m4s", "11-12.ts", "1-+2.ts", "1-02.ts", "1-.ts", "1-init.mp4", "1-2-3.ts", "x1-2.ts"] {
            assert_eq!(number(other, 1, ts), None, "{other}");
        }
        assert_eq!(number(&init_name(1), 1, fragments), None);
    }
}
