//! Which headers are of the message, and which of one connection alone: the same for the relay and the proxy.

use http::{HeaderMap, header};

/// Of one connection, never of the message (RFC 9110, section 7.6.1), with the older ones of RFC 2616.
const HOP_BY_HOP: [&str; 7] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Whether a header of that name is of one connection by what it is.
pub(crate) fn is_hop_by_hop(name: &str) -> bool {
    HOP_BY_HOP.contains(&name)
}

/// The names that `connection` lists: hop-by-hop by their sender's word.
pub(crate) fn nominated(headers: &HeaderMap) -> Vec<String> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect()
}
