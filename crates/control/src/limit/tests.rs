//! Calls a minute (P2c): by caller, by class, by session; and what is never limited.

use std::time::Duration;

use model::{ReapCause, SessionId};

use super::*;

const ONE: SessionId = SessionId::from_bytes([1; 16]);
const TWO: SessionId = SessionId::from_bytes([2; 16]);

/// A server whose callers may so much.
struct Server(Limits, CallerLimits);

impl Server {
    fn new(rates: RateLimits) -> Self {
        Server(
            Limits::default(),
            CallerLimits {
                rates,
                ..CallerLimits::default()
            },
        )
    }

    fn admit(
        &self,
        name: &str,
        action: &Action,
        session: Option<SessionId>,
    ) -> Result<Option<OpenCall<'_>>, Refusal> {
        self.0.admit(&self.1, &caller(name, None), action, session)
    }

    fn passes(&self, name: &str, action: &Action, session: Option<SessionId>) -> bool {
        self.admit(name, action, session).is_ok()
    }
}

fn caller(name: &str, own: Option<NonZeroU32>) -> Caller {
    Caller {
        name: name.to_owned(),
        own,
    }
}

fn list() -> Action {
    Action::ListSessions { ended: false }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_is_too_fast_waits_exactly_as_long_as_it_is_told_and_others_do_not() {
    let server = Server::new(RateLimits {
        calls: Rate::new(60, 2),
        ..RateLimits::NONE
    });
    assert!(server.passes("a", &list(), None) && server.passes("a", &list(), None));
    let refusal = server.admit("a", &list(), None).unwrap_err();
    assert_eq!(
        (refusal.reason, refusal.retry_after_ms),
        (Reason::RateLimited, Some(1_000))
    );
    assert!(server.passes("b", &list(), None), "another caller");
    tokio::time::advance(Duration::from_millis(999)).await;
    assert!(!server.passes("a", &list(), None));
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(server.passes("a", &list(), None));
}

#[tokio::test(start_paused = true)]
async fn classes_and_sessions_have_buckets_of_their_own() {
    let server = Server::new(RateLimits {
        executions: Rate::new(60, 1),
        session_calls: Rate::new(60, 2),
        ..RateLimits::NONE
    });
    let prompt = || {
        Action::ExecuteCommand(model::ExecuteCommand {
            session: ONE,
            command: model::CommandLine::Argv(vec!["true".to_owned()]),
            cwd: None,
            env: std::collections::BTreeMap::new(),
            stdin: None,
            keep_stdin_open: false,
            terminal: None,
            timeout: None,
            wait: Duration::ZERO,
        })
    };
    assert!(server.passes("a", &prompt(), Some(ONE)));
    assert!(
        !server.passes("a", &prompt(), Some(TWO)),
        "the class, whatever the session"
    );
    assert!(
        server.passes("a", &Action::GetSession(ONE), Some(ONE)),
        "another class"
    );
    assert!(
        !server.passes("a", &Action::GetSession(ONE), Some(ONE)),
        "the session has had two"
    );
    assert!(
        server.passes("a", &Action::GetSession(TWO), Some(TWO)),
        "another session"
    );
    assert!(
        server.passes("b", &Action::GetSession(ONE), Some(ONE)),
        "a stranger takes from its own"
    );
}

#[tokio::test(start_paused = true)]
async fn ending_things_is_never_limited() {
    let mut server = Server::new(RateLimits {
        calls: Rate::new(1, 1),
        ..RateLimits::NONE
    });
    server.1.max_open_calls = 1;
    let _open = server.admit("a", &list(), None).unwrap();
    assert!(!server.passes("a", &list(), None), "the control");
    for _ in 0..1_000 {
        for action in [
            Action::DestroySession(ONE),
            Action::CancelExecution(model::ExecutionId::from_bytes([1; 16])),
            Action::ReapSession {
                session: ONE,
                because: ReapCause::Idle,
            },
        ] {
            assert!(server.admit("a", &action, Some(ONE)).unwrap().is_none());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_with_a_rate_of_its_own_has_the_narrower_one_and_sees_how_it_stands() {
    let Server(limits, allowed) = Server::new(RateLimits {
        calls: Rate::new(600, 100),
        ..RateLimits::NONE
    });
    let narrow = caller("a", NonZeroU32::new(6));
    assert!(limits.admit(&allowed, &narrow, &list(), None).is_ok());
    let expected = RateView {
        per_minute: 6,
        burst: 6,
        window_seconds: 60,
        remaining: 5,
        reset_seconds: 10,
    };
    assert_eq!(limits.view(&allowed, &narrow), Some(expected));
    let other = caller("b", None);
    assert_eq!(limits.view(&allowed, &other).unwrap().remaining, 100);
    let unlimited = CallerLimits {
        rates: RateLimits::NONE,
        ..CallerLimits::default()
    };
    assert_eq!(limits.view(&unlimited, &other), None);
}
