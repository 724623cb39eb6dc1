//! The proxy of a session's sandbox: HTTP (CONNECT and absolute form), SOCKS5, and a stub DNS whose answers lead back here.
//!
//! Reading order: what a session may do ([`SessionEgress`]) and who is told of it ([`Recorder`]); the road of one connection
//! ([`Proxy`]), where the order of checks stands once; what is read from inside before anything is believed (`head`, `gate`,
//! `socks`, `hello`, `names`); and how bytes pass (`tunnel`, `requests`, and `opened` for what
//! [`crate::intercept`] opens).
//!
//! What this does not stop: what an allowed host does with what it is sent (a push to a code host among it), the name that is
//! said inside of TLS (a front that serves another host of the same certificate), and what a port other than 443 carries when
//! it does not begin as TLS.

mod limits;
mod record;
mod session;
mod synthetic;

mod serve;

mod gate;
mod head;
mod hello;
mod names;
mod socks;
mod target;

mod answer;
mod opened;
mod requests;
mod traffic;
mod tunnel;
mod upstream;

pub mod fuzzing;

pub use limits::ProxyLimits;
pub use record::{Decision, Ending, Recorder, Recording, Ticket, TunnelEnd, Unrecorded, Way};
pub use serve::{Proxy, ProxyPort};
pub use session::{EgressCounts, Opening, SessionEgress};

pub(crate) use session::{Ask, has_method, has_path};
