//! One line of the log.
//!
//! ```text
//! {"v":1,"seq":7,"timestamp":"2026-11-22T10:53:02.123456Z","phase":"intent","op":"5e1f…-3","action":"session.create",
//!  "session_id":null,"actor":{"id":"uid:0","hash":"sha256:…"},"client":{"name":"…","version":"…"},"parameters":{…},
//!  "result":"pending","reason":null,"duration_ms":null,"prev":"64 hex digits","hash":"64 hex digits"}
//! ```
//! The order of the fields is fixed and `hash` is the last one: SHA-256 over the domain, the 32 bytes of `prev`, and
//! the line as it stands without `,"hash":"…"`. So the bytes that are hashed are the bytes in the file, and a checker
//! needs no rules about how JSON is spelled.

use std::collections::BTreeMap;

use jiff::Timestamp;
use model::{ClientInfo, OwnerId, SessionId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{Parameter, text};

/// Longest line, bytes.
pub const MAX_RECORD_BYTES: usize = 8 * 1024;
/// Most parameters of one record; the rest is counted, not kept.
pub const MAX_PARAMETERS: usize = 16;
/// Largest number that every JSON reader keeps exactly, 2^53 − 1; a larger one is written as text.
const MAX_EXACT_NUMBER: u64 = (1 << 53) - 1;
/// Separates our hashes from those of other uses of SHA-256.
const RECORD_DOMAIN: &[u8] = b"claude-code-mcp audit record v1\0";
const ACTOR_DOMAIN: &[u8] = b"claude-code-mcp audit actor v1\0";
/// What follows the hashed bytes: `,"hash":"`, the digits, `"}`.
const HASH_FIELD: &[u8] = b",\"hash\":\"";
const PREV_FIELD: &[u8] = b",\"prev\":\"";
const HASH_DIGITS: usize = 64;
const LINE_END: &[u8] = b"\"}";

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Written before an action, which must not start without it.
    Intent,
    /// How an action ended.
    Result,
    /// Something that happened without anybody asking.
    Event,
}

/// Who asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// The principal's name where that is no secret: `uid:1000`, `system`.
    pub id: Option<String>,
    /// `sha256:` and the digest of the principal's name under the installation's id: the same caller has the same hash
    /// all through one installation's log, and another one in any other.
    pub hash: String,
}

impl Actor {
    pub(crate) fn new(owner: OwnerId, principal: &str) -> Self {
        let digest = Sha256::new()
            .chain_update(ACTOR_DOMAIN)
            .chain_update(owner.as_bytes())
            .chain_update(principal);
        let open = principal == "system" || principal.starts_with("uid:");
        Actor {
            id: open.then(|| text::word(principal)),
            hash: format!("sha256:{}", hex::encode(digest.finalize())),
        }
    }
}

/// With which program, as it names itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

impl Client {
    pub(crate) fn new(client: &ClientInfo) -> Self {
        Client {
            name: text::word(&client.name),
            version: text::word(&client.version),
        }
    }
}

/// One record, as read from the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Version of the format: 1.
    pub v: u32,
    /// Its number; the first one is 1.
    pub seq: u64,
    /// When it was written: RFC 3339, UTC, microseconds.
    pub timestamp: String,
    /// The rest.
    #[serde(flatten)]
    pub body: Body,
    /// Hash of the record before, hexadecimal; zeros for the first.
    pub prev: String,
    /// Its own hash, hexadecimal.
    pub hash: String,
}

/// What a record says, apart from its place in the chain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Body {
    /// What it is.
    pub phase: Phase,
    /// The operation that intent and result share.
    pub op: Option<String>,
    /// What is done.
    pub action: String,
    /// The session that it concerns.
    pub session_id: Option<SessionId>,
    /// Who asked.
    pub actor: Actor,
    /// With which program.
    pub client: Client,
    /// Details: numbers, words, and digests of content.
    pub parameters: BTreeMap<String, Value>,
    /// `pending` (an intent), `ok`, `denied`, `failed`, `aborted` (the call was given up), `unknown` (the server was
    /// killed before it ended; also the result of a gap).
    pub result: String,
    /// The stable code of a refusal or failure.
    pub reason: Option<String>,
    /// From intent to result, milliseconds.
    pub duration_ms: Option<u64>,
}

impl Body {
    /// The body as the middle of a line. One that is too long loses the texts of its parameters to their digests.
    pub(crate) fn encode(mut self) -> Middle {
        let mut bytes = self.fields();
        if bytes.len() > MAX_RECORD_BYTES - CHAIN_FIELDS_BYTES {
            self.parameters.values_mut().for_each(shorten);
            self.parameters
                .insert("shortened".to_owned(), Value::Bool(true));
            bytes = self.fields();
        }
        Middle(bytes)
    }

    fn fields(&self) -> Vec<u8> {
        // Only maps with keys that are no text fail to serialize, and there are none.
        let object = serde_json::to_vec(self).unwrap_or_else(|_| b"{}".to_vec());
        object[1..object.len() - 1].to_vec()
    }
}

/// Space for `v`, `seq`, `timestamp`, `prev`, `hash` and the line feed, bytes.
const CHAIN_FIELDS_BYTES: usize = 256;

fn shorten(value: &mut Value) {
    if let Value::String(text) = value {
        *value = content(&Sha256::digest(text.as_bytes()).into(), text.len() as u64);
    }
}

fn content(sha256: &[u8; 32], bytes: u64) -> Value {
    serde_json::json!({ "bytes": bytes, "sha256": hex::encode(sha256) })
}

