//! Attacks on the walls: one attack per test, through the real binary, at every place of `place.rs`: the
//! embedded runtime of root and of an ordinary user, and a container of a Docker engine.
//!
//! Whatever attacks runs inside a session. Each refusal has its positive control in the same test: the same probe on
//! something that is allowed, or outside the filter (in namespaces of the probe's own), so that no test passes because
//! the kernel lacks the call or the probe is broken.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test fails by panicking and tells by standard error"
)]

#[path = "../support/mod.rs"]
mod support;

mod audit_injection;
mod canaries;
mod devices;
mod egress_changes;
mod egress_direct;
mod egress_http;
mod egress_limits;
mod egress_names;
mod egress_opened;
mod egress_tls;
mod egress_tools;
mod egress_tunnels;
mod engine;
mod files;
mod hostile;
mod identity;
mod laboratory;
mod network;
mod network_laboratory;
mod place;
mod probe;
mod protected;
mod races;
mod repository;
mod resources;
mod secrets;
mod supervisor;
mod syscalls;
mod way_out;
