use std::sync::Arc;

use proptest::prelude::*;
use rustls::{ClientConfig, ClientConnection, RootCertStore, pki_types::ServerName};

use super::*;

fn hello_to(name: &str, sends_sni: bool) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.enable_sni = sends_sni;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

fn inspector(must_be_tls: bool) -> Inspector {
    Inspector::new(HostName::parse(b"a.example").unwrap(), 443, must_be_tls)
}

fn code(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::More => "more",
        Verdict::Pass => "pass",
        Verdict::Refuse(denial) => denial.code(),
    }
}

/// The same hello with one more extension.
fn with_extension(hello: &[u8], kind: u16, data: &[u8]) -> Vec<u8> {
    let mut message = handshake(hello).unwrap();
    let mut fields = Fields(&message);
    fields.skip(38).unwrap();
    fields.vector::<1>().unwrap();
    fields.vector::<2>().unwrap();
    fields.vector::<1>().unwrap();
    let at = message.len() - fields.0.len();
    let old = fields.number::<2>().unwrap();
    let mut extension = kind.to_be_bytes().to_vec();
    extension.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
    extension.extend(data);
    let new = u16::try_from(old + extension.len()).unwrap();
    message.splice(at..at + 2, new.to_be_bytes());
    // In front: the one with a key that was shared before must stay the last.
    message.splice(at + 2..at + 2, extension);
    let length = u32::try_from(message.len() - 4).unwrap().to_be_bytes();
    message.splice(1..4, length[1..].iter().copied());
    record(&message)
}

fn record(payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [&[HANDSHAKE, MAJOR, 1][..], &length, payload].concat()
}

#[test]
fn the_host_of_the_tunnel_passes_and_no_other() {
    for (hello, expected) in [
        (hello_to("a.example", true), "pass"),
        (hello_to("b.example", true), "sni_mismatch"),
        (hello_to("a.example.evil.org", true), "sni_mismatch"),
        (hello_to("a.example", false), "sni_missing"),
        (hello_to("127.0.0.1", true), "sni_missing"),
    ] {
        for must_be_tls in [true, false] {
            assert_eq!(code(inspector(must_be_tls).look(&hello)), expected);
        }
    }
}

#[test]
fn a_hidden_name_is_refused_even_behind_the_right_one() {
    let hello = hello_to("a.example", true);
    let control = with_extension(&hello, 0xfafa, b"any");
    assert_eq!(code(inspector(true).look(&control)), "pass");
    // Outer, HKDF-SHA256, AES-128-GCM, a configuration's number, a key and what it sealed.
    let sealed = [&[0, 0, 1, 0, 1, 7, 0, 32][..], &[9; 32], &[0, 64], &[9; 64]].concat();
    let hidden = with_extension(&hello, ENCRYPTED_CLIENT_HELLO, &sealed);
    assert_eq!(code(inspector(true).look(&hidden)), "sni_missing");
}

#[test]
fn a_hello_in_several_records_and_pieces_is_one_hello() {
    let message = handshake(&hello_to("a.example", true)).unwrap();
    let records: Vec<u8> = message.chunks(7).flat_map(record).collect();
    for piece in [1, 2, 5, 100, records.len()] {
        let mut inspector = inspector(true);
        let mut verdicts: Vec<_> = records
            .chunks(piece)
            .map(|bytes| inspector.look(bytes))
            .collect();
        assert_eq!(verdicts.pop(), Some(Verdict::Pass), "{piece}");
        assert!(verdicts.iter().all(|verdict| *verdict == Verdict::More));
        assert_eq!(inspector.into_seen(), records);
    }
}

#[test]
fn what_is_no_tls_passes_only_where_it_may() {
    for bytes in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"SSH-2.0-OpenSSH_9.9\r\n",
        &[0x80, 0x2e, 1, 3, 1],
        &[HANDSHAKE, 0x02],
        &[0x17, MAJOR, 3, 0, 1, 0],
    ] {
        assert_eq!(code(inspector(true).look(bytes)), "not_tls", "{bytes:?}");
        assert_eq!(code(inspector(false).look(bytes)), "pass", "{bytes:?}");
    }
    // What begins as TLS has to be it, wherever.
    for bytes in [
        &[HANDSHAKE, MAJOR, 1, 0, 4, 2, 0, 0, 0][..],
        &[HANDSHAKE, MAJOR, 1, 0xff, 0xff, 1, 2, 3, 4],
        &[HANDSHAKE, MAJOR, 1, 0, 5, 1, 0, 0, 1, 0],
    ] {
        for must_be_tls in [true, false] {
            assert_eq!(
                code(inspector(must_be_tls).look(bytes)),
                "not_tls",
                "{bytes:?}"
            );
        }
    }
}

#[test]
fn a_hello_without_end_is_not_waited_for() {
    let mut inspector = inspector(true);
    let start = [1, 0, 0xff, 0xff, 3, 3];
    assert_eq!(inspector.look(&record(&start)), Verdict::More);
    let more = record(&[0; 1000]);
    let refused = (0..20).any(|_| matches!(inspector.look(&more), Verdict::Refuse(_)));
    assert!(refused);
}

proptest! {
    #[test]
    fn garbage_gets_a_verdict(bytes in proptest::collection::vec(any::<u8>(), 0..300), piece in any::<u8>()) {
        crate::proxy::fuzzing::hello(&bytes, piece);
        let tls = [&[HANDSHAKE, MAJOR, 1][..], &bytes].concat();
        crate::proxy::fuzzing::hello(&tls, piece);
    }

    #[test]
    fn a_broken_hello_gets_a_verdict(at in 0_usize..200, value in any::<u8>(), piece in any::<u8>()) {
        let mut hello = hello_to("a.example", true);
        if let Some(byte) = hello.get_mut(at) {
            *byte = value;
        }
        crate::proxy::fuzzing::hello(&hello, piece);
    }
}
