//! Many connections over one pair of byte streams: how frames travel where no socket of the host can be mounted, over
//! the standard input and output of a sandbox's first process.
//!
//! ```text
//! host                                        supervisor
//!   0x00  Attach { host nonce, key? }  ──────►            the first one brings the key, before anything untrusted runs
//!         ◄────── Attached { supervisor nonce }           every earlier connection is gone
//!         ◄────── Open { channel, urgent }                as a connection to the socket would be
//!         ◄─────► Data, Credit, End; ──► Close            until somebody attaches anew
//! ```
//! Both streams outlive the server, so a new one may find half a frame of its predecessor. Hence frames end with a zero
//! byte that occurs nowhere in them (COBS, Cheshire and Baker 1999), and an attachment begins with one. The agent may have
//! got at the streams (an old gVisor opens `/proc/1/fd` to whoever has the same uid): hence each frame carries a code over
//! the key, both nonces, its direction and its number. What was swallowed, invented, replayed or cut ends the attachment;
//! nobody is believed who does not have the key.
//!
//! What this does not stop: reading along. Nothing that travels here is secret from the agent.

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::WireError;

/// The key of one sandbox's streams. It does not print.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarrierKey([u8; 32]);

impl CarrierKey {
    /// From random bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        CarrierKey(bytes)
    }
}

impl std::fmt::Debug for CarrierKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CarrierKey(..)")
    }
}

/// Random, new for each attachment.
pub type Nonce = [u8; 16];

/// Most bytes of a [`Carried::Data`]: whatever is urgent waits for no more than a few of them.
pub const MAX_CARRIED_BYTES: usize = 32 * 1024;
/// Bytes that one side may send on a channel before the other one has taken any: two of the largest frames of output.
pub const CARRIER_WINDOW_BYTES: u32 = 256 * 1024;
/// Channels of one attachment: a control connection, as many transfers as a supervisor runs, those that still end, and
/// connections from inside.
pub const MAX_CHANNELS: usize = MAX_RELAYED_CHANNELS + 32;
/// No connection from inside gets a channel when there are so many: more wait. Package managers have some dozens open at
/// once; each may hold [`CARRIER_WINDOW_BYTES`] on either side.
pub const MAX_RELAYED_CHANNELS: usize = 128;

/// Bytes of the code at the end of each message: HMAC-SHA-256, cut to its half (RFC 2104, section 5).
const CODE_BYTES: usize = 16;
/// Longest frame as it stands in the stream: content, its envelope, the code, and one byte more for each 254 of it.
const MAX_FRAME_BYTES: usize = {
    let bytes = MAX_CARRIED_BYTES + 64 + CODE_BYTES;
    bytes + bytes / 254 + 1
};
/// Ends each frame, and is nowhere else in it.
const END: u8 = 0;

/// What travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Carried {
    /// The host's first: all before is over.
    Attach {
        /// The host's part of what makes this attachment unlike any other.
        nonce: Nonce,
        /// The key, in the first attachment of a sandbox alone.
        key: Option<CarrierKey>,
    },
    /// The supervisor's first, to an [`Carried::Attach`].
    Attached {
        /// The supervisor's part.
        nonce: Nonce,
    },
    /// The supervisor opens a channel. Numbers are never used again within an attachment.
    Open {
        /// Its number.
        channel: u32,
        /// Goes before what is not.
        urgent: bool,
    },
    /// Bytes of a channel, at most [`MAX_CARRIED_BYTES`] and what the other side gave credit for.
    Data {
        /// Which.
        channel: u32,
        /// The bytes.
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    /// That many more bytes may be sent.
    Credit {
        /// On which.
        channel: u32,
        /// How many.
        bytes: u32,
    },
    /// Whoever says so sends nothing more on a channel, and still reads.
    End {
        /// Which.
        channel: u32,
    },
    /// The host closes a channel: it neither sends nor reads any more.
    Close {
        /// Which.
        channel: u32,
    },
    /// The supervisor no longer believes this attachment: the host attaches anew.
    Lost,
}

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// The server.
    Host,
    /// The sandbox's first process.
    Supervisor,
}

/// Makes frames of one direction of one attachment.
#[derive(Debug, Clone)]
pub struct Sealer(Sequence);

/// Reads frames of one direction of one attachment.
#[derive(Debug, Clone)]
pub struct Opener(Sequence);

#[derive(Clone)]
struct Sequence {
    mac: Hmac<Sha256>,
    number: u64,
}

/// Without the key.
impl std::fmt::Debug for Sequence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sequence")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl Sequence {
    /// `nonces` is empty for the frames that bring them.
    fn new(key: &CarrierKey, sender: Sender, nonces: &[Nonce]) -> Self {
        // JUSTIFICATION: HMAC takes keys of any length; this one is as long as its type says.
        #[expect(clippy::expect_used, reason = "see above")]
        let mut mac = Hmac::<Sha256>::new_from_slice(&key.0).expect("a key of any length");
        mac.update(match sender {
            Sender::Host => b"host to supervisor",
            Sender::Supervisor => b"supervisor to host",
        });
        mac.update(&[nonces.len() as u8]);
        for nonce in nonces {
            mac.update(nonce);
        }
        Sequence { mac, number: 0 }
    }

    fn next(&mut self, body: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.mac.clone();
        mac.update(&self.number.to_le_bytes());
        mac.update(body);
        self.number += 1;
        mac
    }
}

