//! What a sandbox can say first in a tunnel, in any pieces: what passes is what came. `cargo +nightly fuzz run hello`
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| egress::proxy::fuzzing::hello(input.1, input.0));
