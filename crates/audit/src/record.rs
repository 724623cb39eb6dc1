//! One line of the log.
use serde::{Deserialize, Serialize};
/// Most parameters of one record; the rest is counted, not kept.
pub const MAX_PARAMETERS: usize = 16;
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
/// Who.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Name.
    pub id: Option<String>,
    /// Digest.
    pub hash: String,
}
/// With which program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
}
/// One record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Number.
    pub seq: u64,
}
