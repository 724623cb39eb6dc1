//! The one road: every call, from whichever door, passes [`Road::handle`], and the order of checks exists there once.
//!
//! Reading order: [`Road`] (what a door sees), `road` (the order of checks), `identify` and `keys` (who calls), `limit` (how much a
//! caller may ask for) and `shed` (what the log hears of what is too much), `facts` (what is looked up before a decision) and `machine`
//! (the machine among it), `conceal` (what a remote caller is not told), `recorded` (what the audit log hears of a call), `egress` (what it
//! hears of sessions' traffic) and `turns` (and of prompts that had to wait), `keeper` (the server's own calls).

#![forbid(unsafe_code)]

mod conceal;
mod egress;
mod facts;
mod identify;
mod keeper;
mod key_actions;
mod keys;
mod limit;
mod machine;
mod recorded;
mod road;
mod shed;
mod turns;

pub use egress::EgressAudit;
pub use identify::{Authenticated, TokenRights};
pub use keeper::{KeeperSettings, keep};
pub use keys::KeyRing;
pub use limit::RateView;
pub use road::{Control, Parts, Road, ServerFacts};
pub use turns::TurnAudit;
