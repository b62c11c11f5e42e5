//! AMF0 values of RTMP commands (Adobe, Action Message Format 0): what we send, and what a server answers. Pure; bounded
//! in depth and number, because a server's bytes come in. What Adobe reserves and AMF3 are not read.
//!
//! Our own: `rml_amf0` and its like read without a bound.

/// Values inside of values, so many deep.
const MAX_DEPTH: usize = 16;
/// Values in one message, members and elements counted.
const MAX_VALUES: usize = 4096;

const NUMBER: u8 = 0;
const BOOLEAN: u8 = 1;
const STRING: u8 = 2;
const OBJECT: u8 = 3;
const NULL: u8 = 5;
const UNDEFINED: u8 = 6;
const REFERENCE: u8 = 7;
const ECMA_ARRAY: u8 = 8;
const OBJECT_END: u8 = 9;
const STRICT_ARRAY: u8 = 10;
const DATE: u8 = 11;
const LONG_STRING: u8 = 12;
const UNSUPPORTED: u8 = 13;
const XML: u8 = 15;
const TYPED_OBJECT: u8 = 16;

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub enum AmfValue {
    /// Every number is a double.
    Number(f64),
    /// True or false.
    Boolean(bool),
    /// Also XML. What was no UTF-8 has replacement characters.
    Text(String),
    /// An object, named or not, or an ECMA array: members in the order of the message; a name may occur twice.
    Object(Vec<(String, AmfValue)>),
    /// An array by index.
    List(Vec<AmfValue>),
    /// Milliseconds since 1970.
    Date(f64),
    /// Null, undefined, unsupported, and references to other objects.
    Null,
}

/// The bytes are no AMF0, or more of it than a command has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmfError {
    /// A value ends behind the message's end.
    #[error("a value is cut off")]
    CutOff,
    /// A type that is reserved or not AMF0.
    #[error("type {0} is unknown")]
    UnknownType(u8),
    /// Nested too deep.
    #[error("values are nested too deep")]
    TooDeep,
    /// Too many values.
    #[error("too many values")]
    TooMany,
}

impl AmfValue {
    /// A text value.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A member of an object; the first one of this name.
    pub fn member(&self, name: &str) -> Option<&Self> {
        let Self::Object(members) = self else { return None };
        members.iter().find(|(of, _)| of == name).map(|(_, value)| value)
    }

    /// The text of a text value.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number of a number value.
    pub fn as_number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// Appends the value's bytes.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Number(number) => {
                out.push(NUMBER);
                out.extend_from_slice(&number.to_be_bytes());
            }
            Self::Boolean(value) => out.extend_from_slice(&[BOOLEAN, u8::from(*value)]),
            Self::Text(text) if text.len() > usize::from(u16::MAX) => {
                out.push(LONG_STRING);
                out.extend_from_slice(&(text.len() as u32).to_be_bytes());
                out.extend_from_slice(text.as_bytes());
            }
            Self::Text(text) => {
                out.push(STRING);
                write_short(out, text);
            }
            Self::Object(members) => {
                out.push(OBJECT);
                for (name, value) in members {
                    write_short(out, name);
                    value.write(out);
                }
                out.extend_from_slice(&[0, 0, OBJECT_END]);
            }
            Self::List(values) => {
                out.push(STRICT_ARRAY);
                out.extend_from_slice(&(values.len() as u32).to_be_bytes());
                values.iter().for_each(|value| value.write(out));
            }
            Self::Date(at_ms) => {
                out.push(DATE);
                out.extend_from_slice(&at_ms.to_be_bytes());
                // The time zone, which is reserved.
                out.extend_from_slice(&[0, 0]);
            }
            Self::Null => out.push(NULL),
        }
    }
}

/// Length of two bytes and text. Names are our own and short; a longer one loses its end.
fn write_short(out: &mut Vec<u8>, text: &str) {
    let bytes = &text.as_bytes()[..text.len().min(usize::from(u16::MAX))];
    out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// The bytes of a command: its values one after the other.
pub fn encode(values: &[AmfValue]) -> Vec<u8> {
    let mut out = Vec::new();
    values.iter().for_each(|value| value.write(&mut out));
    out
}

/// The values of a command.
///
/// # Errors
///
/// When the bytes are no AMF0 or exceed the bounds; for good. Nothing is allocated that the bytes do not contain.
pub fn decode(bytes: &[u8]) -> Result<Vec<AmfValue>, AmfError> {
    let mut reader = AmfReader { rest: bytes, values_left: MAX_VALUES };
    let mut values = Vec::new();
    while !reader.rest.is_empty() {
        values.push(reader.value(0)?);
    }
    Ok(values)
}

struct AmfReader<'a> {
    rest: &'a [u8],
    values_left: usize,
}

