//! What a sandbox can ask the stub DNS. `scripts/fuzz dns`
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    egress::proxy::fuzzing::dns(bytes);
});