impl Sealer {
    /// For an [`Carried::Attach`] (no nonces), an [`Carried::Attached`] (the host's), or all that follows (the host's, the
    /// supervisor's).
    pub fn new(key: &CarrierKey, sender: Sender, nonces: &[Nonce]) -> Self {
        Sealer(Sequence::new(key, sender, nonces))
    }

    /// The next frame, with its end.
    ///
    /// # Errors
    /// [`WireError::TooLarge`] for more than [`MAX_CARRIED_BYTES`] of content.
    pub fn seal(&mut self, message: &Carried) -> Result<Vec<u8>, WireError> {
        if let Carried::Data { bytes, .. } = message
            && bytes.len() > MAX_CARRIED_BYTES
        {
            return Err(WireError::TooLarge {
                bytes: bytes.len(),
                limit: MAX_CARRIED_BYTES,
            });
        }
        let mut body = postcard::to_allocvec(message).map_err(WireError::Unencodable)?;
        let code = self.0.next(&body).finalize().into_bytes();
        body.extend_from_slice(&code[..CODE_BYTES]);
        let mut frame = cobs::encode_vec(&body);
        frame.push(END);
        Ok(frame)
    }
}

impl Opener {
    /// As for [`Sealer::new`].
    pub fn new(key: &CarrierKey, sender: Sender, nonces: &[Nonce]) -> Self {
        Opener(Sequence::new(key, sender, nonces))
    }

    /// What a frame (without its end) says; `None` when it is not the next one of this sequence.
    pub fn open(&mut self, frame: &[u8]) -> Option<Carried> {
        let message = cobs::decode_vec(frame).ok()?;
        let (body, code) = message.split_at_checked(message.len().checked_sub(CODE_BYTES)?)?;
        self.0.next(body).verify_truncated_left(code).ok()?;
        decode(body)
    }
}

/// Who asks to attach, if the frame does: the key and the host's nonce. Without a `known` key the frame brings it, and its
/// code shows only that it arrived whole.
pub fn attach_request(known: Option<CarrierKey>, frame: &[u8]) -> Option<(CarrierKey, Nonce)> {
    let message = cobs::decode_vec(frame).ok()?;
    let body = &message[..message.len().checked_sub(CODE_BYTES)?];
    let Some(Carried::Attach { nonce, key }) = decode(body) else {
        return None;
    };
    let key = known.or(key)?;
    let opened = Opener::new(&key, Sender::Host, &[]).open(frame);
    opened.map(|_| (key, nonce))
}

fn decode(body: &[u8]) -> Option<Carried> {
    let (message, rest) = postcard::take_from_bytes(body).ok()?;
    rest.is_empty().then_some(message)
}

/// Cuts a stream into frames. Holds at most one of them and what was pushed beyond it.
#[derive(Debug, Default)]
pub struct Splitter {
    buffer: Vec<u8>,
    start: usize,
    /// Bytes from `start` on that are known to hold no end.
    searched: usize,
    /// More came than any frame has: all up to the next end is none.
    skipping: bool,
}

impl Splitter {
    /// Adds bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame without its end; an empty one for what is too long to be any. `None` until one is complete.
    pub fn next_frame(&mut self) -> Option<Vec<u8>> {
        let rest = &self.buffer[self.start..];
        let Some(end) = rest[self.searched..].iter().position(|byte| *byte == END) else {
            self.searched = rest.len();
            if rest.len() > MAX_FRAME_BYTES {
                self.skipping = true;
                self.buffer.clear();
                (self.start, self.searched) = (0, 0);
            }
            return None;
        };
        let length = self.searched + end;
        let broken = std::mem::take(&mut self.skipping) || length > MAX_FRAME_BYTES;
        let frame = if broken {
            Vec::new()
        } else {
            rest[..length].to_vec()
        };
        self.start += length + 1;
        self.searched = 0;
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: CarrierKey = CarrierKey::new([7; 32]);
    const OTHER_KEY: CarrierKey = CarrierKey::new([8; 32]);
    const NONCES: [Nonce; 2] = [[1; 16], [2; 16]];

    fn pair() -> (Sealer, Opener) {
        (
            Sealer::new(&KEY, Sender::Host, &NONCES),
            Opener::new(&KEY, Sender::Host, &NONCES),
        )
    }

    fn data(bytes: Vec<u8>) -> Carried {
        Carried::Data { channel: 3, bytes }
    }

    /// A frame without its end.
    fn sealed(sealer: &mut Sealer, message: &Carried) -> Vec<u8> {
        let mut frame = sealer.seal(message).unwrap();
        assert_eq!(frame.pop(), Some(END));
        assert!(!frame.contains(&END) && frame.len() <= MAX_FRAME_BYTES);
        frame
    }

    proptest! {
        #[test]
        fn what_is_sealed_is_opened_however_it_is_cut(
            contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2000), 1..6), cut in 1usize..700
        ) {
            let (mut sealer, mut opener) = pair();
            let stream: Vec<u8> = contents.iter().flat_map(|content| sealer.seal(&data(content.clone())).unwrap()).collect();
            let (mut splitter, mut got) = (Splitter::default(), Vec::new());
            for piece in stream.chunks(cut) {
                splitter.push(piece);
                while let Some(frame) = splitter.next_frame() {
                    got.push(opener.open(&frame));
                }
            }
            prop_assert_eq!(got, contents.into_iter().map(|content| Some(data(content))).collect::<Vec<_>>());
        }

