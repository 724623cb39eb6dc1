//! Under which tag a caller stands in the log.

use model::OwnerId;

use crate::Actor;

/// `actor.hash` of the principal of that name, in the log of that installation.
pub fn identity_hash(owner: OwnerId, principal: &str) -> String {
    Actor::new(owner, principal).hash
}