impl<'a> AmfReader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], AmfError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(AmfError::CutOff)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], AmfError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(AmfError::CutOff)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn number(&mut self) -> Result<f64, AmfError> {
        Ok(f64::from_be_bytes(self.array()?))
    }

    fn short_text(&mut self) -> Result<String, AmfError> {
        let length = u16::from_be_bytes(self.array()?);
        Ok(String::from_utf8_lossy(self.take(usize::from(length))?).into_owned())
    }

    fn long_text(&mut self) -> Result<String, AmfError> {
        let length = u32::from_be_bytes(self.array()?);
        Ok(String::from_utf8_lossy(self.take(length as usize)?).into_owned())
    }

    fn value(&mut self, depth: usize) -> Result<AmfValue, AmfError> {
        if depth > MAX_DEPTH {
            return Err(AmfError::TooDeep);
        }
        self.values_left = self.values_left.checked_sub(1).ok_or(AmfError::TooMany)?;
        let [kind] = self.array()?;
        Ok(match kind {
            NUMBER => AmfValue::Number(self.number()?),
            BOOLEAN => AmfValue::Boolean(self.array::<1>()? != [0]),
            STRING => AmfValue::Text(self.short_text()?),
            OBJECT => self.object(depth)?,
            NULL | UNDEFINED | UNSUPPORTED => AmfValue::Null,
            REFERENCE => {
                self.take(2)?;
                AmfValue::Null
            }
            ECMA_ARRAY => {
                // The number of members is a hint; the end is marked as in an object.
                self.take(4)?;
                self.object(depth)?
            }
            STRICT_ARRAY => {
                let count = u32::from_be_bytes(self.array()?);
                let mut values = Vec::new();
                for _ in 0..count {
                    values.push(self.value(depth + 1)?);
                }
                AmfValue::List(values)
            }
            DATE => {
                let at_ms = self.number()?;
                self.take(2)?;
                AmfValue::Date(at_ms)
            }
            LONG_STRING | XML => AmfValue::Text(self.long_text()?),
            TYPED_OBJECT => {
                self.short_text()?;
                self.object(depth)?
            }
            unknown => return Err(AmfError::UnknownType(unknown)),
        })
    }

    fn object(&mut self, depth: usize) -> Result<AmfValue, AmfError> {
        let mut members = Vec::new();
        loop {
            if let Some(rest) = self.rest.strip_prefix(&[0, 0, OBJECT_END]) {
                self.rest = rest;
                return Ok(AmfValue::Object(members));
            }
            let name = self.short_text()?;
            members.push((name, self.value(depth + 1)?));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_servers_answer_is_read() {
        // ffmpeg's and nginx-rtmp's shapes: `_result`, number, null, object; an ECMA array; a date.
        let mut bytes = encode(&[AmfValue::text("_result"), AmfValue::Number(1.0), AmfValue::Null]);
        bytes.extend_from_slice(&[ECMA_ARRAY, 0, 0, 0, 9, 0, 4]);
        bytes.extend_from_slice(b"code");
        AmfValue::text("NetConnection.Connect.Success").write(&mut bytes);
        bytes.extend_from_slice(&[0, 0, OBJECT_END]);
        AmfValue::Date(12.0).write(&mut bytes);
        let values = decode(&bytes).unwrap();
        assert_eq!(values.len(), 5);
        assert_eq!(values[3].member("code").and_then(AmfValue::as_text), Some("NetConnection.Connect.Success"));
        assert_eq!((values[1].as_number(), &values[4]), (Some(1.0), &AmfValue::Date(12.0)));
    }

    #[test]
    fn a_long_text_has_a_long_length() {
        let long = AmfValue::text("a".repeat(70_000));
        assert_eq!(decode(&encode(std::slice::from_ref(&long))), Ok(vec![long]));
    }

    #[test]
    fn what_is_too_much_is_refused() {
        let deep: Vec<u8> = [STRICT_ARRAY, 0, 0, 0, 1].repeat(10_000);
        assert_eq!(decode(&deep), Err(AmfError::TooDeep));
        assert_eq!(decode(&[NULL].repeat(MAX_VALUES + 1)), Err(AmfError::TooMany));
        let many = [&[STRICT_ARRAY, 0xff, 0xff, 0xff, 0xff][..], &[NULL].repeat(5000)].concat();
        assert_eq!(decode(&many), Err(AmfError::TooMany));
        assert_eq!(decode(&[LONG_STRING, 0xff, 0xff, 0xff, 0xff, 0]), Err(AmfError::CutOff));
        assert_eq!(decode(&[17]), Err(AmfError::UnknownType(17)));
    }

    fn value() -> impl Strategy<Value = AmfValue> {
        let leaf = prop_oneof![
            any::<i32>().prop_map(|number| AmfValue::Number(number.into())),
            any::<bool>().prop_map(AmfValue::Boolean),
            "[ -~]{0,20}".prop_map(AmfValue::Text),
            Just(AmfValue::Null),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(("[a-z]{1,8}", inner.clone()), 0..5).prop_map(AmfValue::Object),
                proptest::collection::vec(inner, 0..5).prop_map(AmfValue::List),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(values in proptest::collection::vec(value(), 0..6)) {
            prop_assert_eq!(decode(&encode(&values)), Ok(values));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(prop_oneof![0u8..18, any::<u8>()], 0..600)) {
            if let Ok(values) = decode(&bytes) {
                prop_assert!(values.len() <= bytes.len());
            }
        }
    }
}
