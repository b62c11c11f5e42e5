//! Labels as each platform allows them. Pure; the same label always becomes the same text, because a launch that is asked
//! again must not differ by a letter.

/// Values of AWS tags: letters, digits, spaces and `+ - = . _ : / @`; others become `_`. A vowel sign is no letter there
/// (it is to Rust), and `aws:` at the beginning is Amazon's own.
#[cfg(feature = "ecs")]
pub(crate) fn aws(text: &str) -> String {
    use icu_properties::CodePointMapData;
    use icu_properties::props::{GeneralCategory, GeneralCategoryGroup};
    let categories = CodePointMapData::<GeneralCategory>::new();
    let spoken = GeneralCategoryGroup::Letter.union(GeneralCategoryGroup::Number);
    let allowed = |c: char| c == ' ' || "+-=._:/@".contains(c) || spoken.contains(categories.get(c));
    let mut label: String = text.chars().map(|c| if allowed(c) { c } else { '_' }).take(256).collect();
    if label.get(..4).is_some_and(|begin| begin.eq_ignore_ascii_case("aws:")) {
        label.replace_range(3..4, "_");
    }
    label
}

/// Names and values of Google's labels: small letters, digits, `-` and `_`, sixty-three of them. What is left out of a
/// long text or changed in it does not come back.
#[cfg(any(feature = "cloud-run", test))]
pub(crate) fn google(text: &str) -> String {
    let small = |c: char| match c.to_ascii_lowercase() {
        c @ ('a'..='z' | '0'..='9' | '-' | '_') => c,
        _ => '_',
    };
    text.chars().map(small).take(63).collect()
}

/// Values of Azure's tags hold anything printable; names no `< > % & \ ? /`.
#[cfg(any(feature = "aci", test))]
pub(crate) fn azure_name(text: &str) -> String {
    text.chars().map(|c| if "<>%&\\?/".contains(c) || c.is_control() { '_' } else { c }).take(512).collect()
}

#[cfg(any(feature = "aci", test))]
pub(crate) fn azure_value(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '_' } else { c }).take(256).collect()
}

/// What every task carries, whatever the order says: whose it is and for what. These names the launchers read again.
#[cfg(any(feature = "ecs", feature = "aci", feature = "docker"))]
pub(crate) fn of(order: &crate::LaunchOrder, stack: &str) -> std::collections::BTreeMap<String, String> {
    let mut labels = order.labels.clone();
    labels.insert("egress_id".to_owned(), order.egress_id.to_string());
    labels.insert("attempt".to_owned(), order.attempt.to_string());
    labels.insert("stack".to_owned(), stack.to_owned());
    labels
}

/// The egress and attempt of a task of ours, by its labels.
#[cfg(any(feature = "ecs", feature = "aci", feature = "docker"))]
pub(crate) fn read<'a>(
    stack: &str,
    label: impl Fn(&str) -> Option<&'a str>,
) -> Option<(spillway_protocol::ids::EgressId, u32)> {
    if label("stack") != Some(stack) {
        return None;
    }
    let egress_id = spillway_protocol::ids::EgressId::parse(label("egress_id")?).ok()?;
    Some((egress_id, label("attempt")?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "ecs")]
    #[test]
    fn aws_takes_letters_of_every_script_and_nothing_of_its_own() {
        assert_eq!(aws("Küche / 1 <&>"), "Küche / 1 ___");
        assert_eq!(aws("हिन्दी ½ 🎬"), "ह_न_द_ ½ _");
        assert_eq!((aws("aws:room").as_str(), aws("AWS:").as_str(), aws("aws").as_str()), ("aws_room", "AWS_", "aws"));
        assert_eq!(aws(&"x".repeat(300)).len(), 256);
    }

    #[test]
    fn a_label_becomes_what_each_platform_allows() {
        assert_eq!(google("Room A/b"), "room_a_b");
        assert_eq!(google(&"x".repeat(300)).len(), 63);
        assert_eq!(azure_name("a/b?c"), "a_b_c");
        assert_eq!(azure_value("a/b\n"), "a/b_");
    }
}
