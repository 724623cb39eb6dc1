//! One line of the log.
//!
//! ```text
//! {"v":2,"seq":7,"timestamp":"2026-11-22T10:53:02.123456Z","phase":"intent","op":"5e1f…-3","action":"session.create",
//!  "session_id":null,"actor":{"id":"uid:0","hash":"hmac-sha256:…"},"client":{"name":"…","version":"…"},
//!  "source":{"transport":"local","address":null},"target":{"type":"project","id":"/home/a/b"},"decision":null,
//!  "parameters":{…},"result":"pending","reason":null,"duration_ms":null,
//!  "key":4,"prev":"64 hex digits","mac":"32 hex digits","hash":"64 hex digits"}
//! ```
//! The order of the fields is fixed, and [`crate::verify`] refuses any other spelling of a record (`spelling.rs`). The
//! *digest* of a record is SHA-256 over the domain, the 32 bytes of `prev`, and the line as it stands before `,"mac"`.
//! `mac` is HMAC-SHA256 over the digest, its first 16 bytes, by key number `key` (`ratchet.rs`); `hash` is SHA-256 over
//! a domain, the digest and the 16 bytes of `mac`. So the bytes that are hashed are the bytes in the file, every bit of
//! a line is bound by the chain, and who has no key can check all but `mac` itself.

use std::collections::BTreeMap;

use jiff::Timestamp;
use model::{ClientInfo, SessionId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{Parameter, Target, identity::IdentityKey, ratchet::Seal, text};

/// Longest line, bytes.
pub const MAX_RECORD_BYTES: usize = 8 * 1024;
/// Most parameters of one record; the rest is counted, not kept.
pub const MAX_PARAMETERS: usize = 16;
/// How every line starts.
pub(crate) const FIRST_BYTES: &[u8] = b"{\"v\":2,\"seq\":";
/// Largest number that every JSON reader keeps exactly, 2^53 − 1; a larger one is written as text.
const MAX_EXACT_NUMBER: u64 = (1 << 53) - 1;
/// Separates our hashes from those of other uses of SHA-256. With `prev` it fills one block.
const DIGEST_DOMAIN: &[u8; 32] = b"claude-code-mcp audit record v2\0";
/// With digest and MAC it stays within one block.
const HASH_DOMAIN: &[u8; 7] = b"record\0";
/// What stands between the fields at the end of a line.
const KEY_FIELD: &[u8] = b",\"key\":";
const PREV_FIELD: &[u8] = b",\"prev\":\"";
const MAC_FIELD: &[u8] = b",\"mac\":\"";
const HASH_FIELD: &[u8] = b",\"hash\":\"";
const LINE_END: &[u8] = b"\"}";
/// Length of a MAC, bytes.
pub(crate) const MAC_BYTES: usize = 16;

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
    /// [`crate::identity_hash`] of the principal's name: the same caller has the same one all through one installation's
    /// log, and another one in any other.
    pub hash: String,
}

impl Actor {
    pub(crate) fn new(key: &IdentityKey, principal: &str) -> Self {
        let open = principal == "system" || principal.starts_with("uid:");
        Actor {
            id: open.then(|| text::word(principal)),
            hash: crate::identity_hash(key, principal),
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

/// From where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// By which way: `local`, `http`, `http_unix`, `system`.
    pub transport: String,
    /// From which address, where there is one.
    pub address: Option<String>,
}

impl Origin {
    pub(crate) fn new(source: model::Source) -> Self {
        Origin {
            transport: source.transport.as_str().to_owned(),
            address: source.address.map(|address| address.to_string()),
        }
    }
}

/// What an action is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// `session`, `execution`, `project`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// Which one.
    pub id: String,
}

impl Object {
    pub(crate) fn new(target: &Target) -> Self {
        Object {
            kind: text::word(target.kind),
            id: text::path(std::path::Path::new(&target.id)),
        }
    }

    pub(crate) fn session(session: SessionId) -> Self {
        Object {
            kind: "session".to_owned(),
            id: session.to_string(),
        }
    }
}

/// One record, as read from the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Version of the format: 2.
    pub v: u32,
    /// Its number; the first one is 1.
    pub seq: u64,
    /// When it was written: RFC 3339, UTC, microseconds.
    pub timestamp: String,
    /// The rest.
    #[serde(flatten)]
    pub body: Body,
    /// Number of the key that `mac` was made with.
    pub key: u64,
    /// Hash of the record before, hexadecimal; zeros for the first.
    pub prev: String,
    /// Its MAC, hexadecimal.
    pub mac: String,
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
    /// By which way.
    pub source: Origin,
    /// What it is about.
    pub target: Option<Object>,
    /// `allow` or `deny`; nothing before there is a decision, and for what nobody decides.
    pub decision: Option<String>,
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
        Middle {
            bytes,
            phase: self.phase,
            operation: self.op,
        }
    }

    fn fields(&self) -> Vec<u8> {
        // Only maps with keys that are no text fail to serialize, and there are none.
        let object = serde_json::to_vec(self).unwrap_or_else(|_| b"{}".to_vec());
        object[1..object.len() - 1].to_vec()
    }
}

