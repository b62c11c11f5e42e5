//! Labels as each platform allows them, and the labels that identify a task. Pure; the same label always becomes the same
//! text, because a repeated launch must not differ in any letter.

/// Values of AWS tags: letters, digits, spaces and `+ - = . _ : / @`; others become `_`. To AWS a vowel sign is no letter (to
/// Rust it is one), and the prefix `aws:` is reserved.
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

/// Names and values of Google's labels: lower-case letters, digits, `-` and `_`, at most sixty-three. Not reversible.
#[cfg(any(feature = "cloud-run", test))]
pub(crate) fn google(text: &str) -> String {
    let small = |c: char| match c.to_ascii_lowercase() {
        c @ ('a'..='z' | '0'..='9' | '-' | '_') => c,
        _ => '_',
    };
    text.chars().map(small).take(63).collect()
}

/// Names of Azure's tags: anything printable but `< > % & \ ? /`.
#[cfg(any(feature = "aci", test))]
pub(crate) fn azure_name(text: &str) -> String {
    text.chars().map(|c| if "<>%&\\?/".contains(c) || c.is_control() { '_' } else { c }).take(512).collect()
}

/// Values of Azure's tags: anything printable.
#[cfg(any(feature = "aci", test))]
pub(crate) fn azure_value(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '_' } else { c }).take(256).collect()
}

/// Label of the installation. Its values are lower-case letters and digits, which no platform changes.
#[cfg(any(feature = "ecs", feature = "aci", feature = "docker"))]
const INSTALLATION: &str = "installation";

/// The order's labels and those that every task has: egress, attempt, stack and installation, which [`read`] reads back.
#[cfg(any(feature = "ecs", feature = "aci", feature = "docker"))]
pub(crate) fn of(order: &crate::LaunchOrder, stack: &str) -> std::collections::BTreeMap<String, String> {
    let mut labels = order.labels.clone();
    labels.insert("egress_id".to_owned(), order.egress_id.to_string());
    labels.insert("attempt".to_owned(), order.attempt.to_string());
    labels.insert("stack".to_owned(), stack.to_owned());
    labels.insert(INSTALLATION.to_owned(), order.installation.clone());
    labels
}

/// Egress, attempt and installation of a task, by its labels; `None`: it is not of this stack.
#[cfg(any(feature = "ecs", feature = "aci", feature = "docker"))]
pub(crate) fn read<'a>(
    stack: &str,
    label: impl Fn(&str) -> Option<&'a str>,
) -> Option<(spillway_protocol::ids::EgressId, u32, String)> {
    if label("stack") != Some(stack) {
        return None;
    }
    let egress_id = spillway_protocol::ids::EgressId::parse(label("egress_id")?).ok()?;
    let installation = label(INSTALLATION).unwrap_or_default().to_owned();
    Some((egress_id, label("attempt")?.parse().ok()?, installation))
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

    /// As `spillway_bus::Installation` makes it.
    #[test]
    fn no_platform_changes_the_id_of_an_installation() {
        let id = "0fk3x9qz7m1bw8ty";
        assert_eq!(
            (google(id).as_str(), azure_value(id).as_str(), azure_name("installation").as_str()),
            (id, id, "installation")
        );
        #[cfg(feature = "ecs")]
        assert_eq!((aws(id).as_str(), aws("installation").as_str()), (id, "installation"));
    }

    #[cfg(any(feature = "ecs", feature = "aci", feature = "docker"))]
    #[test]
    fn a_task_names_its_installation_and_one_of_an_older_dispatcher_names_none() {
        let order = crate::conformance::order(spillway_cost::Platform::Fargate, "x", 2);
        let mut all = of(&order, "prod");
        let read_back = |all: &std::collections::BTreeMap<String, String>| {
            read("prod", |name| all.get(name).map(String::as_str))
                .map(|(_, attempt, installation)| (attempt, installation))
        };
        assert_eq!(read_back(&all), Some((2, order.installation.clone())));
        all.remove("installation");
        assert_eq!(read_back(&all), Some((2, String::new())));
        assert!(read("other", |name| all.get(name).map(String::as_str)).is_none());
    }
}
