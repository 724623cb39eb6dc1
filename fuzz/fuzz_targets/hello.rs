//! What a sandbox can say first in a tunnel, in any pieces: what passes is what came. `scripts/fuzz hello`
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, bytes) = input;
    egress::proxy::fuzzing::hello(bytes, piece);
});
