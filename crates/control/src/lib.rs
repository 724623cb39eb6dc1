//! The one road: every call, from whichever door, passes [`Road::handle`], and the order of checks exists there once.
//!
//! Reading order: [`Road`] (what a door sees), `road` (the order of checks), `facts` (what is looked up before a
//! decision), `machine` (the machine among it), `limit` (how much a caller may ask for) and `shed` (what the log hears of what is too
//! much), `recorded` (what the audit log hears of a call), `egress` (what it hears of sessions' traffic), `keeper` (the server's own calls).

#![forbid(unsafe_code)]

mod egress;
mod facts;
mod keeper;
mod limit;
mod machine;
mod recorded;
mod road;
mod shed;

pub use egress::EgressAudit;
pub use keeper::{KeeperSettings, keep};
pub use limit::RateView;
pub use road::{Control, Road, ServerFacts};
