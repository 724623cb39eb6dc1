#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

fn parsed(text: &str) -> String {
    HostName::parse(text.as_bytes())
        .unwrap_or_else(|error| panic!("{text:?}: {error}"))
        .as_str()
        .to_owned()
}

fn refused(raw: &[u8]) -> NameError {
    match HostName::parse(raw) {
        Err(error) => error,
        Ok(name) => panic!("{:?} was read as {name}", String::from_utf8_lossy(raw)),
    }
}

#[test]
fn names_have_one_spelling() {
    for (text, name) in [
        ("example.com", "example.com"),
        ("EXAMPLE.Com", "example.com"),
        ("example.com.", "example.com"),
        ("localhost", "localhost"),
        ("a_b.example", "a_b.example"),
        ("r3---sn-4g5e.example", "r3---sn-4g5e.example"),
        ("1.2.3.4.example", "1.2.3.4.example"),
        ("127.0.0.1.nip.example", "127.0.0.1.nip.example"),
        ("0x7f.example", "0x7f.example"),
        ("1password.com", "1password.com"),
        ("a.0xyz", "a.0xyz"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
        // Full width, the Kelvin sign, other dots: as the URL standard maps them.
        ("ｅｘａｍｐｌｅ.com", "example.com"),
        ("\u{212a}.example", "k.example"),
        ("example。com", "example.com"),
        ("exa\u{ad}mple.com", "example.com"),
        ("straße.example", "xn--strae-oqa.example"),
    ] {
        assert_eq!(parsed(text), name, "{text:?}");
    }
}

#[test]
fn names_that_only_look_alike_are_other_names() {
    for text in [
        "ex\u{430}mple.com",
        "example\u{2044}com.example.com",
        "example.com\u{2215}.evil.example",
        "ɡithub.com",
        "gıthub.com",
    ] {
        assert!(parsed(text).contains("xn--"), "{text:?}");
    }
}

#[test]
fn every_spelling_of_an_address_is_refused_as_one() {
    for text in [
        "127.0.0.1",
        "127.0.0.1.",
        "127.1",
        "127.0.1",
        "1",
        "0",
        "2130706433",
        "4294967295",
        "99999999999999999999",
        "017700000001",
        "0177.0.0.1",
        "0x7f000001",
        "0X7F000001",
        "0x7f.0.0.1",
        "0x7f.1",
        "0x",
        "127.0.0.0x1",
        "127.0.0.0x",
        "1.2.3.4.5",
        "256.256.256.256",
        "example.1",
        "example.0x1.",
        "127.0.0.1:80",
        "[127.0.0.1]",
        "::1",
        "[::1]",
        "[::1]:443",
        "::ffff:169.254.169.254",
        "[::ffff:a9fe:a9fe]",
        "::127.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "[64:ff9b::169.254.169.254]",
        "2002:7f00:1::",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "fe80::1%eth0",
        "[fe80::1%25eth0]",
        "[fe80::1%eth0]:80",
        "１２７．０．０．１",
        "127。0。0。1",
        "127.0.0.①",
        "０ｘ７ｆ.1",
    ] {
        assert!(
            matches!(refused(text.as_bytes()), NameError::Address(_)),
            "{text:?}: {:?}",
            refused(text.as_bytes())
        );
    }
}

#[test]
fn what_readers_could_read_differently_is_no_name() {
    for text in [
        ".",
        "..",
        ".example.com",
        "example..com",
        "example.com..",
        "example.com\0",
        "example.com\0.evil.example",
        "exam\0ple.com",
        "example.com\r\n",
        "example.com\r\nHost: evil.example",
        "example.com\n",
        "example.com\t",
        " example.com",
        "example.com ",
        "exam ple.com",
        "example.com\u{7f}",
        "example.com\u{a0}",
        "example.com\u{2028}",
        "example%2ecom",
        "example.com%00",
        "example.com%0d%0a",
        "user@example.com",
        "example.com@evil.example",
        "example.com\\.evil.example",
        "example.com/evil",
        "example.com#evil",
        "example.com?evil",
        "example.com:443",
        "example.com:",
        "http://example.com",
        "[example.com]",
        "[",
        "]",
        "*.example.com",
        "*",
        "-example.com",
        "example-.com",
        "exa+mple.com",
        "exa,mple.com",
        "exa\"mple.com",
        "exa'mple.com",
        "exa;mple.com",
        "exa$mple.com",
        "exa(mple).com",
        "exa\u{200b}\u{202e}mple.com",
        "xn--",
        "xn--.example",
        "xn--a.example",
        "xn--example-.com",
        "xn--ls8h=.example",
        "xn--zca9999999999.example",
        "\u{fffd}.example",
        "\u{301}a.example",
        "℀.example",
    ] {
        let error = refused(text.as_bytes());
        assert!(matches!(error, NameError::Form(_)), "{text:?}: {error:?}");
    }
    assert_eq!(refused(b""), NameError::Empty);
    assert_eq!(refused(b"exam\xffple.com"), NameError::NotText);
    assert_eq!(refused(b"\xc0\xae.example"), NameError::NotText);
}

#[test]
fn names_are_as_long_as_the_wire_takes_them() {
    let label = "a".repeat(63);
    let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
    assert_eq!(longest.len(), MAX_HOST_BYTES);
    assert_eq!(parsed(&longest), longest);
    assert_eq!(parsed(&format!("{longest}.")), longest);
    assert_eq!(
        refused(format!("{longest}a").as_bytes()),
        NameError::TooLong
    );
    assert_eq!(refused(&[b'a'; 100_000]), NameError::TooLong);
    assert!(matches!(
        refused("a".repeat(64).as_bytes()),
        NameError::Form(_)
    ));
}

/// One of the four parts of an IPv4 address, or several of them taken together, as `inet_aton` reads it.
fn number(value: u32, base: u8) -> String {
    match base % 4 {
        0 => format!("{value}"),
        1 => format!("0{value:o}"),
        2 => format!("0x{value:x}"),
        _ => format!("0X{value:08X}"),
    }
}

proptest! {
    #[test]
    fn no_spelling_of_an_ipv4_address_is_a_name(
        address: u32,
        bases: [u8; 4],
        parts in 1..=4_usize,
        dot: bool,
    ) {
        let octets = Ipv4Addr::from(address).octets();
        let mut text: Vec<String> = octets[..parts - 1]
            .iter()
            .zip(bases)
            .map(|(octet, base)| number(u32::from(*octet), base))
            .collect();
        let rest = octets[parts - 1..].iter().fold(0, |sum, octet| (sum << 8) | u32::from(*octet));
        text.push(number(rest, bases[3]));
        let text = format!("{}{}", text.join("."), if dot { "." } else { "" });
        prop_assert!(matches!(HostName::parse(text.as_bytes()), Err(NameError::Address(_))), "{text}");
    }

    #[test]
    fn no_spelling_of_an_ipv6_address_is_a_name(address: u128, zone in "(%[a-z0-9]{0,4})?", brackets: bool) {
        let text = format!("{}{zone}", Ipv6Addr::from(address));
        let text = if brackets { format!("[{text}]") } else { text };
        prop_assert!(matches!(HostName::parse(text.as_bytes()), Err(NameError::Address(_))), "{text}");
    }

    #[test]
    fn whatever_comes_is_a_name_or_an_error(raw in prop::collection::vec(any::<u8>(), 0..300)) {
        check_any(&raw);
    }

    #[test]
    fn whatever_text_comes_is_a_name_or_an_error(text in "(?s).{0,40}") {
        check_any(text.as_bytes());
    }

    #[test]
    fn ordinary_names_pass_in_any_case(text in "[a-z][a-z0-9]{0,10}(\\.[a-z][a-z0-9]{0,10}){0,4}", upper: u64) {
        let mixed: String = text
            .char_indices()
            .map(|(place, letter)| match upper >> (place % 64) & 1 {
                1 => letter.to_ascii_uppercase(),
                _ => letter,
            })
            .collect();
        prop_assert_eq!(parsed(&mixed), text.clone());
        prop_assert_eq!(parsed(&format!("{mixed}.")), text);
    }
}

/// What holds for every name that is taken: its spelling is its own, and rules can be written for it.
fn check_any(raw: &[u8]) {
    let Ok(name) = HostName::parse(raw) else {
        return;
    };
    let text = name.as_str();
    assert!(text.parse::<IpAddr>().is_err());
    assert!(text.len() <= MAX_HOST_BYTES && !text.ends_with('.'));
    assert!(
        text.bytes().all(|byte| byte.is_ascii_lowercase()
            || byte.is_ascii_digit()
            || b"-_.".contains(&byte))
    );
    assert_eq!(HostName::parse(text.as_bytes()).as_ref(), Ok(&name));
    assert_eq!(text.parse(), Ok(HostPattern::Exact(text.to_owned())));
}
