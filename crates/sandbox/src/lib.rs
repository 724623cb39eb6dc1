//! The walls, seen from the host: what a backend must do, the client of the supervisor inside, and the suite that
//! every backend passes.
//!
//! Reading order: [`Backend`] (eight verbs), [`Link`] (how a supervisor's connections arrive), then the client.

#![forbid(unsafe_code)]

mod backend;

pub use backend::{
    Advice, Backend, BackendError, Capability, Connection, Inspection, Link, LimitCapability, Listed, Stream,
};
