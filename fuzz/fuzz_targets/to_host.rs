//! What a hostile peer can say towards the host: frames in any pieces. `scripts/fuzz to_host`
#![no_main]
#![allow(clippy::expect_used, reason = "a fuzz target fails by panicking")]

use libfuzzer_sys::fuzz_target;
use wire::{Decoder, MAX_TO_HOST_BYTES, ToHost, encode};

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, bytes) = input;
    let mut decoder = Decoder::new(MAX_TO_HOST_BYTES);
    for piece in bytes.chunks(usize::from(piece) + 1) {
        decoder.push(piece);
        loop {
            match decoder.next::<ToHost>() {
                Ok(Some(message)) => {
                    // What decodes says the same when it is said again.
                    let again =
                        encode(&message, MAX_TO_HOST_BYTES).expect("a decoded message encodes");
                    let mut second = Decoder::new(MAX_TO_HOST_BYTES);
                    second.push(&again);
                    assert_eq!(second.next::<ToHost>(), Ok(Some(message)));
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
        assert!(decoder.pending() <= MAX_TO_HOST_BYTES + 4);
    }
});
