//! What a hostile peer can say towards the supervisor: frames in any pieces. `cargo +nightly fuzz run to_supervisor`
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::{Decoder, MAX_TO_SUPERVISOR_BYTES, ToSupervisor, encode};

fuzz_target!(|input: (Vec<u8>, u8)| {
    let (bytes, piece) = input;
    let mut decoder = Decoder::new(MAX_TO_SUPERVISOR_BYTES);
    for piece in bytes.chunks(usize::from(piece) + 1) {
        decoder.push(piece);
        loop {
            match decoder.next::<ToSupervisor>() {
                Ok(Some(message)) => {
                    // What decodes says the same when it is said again.
                    let again = encode(&message, MAX_TO_SUPERVISOR_BYTES).expect("a decoded message encodes");
                    let mut second = Decoder::new(MAX_TO_SUPERVISOR_BYTES);
                    second.push(&again);
                    assert_eq!(second.next::<ToSupervisor>(), Ok(Some(message)));
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
        assert!(decoder.pending() <= MAX_TO_SUPERVISOR_BYTES + 4);
    }
});