/// Space for `v`, `seq`, `timestamp`, `key`, `prev`, `mac`, `hash` and the line feed, bytes.
const CHAIN_FIELDS_BYTES: usize = 384;

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
pub(crate) struct Middle {
    bytes: Vec<u8>,
    pub phase: Phase,
    pub operation: Option<String>,
}

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
    pub fn append(
        &self,
        middle: &Middle,
        now: Timestamp,
        seal: &Seal,
        buffer: &mut Vec<u8>,
    ) -> Link {
        use std::io::Write;
        let start = buffer.len();
        let seq = self.seq + 1;
        // Writing to memory does not fail.
        let _ = write!(
            buffer,
            "{{\"v\":2,\"seq\":{seq},\"timestamp\":\"{now:.6}\","
        );
        buffer.extend_from_slice(&middle.bytes);
        let _ = write!(
            buffer,
            ",\"key\":{},\"prev\":\"{}\"",
            seal.number(),
            hex::encode(self.hash)
        );
        let digest = digest(&self.hash, &buffer[start..]);
        let mac = seal.mac(&digest);
        let hash = hash(&digest, &mac);
        buffer.extend_from_slice(MAC_FIELD);
        buffer.extend_from_slice(hex::encode(mac).as_bytes());
        buffer.push(b'"');
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

fn digest(prev: &[u8; 32], line_before_mac: &[u8]) -> [u8; 32] {
    let digest = Sha256::new()
        .chain_update(DIGEST_DOMAIN)
        .chain_update(prev)
        .chain_update(line_before_mac);
    digest.finalize().into()
}

fn hash(digest: &[u8; 32], mac: &[u8; MAC_BYTES]) -> [u8; 32] {
    let hash = Sha256::new()
        .chain_update(HASH_DOMAIN)
        .chain_update(digest)
        .chain_update(mac);
    hash.finalize().into()
}

/// The number that a line claims, whether or not it is sound.
pub(crate) fn claimed_seq(line: &[u8]) -> Option<u64> {
    let (seq, _) = until(line.strip_prefix(FIRST_BYTES)?, b',')?;
    seq.parse().ok()
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
    pub key: u64,
    pub prev: [u8; 32],
    pub digest: [u8; 32],
    pub mac: [u8; MAC_BYTES],
    pub hash: [u8; 32],
}

impl<'a> Sound<'a> {
    /// Reads a line without its line feed. The fields stand where [`Link::append`] and [`Body`] put them, so no JSON is
    /// parsed: the hash answers for every byte of the rest.
    pub fn read(line: &'a [u8]) -> Option<Sound<'a>> {
        let rest = line.strip_suffix(LINE_END)?;
        let (rest, written) = field::<32>(rest, HASH_FIELD)?;
        let (hashed, mac) = field::<MAC_BYTES>(rest.strip_suffix(b"\"")?, MAC_FIELD)?;
        let (rest, prev) = field::<32>(hashed.strip_suffix(b"\"")?, PREV_FIELD)?;
        let digest = digest(&prev, hashed);
        if hash(&digest, &mac) != written {
            return None;
        }
        let key_digits = rest.iter().rev().take_while(|byte| byte.is_ascii_digit());
        let (rest, key) = rest.split_at(rest.len() - key_digits.count());
        rest.strip_suffix(KEY_FIELD)?;
        let (seq, rest) = until(rest.strip_prefix(FIRST_BYTES)?, b',')?;
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
            key: std::str::from_utf8(key).ok()?.parse().ok()?,
            prev,
            digest,
            mac,
            hash: written,
        })
    }

    pub fn link(&self) -> Link {
        Link {
            seq: self.seq,
            hash: self.hash,
        }
    }

    /// The record before it.
    pub fn link_before(&self) -> Option<Link> {
        let seq = self.seq.checked_sub(1)?;
        let hash = self.prev;
        Some(Link { seq, hash })
    }

    /// Number of the key of the next record.
    pub fn next_key(&self) -> u64 {
        self.key
            .saturating_add(u64::from(crate::ratchet::moves_on(self.action)))
    }
}

/// Takes the last field of a line off, with its name; its value is so many bytes in lower-case digits: a record has one
/// spelling.
fn field<'a, const BYTES: usize>(line: &'a [u8], name: &[u8]) -> Option<(&'a [u8], [u8; BYTES])> {
    let (rest, digits) = line.split_at_checked(line.len().checked_sub(BYTES * 2)?)?;
    let mut value = [0; BYTES];
    // To the end in any case, so that many digits are looked at in one step.
    let has_upper_case = digits
        .iter()
        .fold(false, |found, digit| found | digit.is_ascii_uppercase());
    if has_upper_case {
        return None;
    }
    // It would take `0x` for a beginning; then digits are missing.
    const_hex::decode_to_slice(digits, &mut value).ok()?;
    Some((rest.strip_suffix(name)?, value))
}

/// The text before the first such byte, and what follows it.
fn until(bytes: &[u8], end: u8) -> Option<(&str, &[u8])> {
    let at = bytes.iter().position(|byte| *byte == end)?;
    Some((std::str::from_utf8(&bytes[..at]).ok()?, &bytes[at + 1..]))
}
