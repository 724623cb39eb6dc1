//! `--docker-opts`

use std::{fmt, path::PathBuf};

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::CliError;

/// The options of the flag: JSON, or `@FILE` with it. What they mean is the server's to judge; but of two under one name
/// only one would reach it, so those are refused here.
pub(super) fn docker_options(flag: Option<&str>) -> Result<Option<Value>, CliError> {
    let Some(flag) = flag else { return Ok(None) };
    let json = match flag.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path).map_err(|source| CliError::File {
            path: PathBuf::from(path),
            source,
        })?,
        None => flag.to_owned(),
    };
    let Exact(options) = serde_json::from_str(&json)
        .map_err(|error| CliError::Usage(format!("--docker-opts takes JSON or @FILE: {error}")))?;
    if options.is_object() {
        return Ok(Some(options));
    }
    let example = "--docker-opts takes an object, such as {\"Memory\": \"2g\"}";
    Err(CliError::Usage(example.to_owned()))
}

/// A value of JSON in which no object has one name twice.
struct Exact(Value);

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader).map(Exact)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("no number"))?;
        Ok(Value::Number(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        Ok(Value::from(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Exact(value)) = sequence.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Map::new();
        while let Some((name, Exact(value))) = map.next_entry::<String, Exact>()? {
            if entries.insert(name.clone(), value).is_some() {
                return Err(A::Error::custom(format!("{name:?} is given twice")));
            }
        }
        Ok(Value::Object(entries))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use serde_json::json;

    use super::*;

    fn read(flag: &str) -> Result<Option<Value>, String> {
        docker_options(Some(flag)).map_err(|error| error.to_string())
    }

    #[test]
    fn options_are_taken_from_the_flag_or_a_file() {
        let written = r#"{"Memory": "2g", "Ulimits": [{"Name": "core", "Soft": 0, "Hard": 0}], "CpuQuota": -1.5}"#;
        let expected: Value = serde_json::from_str(written).unwrap();
        assert_eq!(read(written), Ok(Some(expected.clone())));
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(written.as_bytes()).unwrap();
        let flag = format!("@{}", file.path().display());
        assert_eq!(read(&flag), Ok(Some(expected)));
        assert_eq!(read("{}"), Ok(Some(json!({}))));
        assert!(docker_options(None).unwrap().is_none());
    }

    #[test]
    fn what_would_not_arrive_as_it_was_written_is_refused() {
        for (flag, says) in [
            (r#"{"Memory": 1, "Memory": 2}"#, "\"Memory\" is given twice"),
            (
                r#"{"Tmpfs": {"/tmp": "", "\u002ftmp": ""}}"#,
                "\"/tmp\" is given twice",
            ),
            (r#"{"Memory": 1e999}"#, "takes JSON"),
            ("Memory=2g", "takes JSON"),
            ("{} {}", "takes JSON"),
            ("[]", "takes an object"),
            ("null", "takes an object"),
            ("@/no/such/file", "/no/such/file"),
        ] {
            let refused = read(flag).unwrap_err();
            assert!(refused.contains(says), "{flag}: {refused}");
        }
    }
}
