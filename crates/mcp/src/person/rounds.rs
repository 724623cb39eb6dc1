//! Questions that went out by a call's result (revision 2026-07-28), until the client calls again with the answers.
//!
//! What is remembered stays here; the client gets a random name for it, `requestState`, good for one call of the same
//! tool with the same arguments, by the same caller on the same connection or by HTTP, for [`LIFETIME`]. So a client can
//! answer nothing that it was not asked, and a name that is not known is refused: calling again never starts the work a
//! second time.

use std::{
    collections::{BTreeMap, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use model::{ExecutionId, PermissionAnswer, Reason, Refusal};
use rmcp::model::{
    CallToolRequestParams, ElicitRequest, ElicitResult, InputRequest, InputRequiredResult,
};

use super::{Ask, Question, form};
use crate::call::Words;

/// Calls of one caller that may be out for answers; the oldest is then forgotten.
const MAX_OUT: usize = 64;
/// Calls of all callers by HTTP that may be out for answers; the oldest is then forgotten. Each holds a few kilobytes.
const MAX_OUT_IN_ALL: usize = 4_096;
/// How long a call may be out: as long as a question can wait at most (`permission_timeout`).
const LIFETIME: Duration = Duration::from_secs(24 * 3_600);
/// Rounds of one call. Clients give up after ten (that of the official libraries): before that the reply lists what is
/// pending, and the next call asks on.
const MAX_ROUNDS: u32 = 8;

/// See the module.
#[derive(Default)]
pub(crate) struct Rounds {
    out: Mutex<VecDeque<Round>>,
    hasher: RandomState,
}

struct Round {
    state: String,
    since: Instant,
    caller: String,
    call: u64,
    execution: ExecutionId,
    questions: BTreeMap<String, Question>,
    number: u32,
    words: Words,
}

/// A client that came back.
pub(crate) struct Back {
    /// What the call is about: it was started by the first round.
    pub(crate) execution: ExecutionId,
    /// What the person answered, by question.
    pub(crate) answers: Vec<(Question, PermissionAnswer)>,
    /// How often the call was out for answers.
    pub(crate) round: u32,
    /// What the person said in earlier rounds.
    pub(crate) words: Words,
}

impl Rounds {
    /// What a call comes back with; `None` for one that is new.
    ///
    /// # Errors
    /// `question_not_found` when it comes back to nothing that is known.
    pub(crate) fn back(
        &self,
        caller: &str,
        call: &CallToolRequestParams,
    ) -> Result<Option<Back>, Refusal> {
        let state = match (&call.request_state, &call.input_responses) {
            (None, None) => return Ok(None),
            (Some(state), _) => state,
            (None, Some(_)) => return Err(not_known()),
        };
        let fingerprint = self.fingerprint(call);
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let found = out.iter().position(|round| {
            round.state == *state
                && round.caller == caller
                && round.call == fingerprint
                && round.since.elapsed() < LIFETIME
        });
        let round = found
            .and_then(|index| out.remove(index))
            .ok_or_else(not_known)?;
        let answers = call
            .input_responses
            .iter()
            .flatten()
            .filter_map(|(id, answer)| {
                let question = round.questions.get(id)?;
                let result: ElicitResult = serde_json::from_value(answer.clone()).ok()?;
                Some((question.clone(), form::read(question.takes(), &result)?))
            });
        Ok(Some(Back {
            execution: round.execution,
            answers: answers.collect(),
            round: round.number,
            words: round.words,
        }))
    }

    /// The result that asks; `None` where the call has asked often enough.
    pub(crate) fn result(
        &self,
        caller: &str,
        fingerprint: u64,
        round: u32,
        ask: &Ask,
        words: Words,
    ) -> Option<InputRequiredResult> {
        if round >= MAX_ROUNDS {
            return None;
        }
        let requests = ask.questions.iter().filter_map(|question| {
            let request = ElicitRequest::new(form::of(ask.execution, question)?);
            Some((question.id(), InputRequest::Elicitation(request)))
        });
        let state = random_name()?;
        let round = Round {
            state: state.clone(),
            since: Instant::now(),
            caller: caller.to_owned(),
            call: fingerprint,
            execution: ask.execution,
            questions: ask
                .questions
                .iter()
                .map(|asked| (asked.id(), asked.clone()))
                .collect(),
            number: round + 1,
            words,
        };
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        out.retain(|round| round.since.elapsed() < LIFETIME);
        let own = |out: &Round| out.caller == caller;
        if out.iter().filter(|out| own(out)).count() >= MAX_OUT
            && let Some(oldest) = out.iter().position(own)
        {
            out.remove(oldest);
        }
        if out.len() >= MAX_OUT_IN_ALL {
            out.pop_front();
        }
        out.push_back(round);
        Some(InputRequiredResult::new(
            Some(requests.collect()),
            Some(state),
        ))
    }

    /// Tells calls apart; no proof of anything, as both are the same client's.
    pub(crate) fn fingerprint(&self, call: &CallToolRequestParams) -> u64 {
        let arguments = call.arguments.as_ref().map(|arguments| {
            // In one order, whatever order the client writes them in.
            let sorted: BTreeMap<_, _> = arguments.iter().collect();
            serde_json::to_string(&sorted).unwrap_or_default()
        });
        self.hasher.hash_one((&call.name, arguments))
    }
}

fn random_name() -> Option<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).ok()?;
    Some(URL_SAFE_NO_PAD.encode(bytes))
}

fn not_known() -> Refusal {
    Refusal::new(
        Reason::QuestionNotFound,
        "Nothing is known of the question that this call comes back to; it did nothing.",
        "Call get_execution, or the tool anew, without requestState and inputResponses.",
    )
    .in_field("requestState")
}
