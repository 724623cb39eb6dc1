//! A carrier against a host that this plays.

use super::*;
use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
};

const KEY: CarrierKey = CarrierKey::new([3; 32]);
const NONCE: Nonce = [4; 16];

/// The host of one attachment.
struct Host {
    stream: UnixStream,
    splitter: Splitter,
    sealer: Sealer,
    opener: Opener,
}

impl Host {
    fn attach() -> (Self, Carrier) {
        let (mut stream, ours) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut carrier = Carrier {
            input: Some(ours.try_clone().unwrap().into()),
            output: ours.into(),
            splitter: Splitter::default(),
            key: None,
            attachment: None,
            is_new: false,
            outgoing: Vec::new(),
            sent: 0,
        };
        let attach = Carried::Attach {
            nonce: NONCE,
            key: Some(KEY),
        };
        let frame = Sealer::new(&KEY, Sender::Host, &[]).seal(&attach).unwrap();
        stream.write_all(&frame).unwrap();
        carrier.pump(&mut [0; 4096]);
        let mut splitter = Splitter::default();
        let answer = frame_of(&mut stream, &mut splitter);
        let opened = Opener::new(&KEY, Sender::Supervisor, &[NONCE]).open(&answer);
        let Some(Carried::Attached { nonce }) = opened else {
            panic!("{opened:?}")
        };
        let host = Host {
            stream,
            splitter,
            sealer: Sealer::new(&KEY, Sender::Host, &[NONCE, nonce]),
            opener: Opener::new(&KEY, Sender::Supervisor, &[NONCE, nonce]),
        };
        (host, carrier)
    }

    fn say(&mut self, message: &Carried) {
        let frame = self.sealer.seal(message).unwrap();
        self.stream.write_all(&frame).unwrap();
    }

    fn hear(&mut self) -> Carried {
        let frame = frame_of(&mut self.stream, &mut self.splitter);
        self.opener.open(&frame).unwrap()
    }
}

fn frame_of(stream: &mut UnixStream, splitter: &mut Splitter) -> Vec<u8> {
    let mut buffer = [0; 4096];
    loop {
        match splitter.next_frame() {
            Some(frame) if frame.is_empty() => {}
            Some(frame) => return frame,
            None => {
                let count = stream.read(&mut buffer).unwrap();
                assert!(count > 0);
                splitter.push(&buffer[..count]);
            }
        }
    }
}

#[test]
fn a_host_that_ends_first_still_gets_what_comes_and_its_close_ends_both_ways() {
    let (mut host, mut carrier) = Host::attach();
    let mut dialled = UnixStream::from(carrier.dial(Purpose::Relayed).unwrap());
    carrier.pump(&mut [0; 4096]);
    let opened = Carried::Open {
        channel: 0,
        urgent: false,
    };
    assert_eq!(host.hear(), opened);
    let data = |bytes: &[u8]| Carried::Data {
        channel: 0,
        bytes: bytes.to_vec(),
    };
    host.say(&data(b"answer"));
    host.say(&Carried::End { channel: 0 });
    carrier.pump(&mut [0; 4096]);
    let mut heard = Vec::new();
    dialled.set_nonblocking(false).unwrap();
    dialled.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"answer");
    dialled.write_all(b"the rest of an upload").unwrap();
    carrier.pump(&mut [0; 4096]);
    assert_eq!(host.hear(), data(b"the rest of an upload"));
    host.say(&Carried::Close { channel: 0 });
    carrier.pump(&mut [0; 4096]);
    assert!(dialled.write_all(b"more").is_err(), "nobody reads it");
}

#[test]
fn content_behind_the_hosts_end_loses_the_attachment() {
    let (mut host, mut carrier) = Host::attach();
    let _dialled = carrier.dial(Purpose::Relayed).unwrap();
    host.say(&Carried::End { channel: 0 });
    carrier.pump(&mut [0; 4096]);
    assert!(carrier.attachment.is_some(), "the control");
    host.say(&Carried::Data {
        channel: 0,
        bytes: vec![1],
    });
    carrier.pump(&mut [0; 4096]);
    assert!(carrier.attachment.is_none());
}
