//! `dockerOpts`: JSON into nouns, without losing anything. What the options mean, and which are refused, is policy's.

use std::{cell::Cell, fmt};

use model::{DockerOptions, OptionValue, Unreadable};
use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// Levels of lists and objects below an option: the deepest that an engine knows, a device request, has three.
const MAX_DEPTH: usize = 4;
/// Values in all: an engine has some seventy options.
const MAX_VALUES: usize = 1_000;

/// Reads the argument.
pub(super) fn read(json: &[u8]) -> DockerOptions {
    let left = Cell::new(MAX_VALUES);
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let whole = Reader {
        depth: MAX_DEPTH + 1,
        left: &left,
    };
    let read = whole.deserialize(&mut deserializer);
    match read.and_then(|value| deserializer.end().map(|()| value)) {
        Ok(OptionValue::Object(entries)) => DockerOptions(entries),
        Ok(_) => DockerOptions::unreadable(Unreadable::NoObject),
        Err(_) if left.get() == 0 => DockerOptions::unreadable(Unreadable::TooMany),
        Err(_) => DockerOptions::unreadable(Unreadable::NoJson),
    }
}

/// Reads one value.
#[derive(Clone, Copy)]
struct Reader<'a> {
    /// Levels that may still open.
    depth: usize,
    /// Values that may still come.
    left: &'a Cell<usize>,
}

impl<'a> Reader<'a> {
    fn below(self) -> Option<Reader<'a>> {
        let depth = self.depth.checked_sub(1)?;
        Some(Reader { depth, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = OptionValue;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<OptionValue, D::Error> {
        let left = self.left.get().checked_sub(1);
        self.left.set(left.unwrap_or(0));
        if left.is_none() {
            return Err(D::Error::custom("too many values"));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = OptionValue;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<OptionValue, E> {
        Ok(OptionValue::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<OptionValue, E> {
        Ok(OptionValue::Boolean(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<OptionValue, E> {
        Ok(OptionValue::Integer(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<OptionValue, E> {
        let beyond = OptionValue::Unreadable(Unreadable::NoWholeNumber);
        Ok(i64::try_from(value).map_or(beyond, OptionValue::Integer))
    }

    fn visit_f64<E: Error>(self, _value: f64) -> Result<OptionValue, E> {
        Ok(OptionValue::Unreadable(Unreadable::NoWholeNumber))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<OptionValue, E> {
        Ok(OptionValue::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<OptionValue, A::Error> {
        let Some(below) = self.below() else {
            while sequence.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(OptionValue::Unreadable(Unreadable::TooDeep));
        };
        let mut values = Vec::new();
        while let Some(value) = sequence.next_element_seed(below)? {
            values.push(value);
        }
        Ok(OptionValue::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<OptionValue, A::Error> {
        let Some(below) = self.below() else {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(OptionValue::Unreadable(Unreadable::TooDeep));
        };
        let mut entries = Vec::new();
        while let Some(name) = map.next_key()? {
            entries.push((name, map.next_value_seed(below)?));
        }
        Ok(OptionValue::Object(entries))
    }
}