        #[test]
        fn garbage_is_nothing(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let (_, mut opener) = pair();
            let mut splitter = Splitter::default();
            splitter.push(&bytes);
            while let Some(frame) = splitter.next_frame() {
                prop_assert_eq!(opener.open(&frame), None);
                prop_assert_eq!(attach_request(None, &frame), None);
            }
        }

        #[test]
        fn a_flipped_bit_is_nothing(content in prop::collection::vec(any::<u8>(), 0..300), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let (mut sealer, mut opener) = pair();
            let mut frame = sealed(&mut sealer, &data(content));
            let at = at.index(frame.len());
            frame[at] ^= 1 << bit;
            prop_assert_eq!(opener.open(&frame), None);
        }
    }

    #[test]
    fn a_frame_counts_once_in_its_place_from_its_sender_under_its_key_and_nonces() {
        let (mut sealer, opener) = pair();
        let (first, second) = (
            sealed(&mut sealer, &Carried::Lost),
            sealed(&mut sealer, &Carried::Lost),
        );
        let mut control = opener.clone();
        assert_eq!(control.open(&first), Some(Carried::Lost));
        assert_eq!(control.open(&second), Some(Carried::Lost), "in order");
        assert_eq!(opener.clone().open(&second), None, "one was swallowed");
        let mut again = opener.clone();
        assert_eq!(again.open(&first), Some(Carried::Lost));
        assert_eq!(again.open(&first), None, "replayed");
        for mut other in [
            Opener::new(&OTHER_KEY, Sender::Host, &NONCES),
            Opener::new(&KEY, Sender::Supervisor, &NONCES),
            Opener::new(&KEY, Sender::Host, &[[1; 16], [3; 16]]),
            Opener::new(&KEY, Sender::Host, &NONCES[..1]),
            Opener::new(&KEY, Sender::Host, &[]),
        ] {
            assert_eq!(other.open(&first), None, "{other:?}");
        }
    }

    #[test]
    fn a_key_does_not_print() {
        let attach = Carried::Attach {
            nonce: [1; 16],
            key: Some(CarrierKey::new([201; 32])),
        };
        let printed = format!("{attach:?}");
        assert!(printed.contains("nonce: [1, 1,"), "the control: {printed}");
        assert!(!printed.contains("201"), "{printed}");
    }

    #[test]
    fn a_cut_frame_never_joins_what_follows() {
        let (mut sealer, mut opener) = pair();
        let frame = sealer.seal(&data(vec![5; 600])).unwrap();
        for cut in 0..frame.len() - 1 {
            let mut splitter = Splitter::default();
            splitter.push(&frame[..cut]);
            splitter.push(&[END]);
            let mut fresh = Sealer::new(&KEY, Sender::Host, &[]);
            let attach = Carried::Attach {
                nonce: [9; 16],
                key: Some(KEY),
            };
            splitter.push(&fresh.seal(&attach).unwrap());
            let half = splitter.next_frame().unwrap();
            assert_eq!(opener.clone().open(&half), None, "{cut}");
            let whole = splitter.next_frame().unwrap();
            for known in [None, Some(KEY)] {
                let asked = attach_request(known, &whole);
                assert_eq!(asked, Some((KEY, [9; 16])), "{cut}");
            }
            assert_eq!(attach_request(Some(OTHER_KEY), &whole), None, "another key");
        }
        assert!(
            opener.open(&frame[..frame.len() - 1]).is_some(),
            "the control"
        );
    }

    #[test]
    fn an_endless_frame_takes_no_memory_and_ends() {
        let mut splitter = Splitter::default();
        for _ in 0..100 {
            splitter.push(&[1; MAX_FRAME_BYTES]);
            assert_eq!(splitter.next_frame(), None);
            assert!(splitter.buffer.len() <= 2 * MAX_FRAME_BYTES + 1);
        }
        splitter.push(&[1, END, 2, 3, END]);
        assert_eq!(
            splitter.next_frame(),
            Some(Vec::new()),
            "it was none, and that is known"
        );
        assert_eq!(splitter.next_frame(), Some(vec![2, 3]));
        assert_eq!(splitter.next_frame(), None);
    }

    #[test]
    fn content_beyond_the_limit_is_not_sent() {
        let (mut sealer, _) = pair();
        assert!(sealer.seal(&data(vec![0; MAX_CARRIED_BYTES])).is_ok());
        assert!(sealer.seal(&data(vec![0; MAX_CARRIED_BYTES + 1])).is_err());
    }
}
