use proptest::prelude::*;

use super::*;

const LIMIT: usize = 32 * 1024;

fn read(text: &[u8]) -> Result<Head, Denial> {
    let end = HeadScan::default().end(text, LIMIT)?;
    parse(&text[..end.unwrap_or(text.len())], Speaks::ToProxy)
}

#[test]
fn heads_as_clients_write_them() {
    let connect = read(
        b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\nUser-Agent: curl\r\n\r\n\x16\x03",
    )
    .unwrap();
    assert_eq!(connect.form, Form::Connect(b"example.com:443".to_vec()));
    assert_eq!(connect.host.as_deref(), Some(&b"example.com:443"[..]));
    let get = read(b"GET http://example.com/a?b HTTP/1.1\r\nHost:example.com\r\n\r\n").unwrap();
    assert_eq!(get.body, Framing::Length(0));
    let post = read(
        b"POST http://example.com/ HTTP/1.1\r\nhost: example.com\r\nTransfer-Encoding: Chunked\r\n\r\n",
    )
    .unwrap();
    assert_eq!(post.body, Framing::Chunked);
    let sized =
        read(b"PUT http://e.example/ HTTP/1.1\r\nhost: e.example\r\ncontent-length: 12\r\n\r\n");
    assert_eq!(sized.unwrap().body, Framing::Length(12));
    // Without a host, as old clients do.
    assert!(read(b"CONNECT example.com:443 HTTP/1.0\r\n\r\n").is_ok());
    assert!(read(b"GET http://example.com/ HTTP/1.0\r\n\r\n").is_ok());
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    let line = "GET http://e.example/ HTTP/1.1\r\n";
    let with = |fields: &str| format!("{line}{fields}\r\n").into_bytes();
    assert!(read(&with("host: e.example\r\n")).is_ok(), "the control");
    let refused = [
        "",
        "host: e.example\r\nhost: e.example\r\n",
        "host: e.example\r\nHOST: f.example\r\n",
        "host: e.example\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n",
        "host: e.example\r\ntransfer-encoding: chunked\r\ncontent-length: 1\r\n",
        "host: e.example\r\ncontent-length: 1\r\ncontent-length: 1\r\n",
        "host: e.example\r\ncontent-length: 1, 1\r\n",
        "host: e.example\r\ncontent-length: +1\r\n",
        "host: e.example\r\ncontent-length: 0x1\r\n",
        "host: e.example\r\ncontent-length: \r\n",
        "host: e.example\r\ncontent-length: 99999999999999999999\r\n",
        "host: e.example\r\ntransfer-encoding: gzip, chunked\r\n",
        "host: e.example\r\ntransfer-encoding: xchunked\r\n",
        "host: e.example\r\ntransfer-encoding: identity\r\n",
        "host: e.example\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        "host: e.example\r\nx: a\r\n b\r\n",
        "host: e.example\r\nx: a\r\n\tb\r\n",
        " host: e.example\r\n",
        "host : e.example\r\n",
        "host: e.example\r\nx\r\n",
        "host: e.example\nx: a\r\n",
        "host: e.example\r\nx: a\rb\r\n",
        "host: e.example\r\nx: a\0b\r\n",
        "host: e.example\r\n: a\r\n",
    ];
    for fields in refused {
        let denial = read(&with(fields)).unwrap_err();
        assert_eq!(denial.code(), "bad_request", "{fields:?}");
    }
}

#[test]
fn other_lines_are_refused() {
    for line in [
        "GET / HTTP/1.1",
        "GET https://e.example/ HTTP/1.1",
        "GET ftp://e.example/ HTTP/1.1",
        "GET e.example HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "GET http://e.example/#a HTTP/1.1",
        "GET  http://e.example/ HTTP/1.1",
        "GET http://e.example/  HTTP/1.1",
        "GET http://e.example/a b HTTP/1.1",
        "GET http://e.example/ HTTP/2.0",
        "GET http://e.example/ HTTP/0.9",
        "GET http://e.example/",
        "PRI * HTTP/2.0",
        "G\u{fc}T http://e.example/ HTTP/1.1",
        " GET http://e.example/ HTTP/1.1",
        "\r\nGET http://e.example/ HTTP/1.1",
    ] {
        let text = format!("{line}\r\nhost: e.example\r\n\r\n");
        let denial = read(text.as_bytes()).unwrap_err();
        assert_eq!(denial.code(), "bad_request", "{line:?}");
    }
    let body = b"CONNECT e.example:443 HTTP/1.1\r\ncontent-length: 4\r\n\r\n";
    assert_eq!(read(body).unwrap_err().code(), "bad_request");
}

#[test]
fn no_other_protocol_is_asked_for() {
    for field in [
        "upgrade: h2c",
        "upgrade: websocket",
        "connection: keep-alive, Upgrade",
        "http2-settings: AAMAAABkAAQAAP__",
    ] {
        let text = format!("GET http://e.example/ HTTP/1.1\r\nhost: e.example\r\n{field}\r\n\r\n");
        assert_eq!(
            read(text.as_bytes()).unwrap_err().code(),
            "upgrade",
            "{field}"
        );
    }
}

#[test]
fn the_end_is_found_in_pieces_and_nothing_is_waited_for_in_vain() {
    let text = b"GET http://e.example/ HTTP/1.1\r\nhost: e.example\r\n\r\nGET ";
    let end = text.len() - 4;
    let mut scan = HeadScan::default();
    for length in 1..end {
        assert_eq!(scan.end(&text[..length], LIMIT).unwrap(), None, "{length}");
    }
    assert_eq!(scan.end(text, LIMIT).unwrap(), Some(end));
    // These never get an empty line, and are refused at once.
    for text in [&b"GET / HTTP/1.1\n"[..], b"\x16\x03\x01", b"\x05\x01\x00"] {
        assert!(HeadScan::default().end(text, LIMIT).is_err(), "{text:?}");
    }
    let long = vec![b'a'; 200];
    assert!(HeadScan::default().end(&long, 100).is_err());
    assert_eq!(HeadScan::default().end(&long, 200).unwrap(), None);
}

proptest! {
    #[test]
    fn garbage_is_refused_and_never_more_than_that(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = read(&bytes);
    }

    #[test]
    fn what_is_nearly_a_head_is_read_the_same_in_pieces(
        text in "(GET|CONNECT|P\u{f6}ST) (http://|)[a-z.:/@%\\[\\]0-9]{1,20} HTTP/1.[01]\r?\n((host|content-length|x|transfer-encoding)( |): ?[a-z0-9, ]{0,8}\r?\n){0,4}\r?\n"
    ) {
        let bytes = text.as_bytes();
        let mut pieces = HeadScan::default();
        let mut found = Ok(None);
        for length in 1..=bytes.len() {
            found = pieces.end(&bytes[..length], LIMIT);
            if !matches!(found, Ok(None)) {
                break;
            }
        }
        let whole = HeadScan::default().end(bytes, LIMIT);
        prop_assert_eq!(found.ok(), whole.ok());
        let _ = read(bytes);
    }
}
