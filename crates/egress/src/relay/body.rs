//! The body of a request: read whole, looked at, and passed on byte for byte.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Incoming};
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, Visitor},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::refusal::Denial;

/// Memory is given out in pieces of this size.
const PIECE_BYTES: usize = 1024;

/// How much of the server's memory bodies may take at a time.
#[derive(Clone)]
pub(crate) struct Buffers(Arc<Semaphore>);

/// A body's place in memory.
pub(crate) type Place = OwnedSemaphorePermit;

impl Buffers {
    pub(crate) fn new(bytes: usize) -> Self {
        let pieces = (bytes / PIECE_BYTES).min(Semaphore::MAX_PERMITS);
        Buffers(Arc::new(Semaphore::new(pieces)))
    }

    fn take(&self, bytes: usize) -> Result<Place, Denial> {
        let pieces = u32::try_from(bytes.div_ceil(PIECE_BYTES)).map_err(|_| Denial::Buffers)?;
        Arc::clone(&self.0)
            .try_acquire_many_owned(pieces)
            .map_err(|_| Denial::Buffers)
    }
}

/// Reads a body of at most `limit_bytes` within `timeout`, once each of `buffers` has room for all of it. Its length is
/// known: bodies without one were refused.
pub(crate) async fn read(
    body: Incoming,
    limit_bytes: usize,
    buffers: [&Buffers; 2],
    timeout: Duration,
) -> Result<(Bytes, [Place; 2]), Denial> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > limit_bytes {
        return Err(Denial::BodyTooLarge { limit_bytes });
    }
    let [own, shared] = buffers;
    let places = [own.take(announced)?, shared.take(announced)?];
    let whole = Limited::new(body, announced).collect();
    match tokio::time::timeout(timeout, whole).await {
        Err(_) => Err(Denial::BodyTimeout),
        Ok(Ok(collected)) => Ok((collected.to_bytes(), places)),
        Ok(Err(_)) => Err(Denial::BodyBroken),
    }
}

/// What the relay reads of a request's body.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub model: Option<String>,
    pub max_tokens: Option<u64>,
    pub stream: bool,
    /// How fast the answer shall be, which has a price.
    pub speed: Option<String>,
    /// Where it shall be made, which has a price.
    pub inference_geo: Option<String>,
}

/// Looks at a body. A provider's parser must not be able to see another model than this one: a key that comes twice, or
/// in other letters' case, is refused.
pub(crate) fn look(body: &[u8]) -> Result<Seen, Denial> {
    serde_json::from_slice(body).map_err(|_| Denial::BodyNotJson)
}

impl<'de> Deserialize<'de> for Seen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(SeenVisitor)
    }
}

struct SeenVisitor;

impl<'de> Visitor<'de> for SeenVisitor {
    type Value = Seen;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Seen, A::Error> {
        let (mut model, mut max_tokens, mut stream) = (None, None, None);
        let (mut speed, mut inference_geo) = (None, None);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "model" => once(&mut model, map.next_value()?)?,
                "max_tokens" => once(&mut max_tokens, map.next_value()?)?,
                "stream" => once(&mut stream, map.next_value()?)?,
                "speed" => once(&mut speed, map.next_value()?)?,
                "inference_geo" => once(&mut inference_geo, map.next_value()?)?,
                other if looks_like_one(other) => {
                    return Err(A::Error::custom("a key in another case"));
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Seen {
            model: model.flatten(),
            max_tokens: max_tokens.flatten(),
            stream: stream.flatten().unwrap_or(false),
            speed: speed.flatten(),
            inference_geo: inference_geo.flatten(),
        })
    }
}

fn once<T, E: Error>(slot: &mut Option<Option<T>>, value: Option<T>) -> Result<(), E> {
    if slot.replace(value).is_some() {
        return Err(E::custom("a key twice"));
    }
    Ok(())
}

fn looks_like_one(key: &str) -> bool {
    ["model", "max_tokens", "stream", "speed", "inference_geo"]
        .iter()
        .any(|known| key.eq_ignore_ascii_case(known))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn three_things_are_read_and_the_rest_is_not() {
        let seen = look(
            br#" {"messages":[{"role":"system","model":"inner"}],"mod\u0065l":"m","max_tokens":32000,"stream":true,"x":{"stream":1}} "#,
        )
        .unwrap();
        assert_eq!(
            seen,
            Seen {
                model: Some("m".to_owned()),
                max_tokens: Some(32_000),
                stream: true,
                ..Seen::default()
            }
        );
        assert_eq!(look(b"{}").unwrap(), Seen::default());
        let deep = format!(
            r#"{{"x":{}{},"model":"m"}}"#,
            "[".repeat(10_000),
            "]".repeat(10_000)
        );
        assert_eq!(look(deep.as_bytes()).unwrap().model.as_deref(), Some("m"));
    }

    #[test]
    fn what_two_parsers_may_read_differently_is_refused() {
        for body in [
            r#"{"model":"a","model":"b"}"#,
            r#"{"model":"a","mod\u0065l":"b"}"#,
            r#"{"model":"a","Model":"b"}"#,
            r#"{"model":null,"model":"b"}"#,
            r#"{"model":"a"} {"model":"b"}"#,
            r#"["a",1,true]"#,
            r#"{"model":["a"]}"#,
            r#"{"max_tokens":-1}"#,
            r#"{"stream":"yes"}"#,
            r#"{"speed":"standard","Speed":"fast"}"#,
            r#"{"speed":"standard","speed":"fast"}"#,
            r#"{"inference_geo":1}"#,
            r#"{"model":"a""#,
            "\u{feff}{}",
            "",
            "null",
        ] {
            assert_eq!(look(body.as_bytes()), Err(Denial::BodyNotJson), "{body}");
        }
    }
}
