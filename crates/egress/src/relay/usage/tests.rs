//! The scanner against answers of each kind, cut in every way.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use base64::{Engine, engine::general_purpose::STANDARD};
use proptest::prelude::*;
use serde_json::json;

use super::*;

const EXPECTED: Tokens = Tokens {
    input: 12,
    output: 345,
    cache_read: 678,
    cache_creation: 9,
    cache_creation_1h: 4,
};

fn events(text: &str) -> Vec<Value> {
    vec![
        json!({"type": "message_start", "message": {"model": "m", "usage": {
            "input_tokens": 12, "output_tokens": 1, "cache_read_input_tokens": 678,
            "cache_creation_input_tokens": 9, "cache_creation": {"ephemeral_5m_input_tokens": 5, "ephemeral_1h_input_tokens": 4}, "service_tier": null}}}),
        json!({"type": "ping"}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}),
        json!({"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": "12"}}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 345}}),
        json!({"type": "message_stop"}),
    ]
}

fn sse(text: &str, line_end: &str) -> Vec<u8> {
    events(text)
        .iter()
        .map(|event| {
            let kind = event["type"].as_str().unwrap();
            format!("event: {kind}{line_end}data: {event}{line_end}{line_end}")
        })
        .collect::<String>()
        .into_bytes()
}

fn frames(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for event in events(text) {
        let payload = json!({"bytes": STANDARD.encode(event.to_string()), "p": "abc"}).to_string();
        let message = Message::new(payload.into_bytes()).add_header(Header::new(
            ":event-type",
            HeaderValue::String("chunk".into()),
        ));
        write_message_to(&message, &mut bytes).unwrap();
    }
    bytes
}

fn whole_answer(text: &str) -> Vec<u8> {
    json!({
        "id": "msg", "content": [
            {"type": "text", "text": text},
            {"type": "tool_use", "input": {"usage": {"output_tokens": 99999}}},
        ],
        "usage": {"input_tokens": 12, "output_tokens": 345, "cache_read_input_tokens": 678,
            "cache_creation_input_tokens": 9, "cache_creation": {"ephemeral_1h_input_tokens": 4},
            "server_tool_use": {"web_search_requests": 0}},
        "type": "message",
    })
    .to_string()
    .into_bytes()
}

fn scan<'a>(content_type: &str, pieces: impl IntoIterator<Item = &'a [u8]>) -> Scanner {
    let mut scanner = Scanner::new(content_type);
    for piece in pieces {
        scanner.push(piece);
    }
    scanner.finish();
    scanner
}

const KINDS: [&str; 4] = [
    "text/event-stream; charset=utf-8",
    "application/vnd.amazon.eventstream",
    "application/json",
    "text/plain",
];

#[test]
fn a_usage_is_found_in_each_kind_of_answer() {
    for (kind, answer) in [
        (KINDS[0], sse("hello", "\n")),
        (KINDS[0], sse("hello", "\r\n")),
        (KINDS[0], sse("hello", "\r")),
        (KINDS[1], frames("hello")),
        (KINDS[2], whole_answer("hello")),
    ] {
        let whole = scan(kind, [answer.as_slice()]);
        assert_eq!(whole.tokens(), EXPECTED, "{kind}");
        assert!(whole.seen().input_known && whole.seen().output_known);
        let single = scan(kind, answer.chunks(1));
        assert_eq!(single.seen(), whole.seen(), "{kind}");
    }
    let streamed = scan(KINDS[0], [sse("hello", "\n").as_slice()]);
    assert_eq!(streamed.seen().text_bytes, 7);
}

#[test]
fn an_answer_that_breaks_off_leaves_text_to_reckon_with() {
    let answer = sse("0123456789", "\n");
    let until = answer
        .windows(13)
        .position(|w| w == b"message_delta")
        .unwrap();
    let scanner = scan(KINDS[0], [&answer[..until]]);
    assert!(scanner.seen().input_known && !scanner.seen().output_known);
    assert_eq!(scanner.seen().tokens.output, 1);
    assert_eq!(scanner.seen().text_bytes, 12);
    assert_eq!(reckoned(12), 3);
}

#[test]
fn what_is_too_long_is_passed_over_and_the_rest_is_read() {
    let long = "x".repeat(2 * 1024 * 1024);
    for (kind, answer) in [
        (KINDS[0], sse(&long, "\n")),
        (KINDS[1], frames(&long)),
        (KINDS[2], whole_answer(&long)),
    ] {
        let scanner = scan(kind, answer.chunks(10_000));
        assert_eq!(scanner.tokens(), EXPECTED, "{kind}");
    }
}

#[test]
fn an_unended_last_event_counts() {
    let event = br#"data: {"type":"message_delta","usage":{"output_tokens":7}}"#;
    assert_eq!(scan(KINDS[0], [event.as_slice()]).tokens().output, 7);
}

#[test]
fn numbers_of_other_types_are_no_numbers() {
    let event = br#"data: {"type":"message_delta","usage":{"output_tokens":-7,"input_tokens":"3","cache_read_input_tokens":1.5}}

"#;
    let scanner = scan(KINDS[0], [event.as_slice()]);
    assert_eq!(scanner.tokens(), Tokens::default());
    assert!(!scanner.seen().output_known);
}

#[test]
fn a_frame_may_follow_only_between_frames() {
    let answer = frames("x");
    assert_eq!(scan(KINDS[1], [answer.as_slice()]).tail(), Tail::Frame);
    assert_eq!(
        scan(KINDS[1], [&answer[..answer.len() - 1]]).tail(),
        Tail::Abort
    );
    assert_eq!(
        scan(KINDS[1], [b"no frames at all".as_slice()]).tail(),
        Tail::Abort
    );
}

fn pieces(bytes: &[u8], cuts: &[prop::sample::Index]) -> Vec<Vec<u8>> {
    let mut places: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    places.sort_unstable();
    let mut pieces = Vec::new();
    let mut from = 0;
    for place in places {
        pieces.push(bytes[from..place].to_vec());
        from = place;
    }
    pieces.push(bytes[from..].to_vec());
    pieces
}

proptest! {
    #[test]
    fn a_usage_is_found_however_the_answer_is_cut(
        text in ".{0,200}",
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        for (kind, answer) in [
            (KINDS[0], sse(&text, "\n")),
            (KINDS[0], sse(&text, "\r\n")),
            (KINDS[1], frames(&text)),
            (KINDS[2], whole_answer(&text)),
        ] {
            let pieces = pieces(&answer, &cuts);
            let scanner = scan(kind, pieces.iter().map(Vec::as_slice));
            prop_assert_eq!(scanner.tokens(), EXPECTED);
        }
    }

    #[test]
    fn nothing_makes_it_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..2000),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
        kind in prop::sample::select(KINDS.to_vec()),
    ) {
        let pieces = pieces(&bytes, &cuts);
        scan(kind, pieces.iter().map(Vec::as_slice));
    }

    #[test]
    fn a_damaged_answer_does_not_make_it_panic(
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        for (kind, mut answer) in [
            (KINDS[0], sse("x", "\n")), (KINDS[1], frames("x")), (KINDS[2], whole_answer("x")),
        ] {
            let place = place.index(answer.len());
            answer[place] = byte;
            scan(kind, [answer.as_slice()]);
        }
    }
}
