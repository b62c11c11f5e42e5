//! One word, one meaning: words of the former private language stay out of identifiers, and a type name is defined once.

use std::collections::BTreeMap;
use std::str::FromStr;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

use crate::sources::{self, SHIPPED};

/// Parts of an identifier (`snake_case` or `CamelCase`), in the singular.
const BANNED: &[&str] = &[
    "words",
    "house",
    "weir",
    "easel",
    "happening",
    "patience",
    "errand",
    "sighting",
    "departure",
    "mouth",
    "ears",
    "shelf",
    "knobs",
    "strays",
    "foresee",
    "lookout",
    "settler",
    "habit",
    "onward",
    "brush",
    "rung",
    "wish",
    "tally",
    "desk",
    "roll",
    "seated",
    "cue",
    "entrance",
    "doubt",
];

#[test]
fn identifiers_use_standard_terms() {
    let mut found = Vec::new();
    for (path, text) in sources::texts() {
        let tokens = TokenStream::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
        each_identifier(tokens, &mut |identifier| {
            if let Some(part) = parts(identifier).into_iter().find(|part| is_banned(part)) {
                found.push(format!("{path}: `{identifier}` ({part})"));
            }
        });
    }
    found.sort();
    found.dedup();
    assert!(found.is_empty(), "{} banned identifiers:\n{}", found.len(), found.join("\n"));
}

#[test]
fn a_type_name_has_one_definition() {
    let mut definitions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for folder in SHIPPED {
        for source in sources::library(folder) {
            let mut types = Types::default();
            types.visit_file(&source.syntax);
            for name in types.found {
                definitions.entry(name).or_default().push(source.path.clone());
            }
        }
    }
    assert!(!definitions.is_empty(), "no type is found");
    let repeated = definitions.iter().filter(|(_, places)| places.len() > 1);
    let repeated: Vec<String> = repeated.map(|(name, places)| format!("{name}: {}", places.join(", "))).collect();
    assert!(repeated.is_empty(), "type names with more than one definition:\n{}", repeated.join("\n"));
}

#[test]
fn a_banned_part_is_found_in_either_spelling() {
    for bad in ["words", "has_words", "WordsOf", "Houses", "MAX_PATIENCE", "wishes", "by_patience_ns"] {
        assert!(parts(bad).iter().any(|part| is_banned(part)), "{bad}");
    }
    for good in ["keywords", "greenhouse", "enrolled", "message", "Rollback", "entry", "bears"] {
        assert!(!parts(good).iter().any(|part| is_banned(part)), "{good}");
    }
}

fn is_banned(part: &str) -> bool {
    let singular = [Some(part), part.strip_suffix('s'), part.strip_suffix("es")];
    singular.into_iter().flatten().any(|part| BANNED.contains(&part))
}

/// `has_words` → has, words; `LaneEars` → lane, ears.
fn parts(identifier: &str) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    let mut previous = '_';
    for c in identifier.chars() {
        if c != '_' {
            let begins = previous == '_' || (c.is_uppercase() && !previous.is_uppercase());
            match parts.last_mut() {
                Some(part) if !begins => part.extend(c.to_lowercase()),
                _ => parts.push(c.to_lowercase().collect()),
            }
        }
        previous = c;
    }
    parts
}

fn each_identifier(tokens: TokenStream, each: &mut impl FnMut(&str)) {
    for token in tokens {
        match token {
            TokenTree::Ident(identifier) => each(&identifier.to_string()),
            TokenTree::Group(group) => each_identifier(group.stream(), each),
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
}

/// Names of the types that a file defines.
#[derive(Default)]
struct Types {
    found: Vec<String>,
}

impl<'ast> Visit<'ast> for Types {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !sources::is_for_tests(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.found.push(item.ident.to_string());
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.found.push(item.ident.to_string());
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.found.push(item.ident.to_string());
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        self.found.push(item.ident.to_string());
    }
}
