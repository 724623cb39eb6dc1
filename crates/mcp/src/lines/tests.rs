//! What is found in a line, and what is left of it for the parser.

use model::{DockerOptions, OptionValue as V, Unreadable};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// What a call of `create_session` with these raw arguments says, and the arguments that its parser sees.
fn said(arguments: &str) -> (Said, Value) {
    let line = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"create_session","arguments":{arguments}}}}}"#
    );
    let Line::Message(message) = read(line.as_bytes()) else {
        panic!("no message: {line}")
    };
    let JsonRpcMessage::Request(request) = *message else {
        panic!("no request: {line}")
    };
    let ClientRequest::CallToolRequest(call) = request.request else {
        panic!("no call: {line}")
    };
    let said = call.extensions.get::<Said>().cloned().unwrap();
    (said, Value::from(call.params.arguments))
}

fn options(json: &str) -> DockerOptions {
    let (said, arguments) = said(&format!(r#"{{"projectPath":"/p","dockerOpts":{json}}}"#));
    assert_eq!(arguments, json!({"projectPath": "/p", "dockerOpts": {}}));
    assert_eq!(said.twice, None);
    said.docker_options.unwrap()
}

fn entry(name: &str, value: V) -> (String, V) {
    (name.to_owned(), value)
}

#[test]
fn options_are_read_as_they_stand_there() {
    let two = options(r#"{"Memory":"1g", "Memory" : 2, "memory":null}"#);
    let text = V::Text("1g".to_owned());
    let expected = vec![
        entry("Memory", text),
        entry("Memory", V::Integer(2)),
        entry("memory", V::Null),
    ];
    assert_eq!(two.0, expected);
    let escaped = options(r#"{"\u004demory":true,"\"}{":[{"a":1,"a":2}]}"#);
    let inner = V::Object(vec![entry("a", V::Integer(1)), entry("a", V::Integer(2))]);
    let expected = vec![
        entry("Memory", V::Boolean(true)),
        entry("\"}{", V::List(vec![inner])),
    ];
    assert_eq!(escaped.0, expected);
}

#[test]
fn what_cannot_be_read_says_why() {
    let deep = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
    for number in ["1.5", "1e3", "1.0", "-0.0", "9223372036854775808", "1e308"] {
        let read = options(&format!(r#"{{"Memory":{number}}}"#));
        let expected = V::Unreadable(Unreadable::NoWholeNumber);
        assert_eq!(read.0, [entry("Memory", expected)], "{number}");
    }
    for levels in [5, 200, 100_000] {
        let read = format!("{:?}", options(&format!(r#"{{"Binds":{}}}"#, deep(levels))));
        assert!(read.contains("TooDeep"), "{levels}: {read}");
    }
    let control = format!("{:?}", options(&format!(r#"{{"Binds":{}}}"#, deep(4))));
    assert!(!control.contains("TooDeep"), "{control}");
    let many = format!(r#"{{"Binds":[{}1]}}"#, "1,".repeat(1_000));
    for (json, why) in [
        (r#"{"Memory":1e999}"#, Unreadable::NoJson),
        (r#"{"Memory":"\ud800"}"#, Unreadable::NoJson),
        (r#"{"Memory":01}"#, Unreadable::NoJson),
        (many.as_str(), Unreadable::TooMany),
        ("[]", Unreadable::NoObject),
        ("null", Unreadable::NoObject),
        (r#""{}""#, Unreadable::NoObject),
    ] {
        assert_eq!(options(json), DockerOptions::unreadable(why), "{json:.40}");
    }
}

#[test]
fn options_that_stand_there_twice_are_not_chosen_from() {
    for arguments in [
        r#"{"dockerOpts":{},"dockerOpts":{}}"#,
        r#"{"dockerOpts":{"Privileged":true},"projectPath":"/p","docker\u004fpts":{}}"#,
    ] {
        let (said, _) = said(arguments);
        let twice = DockerOptions::unreadable(Unreadable::GivenTwice);
        assert_eq!(said.docker_options, Some(twice), "{arguments}");
    }
}

#[test]
fn an_argument_or_field_that_stands_there_twice_is_told_by_its_path() {
    for (arguments, twice) in [
        (
            r#"{"projectPath":"/p","ttlSeconds":1,"projectPath":"/q"}"#,
            Some("projectPath"),
        ),
        (r#"{"limits":{"pids":1,"pids":2}}"#, Some("limits.pids")),
        (
            r#"{"mcpMounts":[{},{"hostPath":"/a","readOnly":true,"hostPath":"/b"}]}"#,
            Some("mcpMounts[1].hostPath"),
        ),
        (r#"{"env":{"A":"\"","A":"x"}}"#, Some("env.A")),
        (
            r#"{"env":{"A":"x","a":"x"},"limits":{"A":1},"argv":["a","a",[],"a"]}"#,
            None,
        ),
        (r#"{"dockerOpts":{"A":1,"A":2}}"#, None),
    ] {
        assert_eq!(said(arguments).0.twice.as_deref(), twice, "{arguments}");
    }
}

#[test]
fn a_line_full_of_names_is_skimmed_in_time() {
    let many = |part: &str| format!("{}0", part.repeat(400_000));
    let names: String = (0..300_000)
        .map(|index| format!("\"{index}\":0,"))
        .collect();
    let started = std::time::Instant::now();
    for arguments in [
        format!("{{{names}\"z\":0}}"),
        format!("{{\"a\":[{}]}}", many("0,")),
        format!("{{\"dockerOpts\":{{}},\"a\":[{}]}}", many("[[{}]],")),
    ] {
        let line = format!(r#"{{"params":{{"arguments":{arguments}}}}}"#);
        assert_eq!(Skimmed::of(line.as_bytes()).twice, None);
    }
    // Milliseconds each; with a look at all names for each name it would be minutes.
    assert!(started.elapsed() < std::time::Duration::from_secs(20));
}

#[test]
fn two_objects_of_arguments_are_told() {
    let call = |parameters: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call",{parameters}}}"#)
    };
    let one = r#""params":{"name":"create_session","arguments":{"dockerOpts":{"Memory":1}}}"#;
    for (line, twice) in [
        (call(&format!("{one},{one}")), Some("params")),
        (
            call(r#""params":{"name":"x","arguments":{},"arguments":{"dockerOpts":{"Memory":1}}}"#),
            Some("arguments"),
        ),
        (call(one), None),
    ] {
        let skimmed = Skimmed::of(line.as_bytes());
        assert_eq!(skimmed.twice.as_deref(), twice, "{line}");
        assert!(!skimmed.options.is_empty(), "{line}");
        let rest = skimmed.without_options(line.as_bytes());
        assert!(!String::from_utf8_lossy(&rest).contains("Memory"), "{line}");
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i32>().prop_map(|half| Value::from(f64::from(half) / 2.0)),
        "(\\PC|[\"\\\\{}\\[\\],:\n]){0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let name = prop_oneof![
            Just("dockerOpts".to_owned()),
            Just("arguments".to_owned()),
            Just("params".to_owned()),
            "[\"\\\\{}a-c]{0,4}"
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name, inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// What the reader must make of a value, with so many levels left.
fn nouns(value: &Value, levels: usize) -> V {
    match value {
        Value::Array(_) | Value::Object(_) if levels == 0 => V::Unreadable(Unreadable::TooDeep),
        Value::Null => V::Null,
        Value::Bool(value) => V::Boolean(*value),
        Value::Number(number) => number
            .as_i64()
            .map_or(V::Unreadable(Unreadable::NoWholeNumber), V::Integer),
        Value::String(text) => V::Text(text.clone()),
        Value::Array(values) => V::List(
            values
                .iter()
                .map(|value| nouns(value, levels - 1))
                .collect(),
        ),
        Value::Object(entries) => {
            let read = entries.iter();
            V::Object(
                read.map(|(name, value)| (name.clone(), nouns(value, levels - 1)))
                    .collect(),
            )
        }
    }
}

/// Lines of which many hold options where options stand.
fn any_line() -> impl Strategy<Value = Value> {
    prop_oneof![
        any_json(),
        any_json().prop_map(|arguments| json!({"a": "{", "params": {"arguments": arguments}, "z": "}"})),
        (any_json(), any_json()).prop_map(|(options, other)| {
            json!({"params": {"a": other, "arguments": {"dockerOpts": options, "e": other}, "z": other}})
        }),
    ]
}

proptest! {
    /// The options are cut out exactly, whatever stands around them; nothing else is touched.
    #[test]
    fn only_the_options_are_cut_out(mut line in any_line(), pretty in any::<bool>()) {
        let text = if pretty { serde_json::to_string_pretty(&line) } else { serde_json::to_string(&line) }.unwrap();
        let skimmed = Skimmed::of(text.as_bytes());
        prop_assert_eq!(&skimmed.twice, &None);
        let rest: Value = serde_json::from_slice(&skimmed.without_options(text.as_bytes())).unwrap();
        if let Some(options) = line.pointer_mut("/params/arguments").and_then(|arguments| arguments.as_object_mut()?.get_mut("dockerOpts")) {
            prop_assert_eq!(skimmed.options.len(), 1);
            let cut: Value = serde_json::from_str(&text[skimmed.options[0].clone()]).unwrap();
            prop_assert_eq!(&cut, &*options);
            *options = json!({});
        } else {
            prop_assert!(skimmed.options.is_empty());
        }
        prop_assert_eq!(rest, line);
    }

    /// Nothing of readable options is lost or changed.
    #[test]
    fn options_are_what_was_written(value in any_json(), pretty in any::<bool>()) {
        let options = json!({"A": value.clone(), "B": [value.clone()], "C": {"D": value}});
        let text = if pretty { serde_json::to_string_pretty(&options) } else { serde_json::to_string(&options) }.unwrap();
        prop_assert_eq!(V::Object(options::read(text.as_bytes()).0), nouns(&options, 5));
    }

    #[test]
    fn noise_is_skimmed_without_harm(line in prop::collection::vec(any::<u8>(), 0..200), structural in "[\\[\\]{}\",:\\\\a ]{0,60}") {
        for line in [line.as_slice(), structural.as_bytes()] {
            let skimmed = Skimmed::of(line);
            skimmed.without_options(line);
        }
    }
}
