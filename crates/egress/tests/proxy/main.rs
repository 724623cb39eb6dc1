//! The proxy as a client inside sees it, with servers on loopback: each refusal beside its positive control.

mod curl;
mod http;
mod names;
mod opened;
mod policy;
#[path = "../../../../tests/support/skip.rs"]
mod skip;
mod socks;
mod support;
mod tls;
