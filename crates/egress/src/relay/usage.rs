//! What an answer cost, read while it passes: an incremental scanner that never fails. It knows event streams (SSE),
//! Bedrock's frames and plain JSON; of anything else it counts bytes.

mod frames;
mod json;
mod sse;

use std::ops::{AddAssign, SubAssign};

use serde_json::Value;

use self::{frames::Frames, json::TopLevelUsage, sse::Events};

/// Bytes of text that are reckoned as one token where the provider's own number is not known (yet). English has about
/// four, code about three.
const BYTES_PER_TOKEN: u64 = 4;

/// Tokens as the provider bills them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Input that no cache had.
    pub input: u64,
    /// Output.
    pub output: u64,
    /// Input read from a cache.
    pub cache_read: u64,
    /// Input written to a cache.
    pub cache_creation: u64,
    /// Of that, what stays there for an hour instead of five minutes.
    pub cache_creation_1h: u64,
}

impl Tokens {
    /// All kinds together.
    pub const fn total(&self) -> u64 {
        self.input
            .saturating_add(self.output)
            .saturating_add(self.cache_read)
            .saturating_add(self.cache_creation)
    }

    fn each(self, other: Self, combine: fn(u64, u64) -> u64) -> Self {
        Tokens {
            input: combine(self.input, other.input),
            output: combine(self.output, other.output),
            cache_read: combine(self.cache_read, other.cache_read),
            cache_creation: combine(self.cache_creation, other.cache_creation),
            cache_creation_1h: combine(self.cache_creation_1h, other.cache_creation_1h),
        }
    }
}

impl AddAssign for Tokens {
    fn add_assign(&mut self, other: Self) {
        *self = self.each(other, u64::saturating_add);
    }
}

impl SubAssign for Tokens {
    fn sub_assign(&mut self, other: Self) {
        *self = self.each(other, u64::saturating_sub);
    }
}

/// Tokens reckoned from bytes, rounded up.
pub(crate) const fn reckoned(bytes: u64) -> u64 {
    bytes.div_ceil(BYTES_PER_TOKEN)
}

/// What has been seen of an answer so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The largest numbers that the provider has said; they only grow within one answer.
    pub tokens: Tokens,
    /// The input's numbers are the provider's.
    pub input_known: bool,
    /// The output's number is the provider's last word.
    pub output_known: bool,
    /// Bytes of generated text seen, to reckon with until then.
    pub text_bytes: u64,
    /// Web searches of the provider's own.
    pub web_searches: u64,
}

/// Reads usage out of an answer that arrives in pieces, however it is cut. It keeps a bounded part of it and gives up on
/// what is longer or malformed, never on the rest.
pub struct Scanner {
    format: Format,
    seen: Seen,
}

enum Format {
    Events(Events),
    Frames(Frames),
    Json(TopLevelUsage),
    Opaque,
}

impl Scanner {
    /// A scanner for an answer of this content type.
    pub fn new(content_type: &str) -> Self {
        let media = content_type.split(';').next().unwrap_or_default().trim();
        let format = match media.to_ascii_lowercase().as_str() {
            "text/event-stream" => Format::Events(Events::default()),
            "application/vnd.amazon.eventstream" => Format::Frames(Frames::default()),
            "application/json" => Format::Json(TopLevelUsage::default()),
            _ => Format::Opaque,
        };
        Scanner {
            format,
            seen: Seen::default(),
        }
    }

    /// The next piece of the answer.
    pub fn push(&mut self, piece: &[u8]) {
        let seen = &mut self.seen;
        match &mut self.format {
            Format::Events(events) => events.push(piece, &mut |data| event(data, seen)),
            Format::Frames(frames) => frames.push(piece, &mut |data| event(data, seen)),
            Format::Json(json) => {
                seen.text_bytes += piece.len() as u64;
                json.push(piece, &mut |usage| whole(usage, seen));
            }
            Format::Opaque => seen.text_bytes += piece.len() as u64,
        }
    }

    /// The answer has ended: what waits for its end is read now.
    pub fn finish(&mut self) {
        let seen = &mut self.seen;
        if let Format::Events(events) = &mut self.format {
            events.finish(&mut |data| event(data, seen));
        }
    }

    /// The provider's numbers so far.
    pub const fn tokens(&self) -> Tokens {
        self.seen.tokens
    }

    pub(crate) const fn seen(&self) -> &Seen {
        &self.seen
    }

    /// How the relay may end this answer by its own word, if at all.
    pub(crate) fn tail(&self) -> Tail {
        match &self.format {
            Format::Events(_) => Tail::Event,
            Format::Frames(frames) if frames.between() => Tail::Frame,
            Format::Frames(_) | Format::Json(_) | Format::Opaque => Tail::Abort,
        }
    }

    /// Whether the answer is a stream, whose length is not known beforehand.
    pub(crate) const fn is_stream(&self) -> bool {
        matches!(self.format, Format::Events(_) | Format::Frames(_))
    }
}

/// How an answer under way is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tail {
    /// By an error event.
    Event,
    /// By a frame with an exception.
    Frame,
    /// By cutting the connection: nothing may be added.
    Abort,
}

/// One event of a stream, as JSON.
fn event(data: &[u8], seen: &mut Seen) {
    let Ok(event) = serde_json::from_slice::<Value>(data) else {
        return;
    };
    match event.get("type").and_then(Value::as_str) {
        Some("message_start") => {
            if let Some(usage) = event.pointer("/message/usage") {
                seen.input_known |= take(usage, seen);
            }
        }
        Some("message_delta") => {
            if let Some(usage) = event.get("usage") {
                take(usage, seen);
                seen.output_known |= number(usage, "output_tokens").is_some();
            }
        }
        Some("content_block_delta") => {
            if let Some(Value::Object(delta)) = event.get("delta") {
                seen.text_bytes += ["text", "thinking", "partial_json"]
                    .iter()
                    .filter_map(|field| delta.get(*field)?.as_str())
                    .map(|text| text.len() as u64)
                    .sum::<u64>();
            }
        }
        _ => {}
    }
}

/// The usage of an answer that comes in one piece.
fn whole(usage: &[u8], seen: &mut Seen) {
    if let Ok(usage) = serde_json::from_slice::<Value>(usage) {
        seen.input_known |= take(&usage, seen);
        seen.output_known |= number(&usage, "output_tokens").is_some();
    }
}

/// Takes over what a usage object says; says whether it told of the input.
fn take(usage: &Value, seen: &mut Seen) -> bool {
    let said = |name| number(usage, name).unwrap_or(0);
    let tokens = Tokens {
        input: said("input_tokens"),
        output: said("output_tokens"),
        cache_read: said("cache_read_input_tokens"),
        cache_creation: said("cache_creation_input_tokens"),
        cache_creation_1h: inner(usage, "/cache_creation/ephemeral_1h_input_tokens"),
    };
    seen.tokens = seen.tokens.each(tokens, u64::max);
    let searches = inner(usage, "/server_tool_use/web_search_requests");
    seen.web_searches = seen.web_searches.max(searches);
    number(usage, "input_tokens").is_some()
}

fn inner(usage: &Value, pointer: &str) -> u64 {
    usage.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}

fn number(usage: &Value, name: &str) -> Option<u64> {
    usage.get(name)?.as_u64()
}

#[cfg(test)]
mod tests;
