//! The one road: every call, from whichever door, passes [`Road::handle`], and the order of checks exists there once.
//!
//! Reading order: [`Road`] (what a door sees), `road` (the order of checks), `facts` (what is looked up before a
//! decision), `recorded` (what the audit log hears of a call), `egress` (what it hears of sessions' traffic), `keeper` (the server's own calls).

#![forbid(unsafe_code)]

mod egress;
mod facts;
mod keeper;
mod recorded;
mod road;

pub use egress::EgressAudit;
pub use keeper::{KeeperSettings, keep};
pub use road::{Control, Road, ServerFacts};
