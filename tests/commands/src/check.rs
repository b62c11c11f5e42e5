//! Checks arguments against the table. Pure; the caller prints usage and refusals.

use std::fmt::{self, Display, Formatter};

use crate::{Command, Flag, Value};

/// Arguments that the table allows.
#[derive(Debug, PartialEq, Eq)]
pub struct Given {
    /// As given, without the leading `--` that separates them from cargo's own.
    pub arguments: Vec<String>,
    /// `--help` or `-h`: only the usage is wanted.
    pub help: bool,
    values: Vec<(&'static str, String)>,
}

impl Given {
    /// The value of a flag (with its dashes); the last one where the flag is repeated.
    pub fn value(&self, flag: &str) -> Option<&str> {
        self.values.iter().rev().find(|(name, _)| *name == flag).map(|(_, value)| value.as_str())
    }

    /// Every value of a flag that may be repeated.
    pub fn values<'a>(&'a self, flag: &'a str) -> impl Iterator<Item = &'a str> {
        self.values.iter().filter(move |(name, _)| *name == flag).map(|(_, value)| value.as_str())
    }

    /// Whether a flag or switch is given.
    pub fn has(&self, flag: &str) -> bool {
        self.values.iter().any(|(name, _)| *name == flag)
    }
}

/// Why arguments are refused, and the usage.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    message: String,
}

impl Display for Refusal {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

impl Command {
    /// Checks arguments. One leading `--` is dropped: `cargo demo -- --seconds 5` is `cargo demo --seconds 5`.
    ///
    /// # Errors
    ///
    /// A flag, a name or a value that the command does not know. A retry is useless.
    pub fn check(&self, arguments: &[String]) -> Result<Given, Refusal> {
        let arguments = arguments.strip_prefix(&["--".to_owned()][..]).unwrap_or(arguments);
        let mut given = Given { arguments: arguments.to_vec(), help: false, values: vec![] };
        let (mut rest, mut filtered) = (arguments.iter(), false);
        while let Some(argument) = rest.next() {
            if argument == "--" && self.for_cargo_test {
                break;
            }
            if argument == "--help" || argument == "-h" {
                given.help = true;
                continue;
            }
            if !argument.starts_with('-') && self.for_cargo_test {
                if filtered {
                    return Err(
                        self.refuse(format!("{argument:?} is a second name; `cargo test` takes one before `--`"))
                    );
                }
                filtered = true;
                continue;
            }
            let (name, after) = match argument.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (argument.as_str(), None),
            };
            let Some(flag) = self.flags.iter().find(|flag| flag.name == name) else {
                return Err(self.refuse(format!("{argument:?} is not known")));
            };
            if given.has(flag.name) && !self.for_cargo_test {
                return Err(self.refuse(format!("{} is there twice", flag.name)));
            }
            let value = match (flag.value, after) {
                (None, None) => String::new(),
                (None, Some(_)) => return Err(self.refuse(format!("{name} takes no value"))),
                (Some(kind), after) => {
                    let value = after.or_else(|| rest.next().filter(|next| !next.starts_with('-')).cloned());
                    let value = value.ok_or_else(|| self.refuse(format!("{name} lacks its value")))?;
                    kind.check(&value).map_err(|why| self.refuse(format!("{name} {value:?}: {why}")))?;
                    value
                }
            };
            given.values.push((flag.name, value));
        }
        Ok(given)
    }

    /// Text of `--help`: the command and its flags.
    pub fn usage(&self) -> String {
        let mut lines = vec![format!("cargo {}: {}", self.name, self.about)];
        lines.extend(self.flags.iter().map(Flag::usage));
        if self.for_cargo_test {
            lines.push(
                "  NAME                  only tests whose name contains it; after `--`: the test programs' own".into(),
            );
        }
        lines.join("\n")
    }

    fn refuse(&self, what: String) -> Refusal {
        Refusal { message: format!("{what}\n\n{}", self.usage()) }
    }
}

impl Flag {
    fn usage(&self) -> String {
        let value = match self.value {
            None => "",
            Some(Value::Number) => " NUMBER",
            Some(Value::Whole) => " COUNT",
            Some(Value::Text | Value::OneOf(_) | Value::PieceOf(_)) => " TEXT",
        };
        let line = format!("  {:<21} {}", format!("{}{value}", self.name), self.about);
        match self.value {
            Some(Value::OneOf(names) | Value::PieceOf(names)) => format!("{line}: {}", quoted(names)),
            _ => line,
        }
    }
}

impl Value {
    fn check(self, value: &str) -> Result<(), String> {
        let is_allowed = match self {
            Self::Number => value.parse::<f64>().is_ok_and(|number| number.is_finite() && number >= 0.0),
            Self::Whole => value.parse::<u64>().is_ok(),
            Self::Text => !value.is_empty(),
            Self::OneOf(names) => names.contains(&value),
            Self::PieceOf(names) => names.iter().any(|name| name.contains(value)),
        };
        match self {
            _ if is_allowed => Ok(()),
            Self::Number => Err("not a number of at least 0".to_owned()),
            Self::Whole => Err("not a whole number".to_owned()),
            Self::Text => Err("empty".to_owned()),
            Self::OneOf(names) => Err(format!("none of {}", quoted(names))),
            Self::PieceOf(names) => Err(format!("in none of {}", quoted(names))),
        }
    }
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
