//! Where a session may go, beside its model provider: nowhere, unless a rule names the host and the port.
//!
//! Reading order: what is a name at all ([`HostName`]), which rule names it ([`RuleSet`], [`preset`]), what a person
//! may yet allow ([`Wishes`]), what its addresses are
//! ([`AddressClass`]), the way there ([`Reach`]: resolved once on the host, all answers judged, the judged address
//! dialed), and what the one inside is told when the answer is no ([`Denial`]).
//!
//! What this does not stop: what a sandbox says to a host that it may reach.

mod name;

mod ports;
mod presets;
mod rules;
mod wishes;

mod address;

mod dial;
mod own;
mod pins;
mod reach;
mod resolve;

mod denial;

pub use address::AddressClass;
pub use denial::{ByPerson, Denial, Unresolved};
pub use name::{HostName, NameError};
pub use ports::is_guarded_port;
pub use presets::{PresetRule, preset, preset_names};
pub use reach::{Dialled, Reach, ReachLimits};
pub use resolve::{Resolve, SystemResolver};
pub use rules::{Askable, RuleSet};
pub use wishes::{Said, Wishes};
