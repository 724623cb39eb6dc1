//! Calls a minute (P2c): by caller, by class, by session; and what is never limited.

use std::time::Duration;

use model::{ReapCause, SessionId};

use super::*;

const ONE: SessionId = SessionId::from_bytes([1; 16]);
const TWO: SessionId = SessionId::from_bytes([2; 16]);

fn limits(rates: RateLimits) -> Limits {
    Limits::new(&CallerLimits {
        rates,
        ..CallerLimits::default()
    })
}

fn list() -> Action {
    Action::ListSessions { ended: false }
}

fn passes(limits: &Limits, caller: &str, action: &Action, session: Option<SessionId>) -> bool {
    limits.admit(caller, None, action, session).is_ok()
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_is_too_fast_waits_exactly_as_long_as_it_is_told_and_others_do_not() {
    let limits = limits(RateLimits {
        calls: Rate::new(60, 2),
        ..RateLimits::NONE
    });
    assert!(passes(&limits, "a", &list(), None) && passes(&limits, "a", &list(), None));
    let refusal = limits.admit("a", None, &list(), None).unwrap_err();
    assert_eq!((refusal.reason, refusal.retry_after_ms), (Reason::RateLimited, Some(1_000)));
    assert!(passes(&limits, "b", &list(), None), "another caller");
    tokio::time::advance(Duration::from_millis(999)).await;
    assert!(!passes(&limits, "a", &list(), None));
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(passes(&limits, "a", &list(), None));
}

#[tokio::test(start_paused = true)]
async fn classes_and_sessions_have_buckets_of_their_own() {
    let limits = limits(RateLimits {
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
    assert!(passes(&limits, "a", &prompt(), Some(ONE)));
    assert!(!passes(&limits, "a", &prompt(), Some(TWO)), "the class, whatever the session");
    assert!(passes(&limits, "a", &Action::GetSession(ONE), Some(ONE)), "another class");
    assert!(!passes(&limits, "a", &Action::GetSession(ONE), Some(ONE)), "the session has had two");
    assert!(passes(&limits, "a", &Action::GetSession(TWO), Some(TWO)), "another session");
    assert!(passes(&limits, "b", &Action::GetSession(ONE), Some(ONE)), "a stranger takes from its own");
}

#[tokio::test(start_paused = true)]
async fn ending_things_is_never_limited() {
    let limits = Limits::new(&CallerLimits {
        rates: RateLimits {
            calls: Rate::new(1, 1),
            ..RateLimits::NONE
        },
        max_open_calls: 1,
        ..CallerLimits::default()
    });
    let _open = limits.admit("a", None, &list(), None).unwrap();
    assert!(!passes(&limits, "a", &list(), None), "the control");
    for _ in 0..1_000 {
        for action in [
            Action::DestroySession(ONE),
            Action::CancelExecution(model::ExecutionId::from_bytes([1; 16])),
            Action::ReapSession {
                session: ONE,
                because: ReapCause::Idle,
            },
        ] {
            assert!(limits.admit("a", None, &action, Some(ONE)).unwrap().is_none());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_with_a_rate_of_its_own_has_the_narrower_one_and_sees_how_it_stands() {
    let limits = limits(RateLimits {
        calls: Rate::new(600, 100),
        ..RateLimits::NONE
    });
    let own = NonZeroU32::new(6);
    assert!(limits.admit("a", own, &list(), None).is_ok());
    let view = limits.view("a", own).unwrap();
    assert_eq!(
        view,
        RateView {
            per_minute: 6,
            burst: 6,
            window_seconds: 60,
            remaining: 5,
            reset_seconds: 10
        }
    );
    assert_eq!(limits.view("b", None).unwrap().remaining, 100);
    let none = Limits::new(&CallerLimits {
        rates: RateLimits::NONE,
        ..CallerLimits::default()
    });
    assert_eq!(none.view("a", None), None);
}
