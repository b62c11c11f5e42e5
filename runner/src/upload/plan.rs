//! Where a file is cut into parts, by what its store allows. Pure.

use serde::{Deserialize, Serialize};
use spillway_storage::PartRules;

/// Sizes of parts in bytes. Small ones come first, because what is not in a whole part is sent again and again; larger ones
/// later, so that ten thousand (the limit of S3) are enough for days.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PartSizes {
    /// Size of the first parts.
    pub small: u64,
    /// Number of the last small part, from 1.
    pub small_until: u32,
    /// Size of the parts behind them.
    pub middle: u64,
    /// Number of the last of those.
    pub middle_until: u32,
    /// Size of all others.
    pub large: u64,
}

impl Default for PartSizes {
    fn default() -> Self {
        Self { small: 5 << 20, small_until: 1000, middle: 8 << 20, middle_until: 4000, large: 32 << 20 }
    }
}

/// Above it a recording of a day would need more than ten thousand small parts.
const SLOW_BITS_PER_SECOND: u64 = 4_800_000;

/// How long the parts of one upload are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartLayout {
    /// Growing with the part's number.
    Steps(PartSizes),
    /// All parts but the last have this size.
    Uniform(u64),
    /// A part ends wherever it is cut: the store takes parts of any size. The first holds only what is rewritten at
    /// the end.
    Flowing {
        /// Size of part 1.
        first: u64,
        /// Most bytes of every other part.
        max_bytes: u64,
    },
}

impl PartLayout {
    /// Layout for a store with these rules. `head`: bytes at the start that are rewritten at the end. `bits_per_second`:
    /// what is expected, if known.
    pub fn of(rules: &PartRules, sizes: &PartSizes, head: u64, bits_per_second: Option<u64>) -> Self {
        let fit = |bytes: u64| bytes.clamp(rules.min_part_bytes.max(head).max(1), rules.max_part_bytes.max(1));
        if rules.append_small() {
            let max_bytes = fit(sizes.middle);
            return Self::Flowing { first: if head == 0 { max_bytes } else { head }, max_bytes };
        }
        if rules.uniform {
            let slow = bits_per_second.is_some_and(|bits| bits <= SLOW_BITS_PER_SECOND);
            return Self::Uniform(fit(if slow { sizes.small } else { sizes.middle }));
        }
        Self::Steps(PartSizes {
            small: fit(sizes.small),
            middle: fit(sizes.middle),
            large: fit(sizes.large),
            ..sizes.clone()
        })
    }

    /// The most bytes part `number` (from 1) has; all of them unless it is the last, or flows.
    pub fn size(&self, number: u32) -> u64 {
        match self {
            Self::Steps(sizes) if number <= sizes.small_until => sizes.small,
            Self::Steps(sizes) if number <= sizes.middle_until => sizes.middle,
            Self::Steps(sizes) => sizes.large,
            Self::Uniform(size) => *size,
            Self::Flowing { first, .. } if number == 1 => *first,
            Self::Flowing { max_bytes, .. } => *max_bytes,
        }
    }

    /// Part `number` may end wherever it is cut: every part of a flowing layout, except a first one that holds the head.
    pub fn flows(&self, number: u32) -> bool {
        matches!(self, Self::Flowing { first, max_bytes } if number > 1 || first == max_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s3() -> PartRules {
        PartRules { min_part_bytes: 5 << 20, max_part_bytes: 5 << 30, max_parts: 10_000, uniform: false }
    }

    #[test]
    fn ten_thousand_parts_are_enough_for_two_hundred_gigabytes_and_the_first_ones_are_small() {
        let layout = PartLayout::of(&s3(), &PartSizes::default(), 48, None);
        let all: u64 = (1..=10_000).map(|number| layout.size(number)).sum();
        assert!(all > 210 << 30, "{all}");
        assert_eq!(layout.size(1), 5 << 20);
        assert_eq!((layout.size(1000), layout.size(1001)), (5 << 20, 8 << 20));
    }

    #[test]
    fn equal_parts_are_small_only_where_a_day_fits() {
        let rules = PartRules { uniform: true, ..s3() };
        let size = |bits| PartLayout::of(&rules, &PartSizes::default(), 48, bits).size(7);
        assert_eq!((size(Some(3_000_000)), size(Some(6_000_000)), size(None)), (5 << 20, 8 << 20, 8 << 20));
        assert!(size(Some(SLOW_BITS_PER_SECOND)) * 10_000 * 8 / SLOW_BITS_PER_SECOND > 24 * 3600 - 4000);
    }

    #[test]
    fn where_parts_may_have_any_size_the_first_is_what_is_rewritten() {
        let rules = PartRules { min_part_bytes: 1, max_parts: 50_000, ..s3() };
        let layout = PartLayout::of(&rules, &PartSizes::default(), 48, None);
        assert_eq!((layout.size(1), layout.size(2)), (48, 8 << 20));
        assert!(!layout.flows(1) && layout.flows(2));
        let layout = PartLayout::of(&rules, &PartSizes::default(), 0, None);
        assert!(layout.flows(1), "nothing is rewritten in an OGG");
    }
}
