//! Views of the house turned into replies.

mod docker_options;
mod execution;
mod keys;
mod prompt;
mod session;
mod stream;

pub(crate) use execution::{Observed, execution};
pub(crate) use keys::{key_list, new_key, revoked_key};
pub(crate) use prompt::{of, prompt};
pub(crate) use session::{listed_session, session, timestamp};
pub(crate) use stream::{MAX_REPLY_TEXT_BYTES, TAIL_BYTES};
