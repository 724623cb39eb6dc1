//! What a sandbox can send to the proxy as a request of HTTP, chunks of a body among it. `scripts/fuzz http_head`
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    egress::proxy::fuzzing::http_head(bytes);
});
