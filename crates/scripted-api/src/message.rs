//! An answer as the provider's message, and the same message as the events of a stream.

use serde_json::{Value, json};

use crate::{
    fill::{fill, fill_value},
    request::{Purpose, Request},
    script::{Block, Turn, Usage},
};

/// Characters of a tool's input in one event: small, so that clients must put it together.
const JSON_PIECE_CHARS: usize = 16;

/// The signature of scripted thoughts: base64 of "scripted".
const SIGNATURE: &str = "c2NyaXB0ZWQ=";

/// The whole message. `id` tells this answer from all others.
pub(crate) fn message(turn: &Turn, request: &Request, label: &str, id: &str) -> Value {
    let content = content(turn, request, label, id);
    let stop_reason = turn.stop_reason.clone().unwrap_or_else(|| {
        let calls = turn
            .say
            .iter()
            .any(|block| matches!(block, Block::Tool { .. }));
        if calls { "tool_use" } else { "end_turn" }.to_owned()
    });
    json!({
        "id": format!("msg_{id}"),
        "type": "message",
        "role": "assistant",
        "model": request.model,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": null,
        "usage": usage(&turn.usage),
    })
}

fn content(turn: &Turn, request: &Request, label: &str, id: &str) -> Vec<Value> {
    let first_text = turn
        .say
        .iter()
        .position(|block| matches!(block, Block::Text(_)));
    let blocks = turn.say.iter().enumerate();
    blocks
        .map(|(index, block)| match block {
            Block::Text(text) => {
                // A title must be JSON and nothing else.
                let labelled = Some(index) == first_text && request.purpose != Purpose::Title;
                let label = if labelled { label } else { "" };
                json!({"type": "text", "text": format!("{label}{}", fill(text, request))})
            }
            Block::Thinking(text) => {
                json!({"type": "thinking", "thinking": fill(text, request), "signature": SIGNATURE})
            }
            Block::Tool { name, input } => {
                let input = if input.is_null() { json!({}) } else { fill_value(input, request) };
                json!({"type": "tool_use", "id": format!("toolu_{id}_{index}"), "name": name, "input": input})
            }
        })
        .collect()
}

fn usage(usage: &Usage) -> Value {
    json!({
        "input_tokens": usage.input_tokens,
        "cache_creation_input_tokens": usage.cache_creation_input_tokens,
        "cache_read_input_tokens": usage.cache_read_input_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_creation_input_tokens,
            "ephemeral_1h_input_tokens": 0,
        },
        "output_tokens": usage.output_tokens,
        "service_tier": "standard",
    })
}

/// The message as a stream tells it: `message_start`, the blocks piece by piece with a `ping` among them, `message_delta`
/// with the final numbers, `message_stop`.
pub(crate) fn events(message: &Value) -> Vec<Value> {
    let mut events = vec![start(message)];
    for (index, block) in message["content"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        let (empty, deltas) = pieces(block);
        events.push(json!({"type": "content_block_start", "index": index, "content_block": empty}));
        if index == 0 {
            events.push(json!({"type": "ping"}));
        }
        events.extend(
            deltas.into_iter().map(
                |delta| json!({"type": "content_block_delta", "index": index, "delta": delta}),
            ),
        );
        events.push(json!({"type": "content_block_stop", "index": index}));
    }
    events.push(json!({
        "type": "message_delta",
        "delta": {"stop_reason": message["stop_reason"], "stop_sequence": message["stop_sequence"]},
        "usage": without(&message["usage"], &["cache_creation", "service_tier"]),
    }));
    events.push(json!({"type": "message_stop"}));
    events
}

fn start(message: &Value) -> Value {
    let mut start = message.clone();
    start["content"] = json!([]);
    start["stop_reason"] = Value::Null;
    start["usage"]["output_tokens"] = json!(1);
    json!({"type": "message_start", "message": start})
}