/// The parameters as they stand in a record.
pub(crate) fn parameters(given: &[(&'static str, Parameter)]) -> BTreeMap<String, Value> {
    let mut kept: BTreeMap<_, _> = given
        .iter()
        .take(MAX_PARAMETERS)
        .map(|(name, value)| (text::word(name), encode(value)))
        .collect();
    if given.len() > MAX_PARAMETERS {
        kept.insert(
            "parameters_dropped".to_owned(),
            Value::from(given.len() - MAX_PARAMETERS),
        );
    }
    kept
}

fn encode(parameter: &Parameter) -> Value {
    match parameter {
        Parameter::Number(number) if *number > MAX_EXACT_NUMBER => Value::from(number.to_string()),
        Parameter::Number(number) => Value::from(*number),
        Parameter::Word(word) => Value::from(text::word(word)),
        Parameter::Path(path) => Value::from(text::path(path)),
        Parameter::Content { sha256, bytes } => content(sha256, *bytes),
    }
}

/// An encoded [`Body`], without braces.
#[derive(Debug, Clone)]
pub(crate) struct Middle(Vec<u8>);

/// The end of a chain: number and hash of its last record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    pub seq: u64,
    pub hash: [u8; 32],
}

impl Link {
    /// Before the first record.
    pub const START: Link = Link {
        seq: 0,
        hash: [0; 32],
    };

    /// Appends the next record of this chain to `buffer`, with its line feed; returns the new end.
    pub fn append(&self, middle: &Middle, now: Timestamp, buffer: &mut Vec<u8>) -> Link {
        let start = buffer.len();
        let seq = self.seq + 1;
        buffer.extend_from_slice(
            format!("{{\"v\":1,\"seq\":{seq},\"timestamp\":\"{now:.6}\",").as_bytes(),
        );
        buffer.extend_from_slice(&middle.0);
        buffer.extend_from_slice(format!(",\"prev\":\"{}\"", hex::encode(self.hash)).as_bytes());
        let hash = hash(&self.hash, &buffer[start..]);
        buffer.extend_from_slice(HASH_FIELD);
        buffer.extend_from_slice(hex::encode(hash).as_bytes());
        buffer.extend_from_slice(LINE_END);
        buffer.push(b'\n');
        Link { seq, hash }
    }

    /// Whether that line is the next one.
    pub fn accepts(&self, line: &Sound<'_>) -> bool {
        line.seq == self.seq + 1 && line.prev == self.hash
    }
}

fn hash(prev: &[u8; 32], line_without_hash: &[u8]) -> [u8; 32] {
    let hash = Sha256::new()
        .chain_update(RECORD_DOMAIN)
        .chain_update(prev)
        .chain_update(line_without_hash);
    hash.chain_update(b"}").finalize().into()
}

/// A line that is sound in itself: a record of this format whose hash fits its content. It holds the fields that a
/// checker looks at.
#[derive(Debug)]
pub(crate) struct Sound<'a> {
    pub seq: u64,
    pub timestamp: &'a str,
    pub phase: Phase,
    pub op: Option<&'a str>,
    pub action: &'a str,
    pub prev: [u8; 32],
    pub hash: [u8; 32],
}

impl<'a> Sound<'a> {
    /// Reads a line without its line feed. The fields stand where [`Link::append`] and [`Body`] put them, so no JSON is
    /// parsed: the hash answers for every byte of the rest.
    pub fn read(line: &'a [u8]) -> Option<Sound<'a>> {
        let rest = line.strip_suffix(LINE_END)?;
        let (rest, digits) = rest.split_at_checked(rest.len().checked_sub(HASH_DIGITS)?)?;
        let hashed = rest.strip_suffix(HASH_FIELD)?;
        let rest = hashed.strip_suffix(b"\"")?;
        let (rest, prev_digits) = rest.split_at_checked(rest.len().checked_sub(HASH_DIGITS)?)?;
        let rest = rest.strip_suffix(PREV_FIELD)?;
        let (prev, written) = (unhex(prev_digits)?, unhex(digits)?);
        if hash(&prev, hashed) != written {
            return None;
        }
        let (seq, rest) = until(rest.strip_prefix(b"{\"v\":1,\"seq\":")?, b',')?;
        let (timestamp, rest) = until(rest.strip_prefix(b"\"timestamp\":\"")?, b'"')?;
        let (phase, rest) = until(rest.strip_prefix(b",\"phase\":\"")?, b'"')?;
        let (op, rest) = match rest.strip_prefix(b",\"op\":null") {
            Some(rest) => (None, rest),
            None => {
                until(rest.strip_prefix(b",\"op\":\"")?, b'"').map(|(op, rest)| (Some(op), rest))?
            }
        };
        let (action, _) = until(rest.strip_prefix(b",\"action\":\"")?, b'"')?;
        let phase = match phase {
            "intent" => Phase::Intent,
            "result" => Phase::Result,
            "event" => Phase::Event,
            _ => return None,
        };
        Some(Sound {
            seq: seq.parse().ok()?,
            timestamp,
            phase,
            op,
            action,
            prev,
            hash: written,
        })
    }

    pub fn link(&self) -> Link {
        Link {
            seq: self.seq,
            hash: self.hash,
        }
    }
}

/// The text before the first such byte, and what follows it.
fn until(bytes: &[u8], end: u8) -> Option<(&str, &[u8])> {
    let at = bytes.iter().position(|byte| *byte == end)?;
    Some((std::str::from_utf8(&bytes[..at]).ok()?, &bytes[at + 1..]))
}

/// Lower-case digits only: a record has one spelling.
fn unhex(digits: &[u8]) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if digits.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    hex::decode_to_slice(digits, &mut bytes).ok()?;
    Some(bytes)
}
