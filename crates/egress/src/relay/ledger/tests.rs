#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::relay::account::Cap;

/// A clock that stands where it is put, in seconds.
fn clock(now: &Arc<AtomicU64>) -> Clock {
    let now = now.clone();
    Arc::new(move || UNIX_EPOCH + Duration::from_secs(now.load(Ordering::Relaxed)))
}

fn ledger(now: &Arc<AtomicU64>, caller: u64, server: u64, used_before: Vec<UsedBefore>) -> Ledger {
    let tokens = |tokens| Allowance {
        tokens: Some(tokens),
        ..Allowance::default()
    };
    Ledger::new(LedgerConfig {
        budgets: DailyBudgets {
            caller: tokens(caller),
            server: tokens(server),
        },
        prices: Prices::new(None).unwrap(),
        used_before,
        keep: Arc::new(Forgetful),
        clock: clock(now),
    })
}

fn spent(tokens: u64) -> Spent {
    Spent {
        tokens,
        ..Spent::default()
    }
}

/// One request from begin to end, or the rule that refuses it.
fn ask(ledger: &Ledger, caller: &str, tokens: u64) -> Result<(), &'static str> {
    let mut own = Account::default();
    let allowance = Allowance::default();
    let booking = ledger
        .begin(caller, (&mut own, &allowance), spent(tokens))
        .map_err(|denial| denial.rule())?;
    ledger.correct(caller, &booking, Spent::default(), spent(tokens));
    ledger.leave(caller, &booking, spent(tokens));
    Ok(())
}

#[test]
fn callers_have_their_own_allowance_and_share_the_servers() {
    let now = Arc::new(AtomicU64::new(0));
    let ledger = ledger(&now, 100, 250, Vec::new());
    assert_eq!(ask(&ledger, "a", 100), Ok(()));
    assert_eq!(ask(&ledger, "a", 1), Err("max_tokens_per_caller_per_day"));
    assert_eq!(ask(&ledger, "b", 100), Ok(()));
    assert_eq!(ledger.left_today("b").caller.tokens, Some(0));
    assert_eq!(ledger.left_today("c").caller.tokens, Some(100));
    assert_eq!(ledger.left_today("c").server.tokens, Some(50));
    assert_eq!(ask(&ledger, "c", 50), Ok(()));
    assert_eq!(ask(&ledger, "c", 1), Err("max_tokens_per_day"));
    assert_eq!(ask(&ledger, "d", 1), Err("max_tokens_per_day"));
}

#[test]
fn a_new_day_is_a_new_allowance_and_an_old_one_stays_used() {
    let now = Arc::new(AtomicU64::new(86_399));
    let ledger = ledger(&now, 100, 1_000, Vec::new());
    assert_eq!(ask(&ledger, "a", 100), Ok(()));
    assert_eq!(ask(&ledger, "a", 1), Err("max_tokens_per_caller_per_day"));
    now.store(86_400, Ordering::Relaxed);
    assert_eq!(ask(&ledger, "a", 100), Ok(()));
    assert_eq!(ask(&ledger, "a", 1), Err("max_tokens_per_caller_per_day"));
    // A clock that is set back finds the day as it was left.
    now.store(86_399, Ordering::Relaxed);
    assert_eq!(ask(&ledger, "a", 1), Err("max_tokens_per_caller_per_day"));
}

#[test]
fn a_request_that_runs_over_midnight_is_of_the_day_on_which_it_began() {
    let now = Arc::new(AtomicU64::new(86_399));
    let ledger = ledger(&now, 100, 1_000, Vec::new());
    let (mut own, allowance) = (Account::default(), Allowance::default());
    let booking = ledger
        .begin("a", (&mut own, &allowance), spent(500))
        .unwrap();
    now.store(5 * 86_400, Ordering::Relaxed);
    assert_eq!(ask(&ledger, "a", 90), Ok(()), "today's is untouched");
    let reached = ledger.correct("a", &booking, Spent::default(), spent(100));
    let of_then = Reached {
        scope: Scope::CallerDay,
        cap: Cap::Tokens(100),
    };
    assert_eq!(reached, Some(of_then), "and still ends at its own day's");
    ledger.leave("a", &booking, spent(100));
    assert_eq!(ledger.left_today("a").caller.tokens, Some(10));
}

#[test]
fn what_was_used_before_a_restart_counts() {
    let now = Arc::new(AtomicU64::new(86_400));
    let before = |day, caller: &str, input| UsedBefore {
        day,
        caller: caller.to_owned(),
        used: Used {
            tokens: Tokens {
                input,
                ..Tokens::default()
            },
            ..Used::default()
        },
    };
    let used_before = vec![before(0, "a", 100), before(1, "a", 60), before(1, "b", 5)];
    let ledger = ledger(&now, 100, 1_000, used_before);
    let left = ledger.left_today("a");
    assert_eq!(
        (left.caller.tokens, left.server.tokens),
        (Some(40), Some(935))
    );
    assert_eq!(ask(&ledger, "a", 40), Ok(()));
    assert_eq!(ask(&ledger, "a", 1), Err("max_tokens_per_caller_per_day"));
}

#[test]
fn days_that_are_over_do_not_pile_up() {
    let now = Arc::new(AtomicU64::new(0));
    let ledger = ledger(&now, 100, 1_000, Vec::new());
    for day in 0..100 {
        now.store(day * 86_400, Ordering::Relaxed);
        assert_eq!(ask(&ledger, "a", 1), Ok(()));
    }
    assert!(ledger.lock().len() <= 4);
}
