//! Names of the built-in layouts.

use crate::error::PlanError;
use crate::types::{LayoutName, LayoutShape};

/// The names of livekit/egress' default template. Any other name is refused: a misspelt one would otherwise be noticed only
/// in the finished recording.
const KNOWN: &str = "grid, speaker, single-speaker, each also with -light or -dark";

impl LayoutName {
    /// The default.
    pub const GRID: Self = Self { shape: LayoutShape::Grid, light: false };

    /// Reads the request's `layout`; empty is the grid.
    ///
    /// # Errors
    ///
    /// [`PlanError::Impossible`] with the known names. A retry is useless.
    pub fn parse(name: &str) -> Result<Self, PlanError> {
        let (shape, light) = match name.strip_suffix("-light") {
            Some(shape) => (shape, true),
            None => (name.strip_suffix("-dark").unwrap_or(name), false),
        };
        let shape = match shape {
            "grid" => LayoutShape::Grid,
            "" if name.is_empty() => LayoutShape::Grid,
            "speaker" => LayoutShape::Speaker,
            "single-speaker" => LayoutShape::SingleSpeaker,
            _ => {
                let asked = format!("`{}`", name.chars().take(64).collect::<String>());
                return Err(PlanError::Impossible { field: "layout", asked, possible: KNOWN });
            }
        };
        Ok(Self { shape, light })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_in_use_is_known_and_others_are_refused_with_the_list() {
        for (name, shape, light) in [
            ("", LayoutShape::Grid, false),
            ("grid", LayoutShape::Grid, false),
            ("grid-dark", LayoutShape::Grid, false),
            ("grid-light", LayoutShape::Grid, true),
            ("speaker", LayoutShape::Speaker, false),
            ("speaker-dark", LayoutShape::Speaker, false),
            ("speaker-light", LayoutShape::Speaker, true),
            ("single-speaker", LayoutShape::SingleSpeaker, false),
            ("single-speaker-dark", LayoutShape::SingleSpeaker, false),
            ("single-speaker-light", LayoutShape::SingleSpeaker, true),
        ] {
            assert_eq!(LayoutName::parse(name), Ok(LayoutName { shape, light }), "{name}");
        }
        for name in ["nosuch", "-light", "-dark", "grid-light-light", "Speaker", "grid-blue", " "] {
            let error = LayoutName::parse(name).expect_err(name).to_string();
            assert!(error.contains("layout") && error.contains("single-speaker"), "{error}");
        }
    }
}
