//! Sandboxes from a Docker engine on this host, with the same supervisor as pid 1 as everywhere else.
//!
//! Reading order: [`Docker`] (the verbs), [`calls`] (all that the engine is ever asked), `address` (where it is),
//! `engine` (how it is asked, and what its silence means), `transport` (over a network), `place` (whether it stands on this host), `host_config` (what a container is made of: by us alone, from the spec), `seccomp` (the profile
//! in the engine's form), `creation` and `staging` (what is mounted into it), `removal`, `inspection`, `machine` (what this
//! engine can enforce), `record`. [`images`] makes, lists and unpacks images for the command line,
//! and [`doctor`] says what is known of the engine.
//!
//! What this does not stop: a fault of the kernel, which all sandboxes share, or of the engine, which is root. Whoever may
//! speak to a rootful engine is root on the machine; no sandbox gets its socket.

#![forbid(unsafe_code)]

mod address;
pub mod calls;
mod config;
mod creation;
mod docker;
pub mod doctor;
mod engine;
mod host_config;
pub mod images;
mod inspection;
mod machine;
mod own_files;
mod place;
mod record;
mod removal;
mod seccomp;
mod staging;
mod transport;
mod turns;

pub use address::Tcp;
pub use config::DockerConfig;
pub use docker::Docker;
