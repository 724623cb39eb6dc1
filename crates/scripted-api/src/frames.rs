//! Events as bytes: server-sent events, and the binary event stream of AWS.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{BufMut as _, Bytes, BytesMut};
use serde_json::{Value, json};

use crate::request::Provider;

/// Length of a frame without headers and payload: two lengths, the code over them, the code over all.
const FRAME_OVERHEAD_BYTES: usize = 16;

/// The type tag of a string header in the event stream.
const STRING_HEADER: u8 = 7;

/// One event of a message, as the provider sends it.
pub(crate) fn event(provider: Provider, event: &Value) -> Bytes {
    match provider {
        Provider::Anthropic | Provider::Vertex => server_sent(event),
        Provider::Bedrock => {
            // `p` is padding against guessing from lengths, as the real one has it.
            let chunk = json!({"bytes": STANDARD.encode(event.to_string()), "p": "abcdefghij"});
            event_stream(
                &[(":event-type", "chunk"), (":message-type", "event")],
                &chunk,
            )
        }
    }
}

/// An error in mid-stream.
pub(crate) fn stream_error(provider: Provider, error_type: &str, message: &str) -> Bytes {
    match provider {
        Provider::Anthropic | Provider::Vertex => server_sent(
            &json!({"type": "error", "error": {"type": error_type, "message": message}}),
        ),
        Provider::Bedrock => event_stream(
            &[
                (":exception-type", exception(error_type)),
                (":message-type", "exception"),
            ],
            &json!({"message": message}),
        ),
    }
}

fn server_sent(event: &Value) -> Bytes {
    let name = event["type"].as_str().unwrap_or("message");
    Bytes::from(format!("event: {name}\ndata: {event}\n\n"))
}

/// The exceptions that `InvokeModelWithResponseStream` may have in its stream.
fn exception(error_type: &str) -> &'static str {
    match error_type {
        "overloaded_error" => "serviceUnavailableException",
        "rate_limit_error" => "throttlingException",
        "invalid_request_error" => "validationException",
        "timeout_error" => "modelTimeoutException",
        _ => "internalServerException",
    }
}

/// A frame of `application/vnd.amazon.eventstream`: big-endian lengths of all and of the headers, CRC-32 of these, headers
/// (name, type, value), payload, CRC-32 of everything before.
fn event_stream(names: &[(&str, &str)], payload: &Value) -> Bytes {
    let payload = payload.to_string();
    let mut headers = BytesMut::new();
    let all = names.iter().chain(&[(":content-type", "application/json")]);
    for (name, value) in all {
        headers.put_u8(length(name));
        headers.put_slice(name.as_bytes());
        headers.put_u8(STRING_HEADER);
        headers.put_u16(u16::from(length(value)));
        headers.put_slice(value.as_bytes());
    }
    let total = FRAME_OVERHEAD_BYTES + headers.len() + payload.len();
    let mut frame = BytesMut::with_capacity(total);
    frame.put_u32(u32::try_from(total).unwrap_or(u32::MAX));
    frame.put_u32(u32::try_from(headers.len()).unwrap_or(u32::MAX));
    frame.put_u32(crc32fast::hash(&frame));
    frame.put_slice(&headers);
    frame.put_slice(payload.as_bytes());
    frame.put_u32(crc32fast::hash(&frame));
    frame.freeze()
}

/// Names and values of our headers are short and fixed.
fn length(text: &str) -> u8 {
    u8::try_from(text.len()).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        message::{
            events, message,
            tests::{any_blocks, reassembled},
        },
        request::Request,
        script::Turn,
    };

    type Headers = Vec<(String, String)>;

    /// Headers and payload of a frame, and what follows it; nothing where a code is wrong.
    fn decoded(frame: &[u8]) -> Option<(Headers, Value, &[u8])> {
        let word = |at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().unwrap());
        let (total, headers) = (word(0) as usize, word(4) as usize);
        if word(8) != crc32fast::hash(&frame[..8])
            || frame.len() < total
            || word(total - 4) != crc32fast::hash(&frame[..total - 4])
        {
            return None;
        }
        let (mut rest, mut named) = (&frame[12..12 + headers], Vec::new());
        while !rest.is_empty() {
            let name = usize::from(rest[0]);
            assert_eq!(rest[1 + name], STRING_HEADER);
            let value = usize::from(u16::from_be_bytes([rest[2 + name], rest[3 + name]]));
            let text = |from: usize, to: usize| String::from_utf8(rest[from..to].to_vec()).unwrap();
            named.push((text(1, 1 + name), text(4 + name, 4 + name + value)));
            rest = &rest[4 + name + value..];
        }
        let payload = serde_json::from_slice(&frame[12 + headers..total - 4]).unwrap();
        Some((named, payload, &frame[total..]))
    }

    #[test]
    fn a_frame_is_what_aws_documents() {
        let frame = event(Provider::Bedrock, &json!({"type": "ping"}));
        let (headers, payload, rest) = decoded(&frame).unwrap();
        assert!(rest.is_empty());
        for (name, value) in [
            (":event-type", "chunk"),
            (":message-type", "event"),
            (":content-type", "application/json"),
        ] {
            assert!(
                headers.contains(&(name.to_owned(), value.to_owned())),
                "{headers:?}"
            );
        }
        let inner = STANDARD.decode(payload["bytes"].as_str().unwrap()).unwrap();
        assert_eq!(inner, br#"{"type":"ping"}"#);
    }

    #[test]
    fn the_codes_are_crc_32_as_zlib_has_it() {
        assert_eq!(crc32fast::hash(b"123456789"), 0xcbf4_3926);
        let frame = event(Provider::Bedrock, &json!({"type": "ping"}));
        assert!(decoded(&frame).is_some());
        for place in [0, 5, 9, 20, frame.len() - 6, frame.len() - 1] {
            let mut broken = frame.to_vec();
            broken[place] ^= 1;
            let outcome = std::panic::catch_unwind(|| decoded(&broken).is_none());
            assert!(outcome.unwrap_or(true), "a flipped bit at {place} is seen");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn bytes_of_both_kinds_put_together_the_scripted_message(blocks in any_blocks()) {
            let message = message(&Turn::say(blocks), &Request::default(), "", "x");
            let all = |provider| -> Vec<u8> {
                events(&message).iter().flat_map(|one| event(provider, one)).collect()
            };
            let text = String::from_utf8(all(Provider::Anthropic)).unwrap();
            let told: Vec<Value> = text
                .split("\n\n")
                .filter(|one| !one.is_empty())
                .map(|one| serde_json::from_str(one.split_once("\ndata: ").unwrap().1).unwrap())
                .collect();
            prop_assert_eq!(&reassembled(&told), &message);

            let bytes = all(Provider::Bedrock);
            let (mut rest, mut told) = (&bytes[..], Vec::new());
            while !rest.is_empty() {
                let (_, chunk, after) = decoded(rest).unwrap();
                let inner = STANDARD.decode(chunk["bytes"].as_str().unwrap()).unwrap();
                told.push(serde_json::from_slice(&inner).unwrap());
                rest = after;
            }
            prop_assert_eq!(&reassembled(&told), &message);
        }
    }
}
