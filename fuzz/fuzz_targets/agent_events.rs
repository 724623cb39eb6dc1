//! What Claude Code, or something in its place, can print: any bytes in any pieces become lines and events, the same ones
//! however they are cut. `scripts/fuzz agent_events`
#![no_main]

use agent::protocol::{Line, Lines, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, bytes) = input;
    let mut lines = Lines::default();
    let cut: Vec<Line> = bytes
        .chunks(usize::from(piece) + 1)
        .flat_map(|piece| lines.push(piece))
        .collect();
    let mut whole = Lines::default();
    assert_eq!(cut, whole.push(bytes));
    assert_eq!(lines.partial(), whole.partial());
    for line in cut.iter().filter_map(|line| line.bytes.as_deref()) {
        parse(line);
    }
});
