//! `list_keys`. Not listed itself; no model comes upon it.

use model::{Action, Outcome, Refusal};

use super::{Definition, Hints, fields::NoParameters, unexpected};
use crate::{call::Caller, reply::KeyListReply, shape};

pub(super) struct ListKeys;

impl Definition for ListKeys {
    const NAME: &'static str = "list_keys";
    const TITLE: &'static str = "List keys";
    const DESCRIPTION: &'static str =
        "Lists the keys on record, without their secrets. For whoever manages keys.";
    const HINTS: Hints = Hints::READS;
    type Parameters = NoParameters;
    type Reply = KeyListReply;

    async fn run(_parameters: NoParameters, caller: Caller) -> Result<KeyListReply, Refusal> {
        let Outcome::Keys(keys) = caller.ask(Action::ListKeys).await? else {
            return Err(unexpected(Self::NAME));
        };
        Ok(shape::key_list(&keys))
    }
}
