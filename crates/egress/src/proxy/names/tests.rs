use std::time::Duration;

use proptest::prelude::*;

use super::*;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

fn query(labels: &[&[u8]], kind: u16) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in labels {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend_from_slice(label);
    }
    message.push(0);
    message.extend(kind.to_be_bytes());
    message.extend([0, 1]);
    message
}

fn ask(message: &[u8]) -> Option<Answered> {
    let judge = |name: &HostName| match name.as_str() {
        "a.example" => Ok(()),
        _ => Err(Denial::NetworkOff),
    };
    answer(message, judge, |_| ADDRESS)
}

/// The code, and the addresses in it.
fn read(answered: &Answered) -> (RCODE, Vec<Ipv4Addr>) {
    let packet = Packet::parse(&answered.bytes).unwrap();
    assert_eq!(packet.id(), 0x1234);
    assert!(packet.has_flags(PacketFlag::RESPONSE));
    let addresses = packet.answers.iter().map(|record| {
        let RData::A(a) = &record.rdata else {
            unreachable!("{record:?}");
        };
        Ipv4Addr::from_bits(a.address)
    });
    (packet.rcode(), addresses.collect())
}

const A_RECORD: u16 = 1;

#[test]
fn an_allowed_name_has_an_address_and_nothing_else() {
    for labels in [[&b"a"[..], b"example"], [b"A", b"eXample"]] {
        let answered = ask(&query(&labels, A_RECORD)).unwrap();
        assert_eq!(read(&answered), (RCODE::NoError, vec![ADDRESS]));
        assert!(answered.refused.is_none());
    }
    for kind in [28, 64, 65] {
        let answered = ask(&query(&[b"a", b"example"], kind)).unwrap();
        assert_eq!(read(&answered), (RCODE::NoError, vec![]), "{kind}");
    }
    // NS, CNAME, NULL, PTR, MX, TXT, SRV, ANY: what tunnels use.
    for kind in [2, 5, 10, 12, 15, 16, 33, 255, 65399] {
        let answered = ask(&query(&[b"a", b"example"], kind)).unwrap();
        let (code, addresses) = read(&answered);
        assert!(code != RCODE::NoError && addresses.is_empty(), "{kind}");
    }
}

#[test]
fn other_names_do_not_exist() {
    for labels in [
        &[&b"b"[..], b"example"][..],
        &[b"a", b"example", b"evil", b"org"],
        &[b"a.example"],
        &[b"a\0", b"example"],
        &[b"\xc3\xa4", b"example"],
        &[b"127", b"0", b"0", b"1"],
        &[b"1", b"0", b"0", b"127", b"in-addr", b"arpa"],
        &[],
    ] {
        for kind in [A_RECORD, 28, 16] {
            let answered = ask(&query(labels, kind)).unwrap();
            assert_eq!(read(&answered), (RCODE::NameError, vec![]), "{labels:?}");
            assert!(answered.refused.is_some());
        }
    }
}

#[test]
fn what_is_no_question_is_no_answer_either() {
    let good = query(&[b"a", b"example"], A_RECORD);
    assert!(ask(&good[..11]).is_none());
    let mut response = good.clone();
    response[2] |= 0x80;
    assert!(ask(&response).is_none());
    for (at, value) in [(5, 2), (5, 0), (7, 1), (9, 1), (10, 1)] {
        let mut message = good.clone();
        message[at] = value;
        assert_eq!(read(&ask(&message).unwrap()).0, RCODE::FormatError, "{at}");
    }
    assert_eq!(read(&ask(&good[..20]).unwrap()).0, RCODE::FormatError);
    let mut update = good.clone();
    update[2] = 5 << 3;
    assert_eq!(read(&ask(&update).unwrap()).0, RCODE::NotImplemented);
    let mut chaos = good.clone();
    *chaos.last_mut().unwrap() = 3;
    assert_eq!(read(&ask(&chaos).unwrap()).0, RCODE::NotImplemented);
    // A name that points at itself.
    let mut circle = good[..12].to_vec();
    circle.extend([0xc0, 12, 0, 1, 0, 1]);
    assert_ne!(read(&ask(&circle).unwrap()).0, RCODE::NoError);
}

#[test]
fn a_question_with_edns_is_answered() {
    let mut message = query(&[b"a", b"example"], A_RECORD);
    message[11] = 1;
    message.extend([0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(
        read(&ask(&message).unwrap()),
        (RCODE::NoError, vec![ADDRESS])
    );
}

#[test]
fn questions_run_out_and_come_back() {
    let mut budget = Budget::new(10, 3);
    let start = Instant::now();
    let taken = (0..10).filter(|_| budget.take(start).is_ok()).count();
    assert_eq!(taken, 3);
    assert_eq!(budget.take(start).unwrap_err().code(), "too_many");
    let later = start + Duration::from_millis(250);
    assert_eq!((0..10).filter(|_| budget.take(later).is_ok()).count(), 2);
}

#[test]
fn a_refusal_is_told_once() {
    let mut told = Told::default();
    assert!(told.is_news("a") && told.is_news("b") && !told.is_news("a"));
    for index in 0..10_000 {
        told.is_news(&index.to_string());
    }
    assert!(told.0.len() <= MAX_TOLD);
}

proptest! {
    #[test]
    fn garbage_is_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        crate::proxy::fuzzing::dns(&bytes);
        let mut question = query(&[b"a", b"example"], A_RECORD)[..12].to_vec();
        question.extend(&bytes);
        crate::proxy::fuzzing::dns(&question);
    }
}
