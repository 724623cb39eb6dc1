//! What a provider, or somebody in its place, can answer: the scanner of the relay reads any bytes in any pieces, and finds
//! the same however they are cut. `scripts/fuzz answer_scanner`
#![no_main]

use egress::Scanner;
use libfuzzer_sys::fuzz_target;

const KINDS: [&str; 4] = [
    "text/event-stream",
    "application/vnd.amazon.eventstream",
    "application/json",
    "application/octet-stream",
];

fuzz_target!(|input: (u8, u8, &[u8])| {
    let (piece, kind, bytes) = input;
    let kind = KINDS[usize::from(kind) % KINDS.len()];
    let mut scanner = Scanner::new(kind);
    for piece in bytes.chunks(usize::from(piece) + 1) {
        scanner.push(piece);
    }
    scanner.finish();
    let mut whole = Scanner::new(kind);
    whole.push(bytes);
    whole.finish();
    // Where a piece ends between CR and LF an event may be read a line early; nothing else depends on the pieces.
    if !bytes.contains(&b'\r') {
        assert_eq!(scanner.tokens(), whole.tokens());
    }
});
