#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;

fn host() -> HostName {
    HostName::parse(b"example.com").unwrap()
}

#[test]
fn a_sentence_says_what_by_which_rule_and_how_to_ask() {
    let denial = Denial::PortNotAllowed {
        host: host(),
        port: 22,
        rule: "allow/2".to_owned(),
        ports: vec![80, 443],
        person: None,
    };
    assert_eq!(
        denial.to_string(),
        "example.com:22 is not reached: the rule allow/2 allows example.com at ports 80, 443; add it to `network.allow` when the session is made, or ask the operator"
    );
    let denial = Denial::HostNotAllowed {
        host: host(),
        port: 443,
        person: None,
    };
    assert!(
        denial.to_string().contains("example.com:443")
            && denial.to_string().contains("`network.allow`")
    );
    // What the operator's ceiling has, a person can allow at once.
    let session = SessionId::from_bytes([7; 16]);
    let command = format!("claude-code-mcp session allow {session} example.com:443");
    for (said, has_command, word) in [
        (Said::Nothing, true, "a person allows it"),
        (Said::NothingYet, true, "try again in a minute"),
        (Said::No, false, "a person said no"),
    ] {
        let denial = Denial::HostNotAllowed {
            host: host(),
            port: 443,
            person: Some(ByPerson { session, said }),
        };
        assert_eq!(
            denial.to_string().ends_with(&command),
            has_command,
            "{denial}"
        );
        assert!(denial.to_string().contains(word), "{denial}");
    }
}

#[test]
fn a_name_that_does_not_resolve_is_told_in_words_of_what_happened() {
    for (why, words) in [
        (Unresolved::NoSuchName, "no such name"),
        (Unresolved::NoAnswer, "no name server answered"),
        (
            Unresolved::Failed,
            "resolver of the server's machine failed",
        ),
    ] {
        let denial = Denial::ResolutionFailed { host: host(), why };
        let sentence = denial.to_string();
        assert!(
            sentence.starts_with("example.com is allowed, but its name does not resolve: "),
            "{sentence}"
        );
        assert!(sentence.contains(words), "{sentence}");
    }
}

#[test]
fn the_address_behind_a_name_is_not_told_inside() {
    for (class, asks) in [
        (AddressClass::Private, true),
        (AddressClass::Metadata, false),
    ] {
        let denial = Denial::PrivateAddress {
            host: host(),
            class,
            address: "10.1.2.3".parse().unwrap(),
        };
        let sentence = denial.to_string();
        assert!(!sentence.contains("10.1.2.3"), "{sentence}");
        assert_eq!(sentence.contains("ask the operator"), asks, "{sentence}");
    }
}

#[test]
fn addresses_and_bad_names_have_codes_of_their_own() {
    let code = |raw: &[u8]| Denial::from(HostName::parse(raw).unwrap_err()).code();
    assert_eq!(code(b"[::ffff:169.254.169.254]"), "raw_address");
    assert_eq!(code(b"0x7f.1"), "raw_address");
    assert_eq!(code(b"exam\0ple.com"), "bad_name");
    assert_eq!(code(b""), "bad_name");
}

#[test]
fn what_was_refused_is_shown_without_what_a_terminal_or_a_header_would_obey() {
    let denial = Denial::from(HostName::parse(b"a\r\nX: \x1b[31m\0b").unwrap_err());
    let sentence = denial.to_string();
    assert!(!sentence.chars().any(char::is_control), "{sentence:?}");
    assert!(sentence.contains("\\r\\n"), "{sentence}");
}
