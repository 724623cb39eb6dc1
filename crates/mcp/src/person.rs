//! The person at the client: how they are asked what Claude Code asks, and what programs in a session want to reach, in
//! either era, and what their answer means.
//!
//! ```text
//! 2025-06-18, 2025-11-25   the call goes on and asks meanwhile:   elicitation/create ──► answer
//! 2026-07-28               the call ends with what is to be asked: input_required ──► the same call with the answers
//! ```
//!
//! By HTTP there are no requests of a server, so nobody is asked there in the old eras, whatever their client declares.
//!
//! Only a client that declared elicitation with forms is asked. Each connection asks its person one question at a time,
//! so two calls that wait for the same execution do not show one form twice. An answer is taken by whoever gives it
//! first; a form that is of no use any more is taken back.
//!
//! What this does not stop: a client that answers for its person. It is the client's word that a person answered, as it
//! is the client that shows them everything else.

mod form;
mod rounds;

use std::sync::{Arc, Mutex, PoisonError};

use model::{
    ExecutionId, NetworkQuestion, PendingKind, PendingPermission, PermissionAnswer, SessionId,
};
use rmcp::{
    RoleServer,
    model::{ClientCapabilities, ClientResult, ProtocolVersion, Request, ServerRequest},
    service::{Peer, PeerRequestOptions, RequestContext, RequestHandle, ServiceError},
};

pub(crate) use rounds::{Back, Rounds};

/// Why a form is taken back, for the client.
const TAKEN_BACK: &str =
    "the question was answered or denied meanwhile, or nobody waits for it any more";

/// The person at the client of one call.
#[derive(Clone, Default)]
pub(crate) struct Person {
    way: Way,
}

#[derive(Clone, Default)]
enum Way {
    /// The client cannot ask anybody.
    #[default]
    None,
    /// By a request in the course of the call.
    Request {
        peer: Peer<RoleServer>,
        turn: Arc<tokio::sync::Mutex<()>>,
    },
    /// By the call's result.
    Result(Arc<Mutex<Option<Ask>>>),
}

/// What a call's result is to ask.
pub(crate) struct Ask {
    pub(crate) execution: ExecutionId,
    pub(crate) questions: Vec<Question>,
}

/// What a person is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Question {
    /// What Claude Code asks in a prompt.
    Prompt(PendingPermission),
    /// What a program in that session wants to reach.
    Network(SessionId, NetworkQuestion),
}

/// What kind of answer a question takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    /// Leave for this once.
    Once,
    /// Words.
    Words,
    /// Leave for as long as the session lives.
    Lasting,
}

impl Question {
    /// Its name among those of one call.
    pub(crate) fn id(&self) -> String {
        match self {
            Question::Prompt(asked) => asked.id.clone(),
            Question::Network(session, asked) => format!("network {session} {}", asked.target),
        }
    }

    pub(crate) const fn takes(&self) -> Takes {
        match self {
            Question::Prompt(asked) => match asked.kind {
                PendingKind::Permission => Takes::Once,
                PendingKind::Question => Takes::Words,
            },
            Question::Network(..) => Takes::Lasting,
        }
    }
}

impl Person {
    /// Whoever the client of that call can ask. `turn` is the connection's; there is none by HTTP, where requests of ours find no
    /// way back.
    pub(crate) fn of(
        context: &RequestContext<RoleServer>,
        turn: Option<&Arc<tokio::sync::Mutex<()>>>,
    ) -> Self {
        let can_ask = context
            .client_capabilities()
            .is_some_and(|capabilities| shows_forms(&capabilities));
        let is_modern = context
            .protocol_version()
            .is_some_and(|version| version >= ProtocolVersion::V_2026_07_28);
        let way = match (can_ask, is_modern, turn) {
            (false, _, _) | (true, false, None) => Way::None,
            (true, false, Some(turn)) => Way::Request {
                peer: context.peer.clone(),
                turn: Arc::clone(turn),
            },
            (true, true, _) => Way::Result(Arc::default()),
        };
        Person { way }
    }

    /// Whose turn it is to ask, where they can be asked while the call goes on. Held until the answer is passed on.
    pub(crate) fn turn(&self) -> Option<&tokio::sync::Mutex<()>> {
        match &self.way {
            Way::Request { turn, .. } => Some(turn),
            Way::None | Way::Result(_) => None,
        }
    }

    /// There is a way to ask them.
    pub(crate) const fn can_be_asked(&self) -> bool {
        !matches!(self.way, Way::None)
    }

    /// They are asked by a call's result.
    pub(crate) const fn is_asked_by_result(&self) -> bool {
        matches!(self.way, Way::Result(_))
    }

    /// Asks while the call goes on. Dropping the future takes the form back. `None` when no answer came: the client
    /// failed, or sent what is no answer; the question then waits for others.
    pub(crate) async fn answer(
        &self,
        execution: ExecutionId,
        question: &Question,
    ) -> Option<PermissionAnswer> {
        let Way::Request { peer, .. } = &self.way else {
            return None;
        };
        let params = form::of(execution, question)?;
        let request = ServerRequest::ElicitRequest(Request::new(params));
        let sent = peer.send_cancellable_request(request, PeerRequestOptions::no_options());
        let result = Form::new(sent.await.ok()?).result().await;
        match result {
            Ok(ClientResult::ElicitResult(result)) => form::read(question.takes(), &result),
            Ok(_) => None,
            Err(error) => {
                tracing::info!(%execution, %error, "a client did not ask its person");
                None
            }
        }
    }

    /// Leaves to the call's result what it is to ask, where that is how this person is asked.
    pub(crate) fn leave(&self, execution: ExecutionId, questions: Vec<Question>) {
        if let Way::Result(left) = &self.way {
            *left.lock().unwrap_or_else(PoisonError::into_inner) = Some(Ask {
                execution,
                questions,
            });
        }
    }

    /// What the call's result is to ask.
    pub(crate) fn left(&self) -> Option<Ask> {
        match &self.way {
            Way::Result(left) => left.lock().unwrap_or_else(PoisonError::into_inner).take(),
            Way::None | Way::Request { .. } => None,
        }
    }
}

/// An empty capability means forms, as in the revision that had nothing else.
fn shows_forms(capabilities: &ClientCapabilities) -> bool {
    capabilities
        .elicitation
        .as_ref()
        .is_some_and(|elicitation| elicitation.form.is_some() || elicitation.url.is_none())
}

/// A form that the client shows; taken back when dropped before it was answered.
struct Form(Option<RequestHandle<RoleServer>>);

impl Form {
    const fn new(handle: RequestHandle<RoleServer>) -> Self {
        Form(Some(handle))
    }

    async fn result(mut self) -> Result<ClientResult, ServiceError> {
        let Some(handle) = &mut self.0 else {
            return Err(ServiceError::TransportClosed);
        };
        let result = (&mut handle.rx).await;
        self.0 = None;
        result.unwrap_or(Err(ServiceError::TransportClosed))
    }
}

impl Drop for Form {
    fn drop(&mut self) {
        if let (Some(handle), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current())
        {
            // A client that is gone needs no word.
            runtime.spawn(async move { handle.cancel(Some(TAKEN_BACK.to_owned())).await.ok() });
        }
    }
}
