//! Names of an image output. The request's prefix comes in, cleaned when the request was planned; the runner fills in the
//! variables when the recording knows its tracks. Pure.
//!
//! The rules are livekit/egress' (`pkg/config/output_image.go`), with two differences: a `..` that comes from a *value* is
//! dropped, and the extension of a prefix that asks for PNG or WebP is that of the files and not a part of their stem.

use chrono::NaiveDateTime;
use serde::{Deserialize, Serialize};

use crate::name::{NameFacts, cut, fill, split, tidy};
use crate::output_types::{ImageCodec, ImageSuffix, ImagesOutput};
use crate::uploads::MAX_COMPONENT_BYTES;

/// Behind the stem of an image: `_`, 17 digits of a time, the extension.
const MAX_SUFFIX_BYTES: usize = 23;

/// Names with all variables filled in. No component is `.` or `..`, none is too long for a file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageNames {
    /// Storage path of every image up to its suffix.
    pub prefix: String,
    /// What the EgressInfo says: the prefix as it was asked for, variables filled in; empty if none was asked for.
    pub told: String,
    /// What follows the prefix.
    pub suffix: ImageSuffix,
    /// Decides the extension.
    pub codec: ImageCodec,
}

impl ImagesOutput {
    /// Fills in the variables and what the request leaves out. `now` is the local time.
    pub fn names(&self, facts: &NameFacts, now: NaiveDateTime) -> ImageNames {
        let told = tidy(&self.prefix, &fill(&self.prefix, |variable| facts.value(variable, now)));
        let (directory, name) = split(&told);
        let stem = if self.codec == ImageCodec::Jpeg { None } else { name.strip_suffix(self.codec.extension()) };
        let generated;
        let stem = match stem.unwrap_or(name) {
            "" => {
                generated = facts.generated(now).replace('/', "-").replace('\0', "_");
                generated.as_str()
            }
            stem => stem,
        };
        let prefix = format!("{directory}{}", cut(stem, MAX_COMPONENT_BYTES - MAX_SUFFIX_BYTES));
        ImageNames { prefix, told, suffix: self.suffix, codec: self.codec }
    }
}

impl ImageNames {
    /// Storage path of image `n`, from 0. `at`: local time of its capture.
    pub fn image(&self, n: u32, at: NaiveDateTime) -> String {
        let (prefix, extension) = (&self.prefix, self.codec.extension());
        match self.suffix {
            ImageSuffix::Index => format!("{prefix}_{n:05}{extension}"),
            ImageSuffix::Timestamp => format!("{prefix}_{}{extension}", at.format("%Y%m%d%H%M%S%3f")),
            ImageSuffix::NoneOverwrite => format!("{prefix}{extension}"),
        }
    }

    /// A storage path of these names that no other output may have: that of the first image, or of one of 1970 where images
    /// are told apart by time. Two outputs have it in common if they have any.
    pub fn reserved(&self) -> String {
        self.image(0, NaiveDateTime::default())
    }

    /// Variant `number` of all names: 1 is the names themselves, 2 has `a-2_00000.jpeg`.
    pub fn numbered(&self, number: u32) -> Self {
        if number == 1 {
            return self.clone();
        }
        let end = format!("-{number}");
        let (folder, stem) = split(&self.prefix);
        let prefix = format!("{folder}{}{end}", cut(stem, MAX_COMPONENT_BYTES - MAX_SUFFIX_BYTES - end.len()));
        let told = match split(&self.told) {
            (_, "") => self.told.clone(),
            (_, name) if self.codec != ImageCodec::Jpeg && name.ends_with(self.codec.extension()) => {
                format!("{prefix}{}", self.codec.extension())
            }
            _ => prefix.clone(),
        };
        Self { prefix, told, ..self.clone() }
    }

    /// All images are one object, which each of them replaces.
    pub fn is_one(&self) -> bool {
        self.suffix == ImageSuffix::NoneOverwrite
    }
}

#[cfg(test)]
mod tests {
    use chrono::NaiveDate;
    use proptest::prelude::*;

    use super::*;
    use crate::types::EgressKind;
    use crate::uploads::clean;

    fn now() -> NaiveDateTime {
        NaiveDate::from_ymd_opt(2022, 10, 4).unwrap().and_hms_milli_opt(1, 13, 6, 78).unwrap()
    }

    fn facts(room_name: &str) -> NameFacts {
        NameFacts {
            kind: EgressKind::TrackComposite,
            room_name: room_name.into(),
            room_id: "RM_x".into(),
            publisher_identity: "ann".into(),
            track_id: String::new(),
            track_kind: String::new(),
            track_source: String::new(),
            retry_count: 0,
        }
    }