/// A block as it starts, and what is added to it.
fn pieces(block: &Value) -> (Value, Vec<Value>) {
    let mut empty = block.clone();
    let text = |name: &str| block[name].as_str().unwrap_or_default();
    match text("type") {
        "tool_use" => {
            empty["input"] = json!({});
            let mut deltas = vec![json!({"type": "input_json_delta", "partial_json": ""})];
            let pieces = chunks(&block["input"].to_string());
            deltas.extend(
                pieces
                    .into_iter()
                    .map(|piece| json!({"type": "input_json_delta", "partial_json": piece})),
            );
            (empty, deltas)
        }
        "thinking" => {
            empty["thinking"] = json!("");
            empty["signature"] = json!("");
            let mut deltas: Vec<Value> = words(text("thinking"))
                .map(|word| json!({"type": "thinking_delta", "thinking": word}))
                .collect();
            deltas.push(json!({"type": "signature_delta", "signature": text("signature")}));
            (empty, deltas)
        }
        _ => {
            empty["text"] = json!("");
            let deltas = words(text("text"))
                .map(|word| json!({"type": "text_delta", "text": word}))
                .collect();
            (empty, deltas)
        }
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive(char::is_whitespace)
}

fn chunks(text: &str) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    characters
        .chunks(JSON_PIECE_CHARS)
        .map(|piece| piece.iter().collect())
        .collect()
}

fn without(object: &Value, names: &[&str]) -> Value {
    let mut rest = object.clone();
    if let Some(fields) = rest.as_object_mut() {
        fields.retain(|name, _| !names.contains(&name.as_str()));
    }
    rest
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a client makes of a stream's events.
    pub(crate) fn reassembled(events: &[Value]) -> Value {
        let mut message = events[0]["message"].clone();
        let mut inputs: Vec<String> = Vec::new();
        for event in &events[1..] {
            let index = usize::try_from(event["index"].as_u64().unwrap_or_default()).unwrap();
            match event["type"].as_str().unwrap() {
                "content_block_start" => {
                    assert_eq!(index, inputs.len(), "blocks start in order");
                    message["content"]
                        .as_array_mut()
                        .unwrap()
                        .push(event["content_block"].clone());
                    inputs.push(String::new());
                }
                "content_block_delta" => {
                    let delta = &event["delta"];
                    let block = &mut message["content"][index];
                    let field = match delta["type"].as_str().unwrap() {
                        "text_delta" => "text",
                        "thinking_delta" => "thinking",
                        "signature_delta" => "signature",
                        "input_json_delta" => {
                            inputs[index].push_str(delta["partial_json"].as_str().unwrap());
                            continue;
                        }
                        other => panic!("unknown delta {other}"),
                    };
                    let so_far = block[field].as_str().unwrap().to_owned();
                    block[field] = json!(so_far + delta[field].as_str().unwrap());
                }
                "content_block_stop" if !inputs[index].is_empty() => {
                    message["content"][index]["input"] =
                        serde_json::from_str(&inputs[index]).unwrap();
                }
                "message_delta" => {
                    message["stop_reason"] = event["delta"]["stop_reason"].clone();
                    for (name, number) in event["usage"].as_object().unwrap() {
                        message["usage"][name] = number.clone();
                    }
                }
                "content_block_stop" | "ping" | "message_stop" => {}
                other => panic!("unknown event {other}"),
            }
        }
        message
    }

    pub(crate) fn any_blocks() -> impl Strategy<Value = Vec<Block>> {
        // No braces: placeholders are another matter.
        let text = "[^{}]{0,200}";
        let input = prop::collection::btree_map("[a-z_]{1,8}", text, 0..4);
        prop::collection::vec(
            prop_oneof![
                text.prop_map(Block::text),
                text.prop_map(Block::thinking),
                input.prop_map(|input| Block::tool("Bash", json!(input))),
            ],
            1..5,
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
        #[test]
        fn a_stream_puts_together_the_scripted_message(
            blocks in any_blocks(), input_tokens in 0u64..1_000_000, output_tokens in 0u64..1_000_000,
        ) {
            let turn = Turn::say(blocks).usage(input_tokens, output_tokens);
            let message = message(&turn, &Request::default(), "[scripted] ", "x");
            let events = events(&message);
            prop_assert_eq!(&events[events.len() - 1]["type"], "message_stop");
            prop_assert_eq!(reassembled(&events), message);
        }
    }

    #[test]
    fn the_label_stands_before_the_first_text_only() {
        let turn = Turn::say([
            Block::thinking("hm"),
            Block::text("one"),
            Block::text("two"),
        ]);
        let message = message(&turn, &Request::default(), "[scripted] ", "x");
        assert_eq!(message["content"][1]["text"], "[scripted] one");
        assert_eq!(message["content"][2]["text"], "two");
    }
}
