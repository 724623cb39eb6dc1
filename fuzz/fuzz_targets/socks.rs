//! What a sandbox can send to the proxy as SOCKS5. `scripts/fuzz socks`
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    egress::proxy::fuzzing::socks(bytes);
});