    fn names(prefix: &str, room_name: &str, suffix: ImageSuffix) -> ImageNames {
        let images = ImagesOutput {
            prefix: clean(prefix),
            interval_ns: 1,
            size: None,
            suffix,
            codec: ImageCodec::of(prefix),
            manifest: false,
            stored: false,
        };
        images.names(&facts(room_name), now())
    }

    #[test]
    fn images_are_told_apart_by_index_or_time_or_not_at_all() {
        for (prefix, suffix, expected) in [
            ("tc_{publisher_identity}_h264", ImageSuffix::Index, "tc_ann_h264_00007.jpeg"),
            ("d/{room_name}", ImageSuffix::Timestamp, "d/sales_20221004011306078.jpeg"),
            ("d/latest", ImageSuffix::NoneOverwrite, "d/latest.jpeg"),
            ("d/", ImageSuffix::Index, "d/sales-2022-10-04T011306_00007.jpeg"),
            ("", ImageSuffix::NoneOverwrite, "sales-2022-10-04T011306.jpeg"),
            ("a.jpeg", ImageSuffix::Index, "a.jpeg_00007.jpeg"),
            ("d/a.png", ImageSuffix::Index, "d/a_00007.png"),
            ("a.webp", ImageSuffix::NoneOverwrite, "a.webp"),
            ("d/.png", ImageSuffix::NoneOverwrite, "d/sales-2022-10-04T011306.png"),
        ] {
            assert_eq!(names(prefix, "sales", suffix).image(7, now()), expected, "{prefix}");
        }
        assert_eq!(names("a", "sales", ImageSuffix::Index).image(123_456, now()), "a_123456.jpeg");
    }

    #[test]
    fn the_prefix_is_told_as_it_was_asked_for() {
        for (prefix, told) in
            [("", ""), ("d/", "d/"), ("d/{room_name}_{nosuch}", "d/sales_{nosuch}"), ("a.png", "a.png")]
        {
            assert_eq!(names(prefix, "sales", ImageSuffix::Index).told, told);
        }
    }

    #[test]
    fn a_variant_has_other_names_for_everything() {
        for (prefix, suffix, reserved, told) in [
            ("d/a", ImageSuffix::Index, "d/a-2_00000.jpeg", "d/a-2"),
            ("d/a", ImageSuffix::Timestamp, "d/a-2_19700101000000000.jpeg", "d/a-2"),
            ("a.png", ImageSuffix::NoneOverwrite, "a-2.png", "a-2.png"),
            ("d/", ImageSuffix::NoneOverwrite, "d/sales-2022-10-04T011306-2.jpeg", "d/"),
        ] {
            let names = names(prefix, "sales", suffix);
            assert_eq!(names.numbered(1), names);
            let second = names.numbered(2);
            assert_eq!((second.reserved().as_str(), second.told.as_str()), (reserved, told), "{prefix}");
        }
        let long = names(&"x".repeat(300), "sales", ImageSuffix::Timestamp).numbered(10_000);
        assert!(long.reserved().len() <= MAX_COMPONENT_BYTES && long.prefix.ends_with("-10000"));
    }

    #[test]
    fn one_that_was_asked_for_explicitly_is_no_other() {
        let jpeg = ImagesOutput {
            prefix: "a.png".into(),
            interval_ns: 1,
            size: None,
            suffix: ImageSuffix::Index,
            codec: ImageCodec::Jpeg,
            manifest: false,
            stored: false,
        };
        assert_eq!(jpeg.names(&facts("sales"), now()).image(0, now()), "a.png_00000.jpeg");
    }

    proptest! {
        #[test]
        fn no_name_escapes(prefix in ".{0,60}", value in "[./a{}\\PC\u{0}]{0,300}") {
            for asked in [prefix.as_str(), "{room_name}", "a/{room_name}/.{publisher_identity}", "{room_name}/b.png"] {
                for suffix in [ImageSuffix::Index, ImageSuffix::Timestamp, ImageSuffix::NoneOverwrite] {
                    let names = names(asked, &value, suffix);
                    let name = names.image(u32::MAX, now());
                    prop_assert_eq!(name.starts_with('/'), clean(asked).starts_with('/'));
                    prop_assert!(name.len() <= 4096 && !name.contains('\0'));
                    let inner = name.strip_prefix('/').unwrap_or(&name);
                    prop_assert!(
                        inner.split('/').all(|c| !c.is_empty() && c != "." && c != ".." && c.len() <= 255),
                        "{}", name
                    );
                }
            }
        }
    }
}
