//! What was used: added up, kept over restarts, and forgotten with its session, while the caller's day stays.

#![allow(clippy::unwrap_used)]

mod common;

use common::{fresh, session};
use model::{SessionId, SessionState};
use store::{Bounds, DayRecord, SessionChange, Store, UsageRecord};

fn some(factor: u64) -> UsageRecord {
    UsageRecord {
        requests: factor,
        denied: 2 * factor,
        unpriced: 3 * factor,
        input_tokens: 4 * factor,
        output_tokens: 5 * factor,
        cache_read_tokens: 6 * factor,
        cache_write_tokens: 7 * factor,
        cache_write_1h_tokens: 8 * factor,
        cost_pico_usd: 9 * factor,
        bytes_up: 10 * factor,
        bytes_down: 11 * factor,
    }
}

fn day(day: u64, caller: &str, factor: u64) -> DayRecord {
    DayRecord {
        day,
        caller: caller.to_owned(),
        usage: some(factor),
    }
}

#[test]
fn amounts_add_up_and_outlive_the_server() {
    let (directory, store) = fresh();
    let record = session();
    store.reserve_session(&record, &Bounds::live(1)).unwrap();
    for factor in [1, 10] {
        let days = [
            day(20_000, "uid:0", factor),
            day(20_001, "uid:0", 1),
            day(20_001, "uid:1", 2),
        ];
        store
            .add_usage(&[(record.id, some(factor))], &days)
            .unwrap();
    }
    drop(store);
    let (store, _) = Store::open(&directory.path().join("state.db")).unwrap();
    assert_eq!(store.session_usage(record.id).unwrap(), some(11));
    let expected = [
        day(20_000, "uid:0", 11),
        day(20_001, "uid:0", 2),
        day(20_001, "uid:1", 4),
    ];
    assert_eq!(store.daily_usage_since(0).unwrap(), expected);
    assert_eq!(store.daily_usage_since(20_001).unwrap(), expected[1..]);
    assert_eq!(store.purge_usage_before(20_001).unwrap(), 1);
    assert_eq!(store.daily_usage_since(0).unwrap(), expected[1..]);
}

#[test]
fn a_sessions_usage_goes_with_it_and_its_callers_day_stays() {
    let (_directory, store) = fresh();
    let record = session();
    store.reserve_session(&record, &Bounds::live(1)).unwrap();
    let add = |id| store.add_usage(&[(id, some(1))], &[day(20_000, "uid:0", 1)]);
    add(record.id).unwrap();
    let ended = SessionChange {
        state: Some(SessionState::Destroyed),
        ended_at_ms: Some(1),
        ..SessionChange::default()
    };
    store
        .update_session(record.id, &[SessionState::Creating], &ended)
        .unwrap();
    assert_eq!(
        store.session_usage(record.id).unwrap(),
        some(1),
        "it may still be asked"
    );
    store.purge_ended_before(2).unwrap();
    assert_eq!(
        store.session_usage(record.id).unwrap(),
        UsageRecord::default()
    );
    // A request that ended only now, and one of a session that never was.
    add(record.id).unwrap();
    add(SessionId::random().unwrap()).unwrap();
    assert_eq!(
        store.session_usage(record.id).unwrap(),
        UsageRecord::default()
    );
    assert_eq!(
        store.daily_usage_since(0).unwrap(),
        [day(20_000, "uid:0", 3)]
    );
}

#[test]
fn a_sum_that_does_not_fit_stays_at_the_largest() {
    let (_directory, store) = fresh();
    let most = UsageRecord {
        cost_pico_usd: u64::MAX,
        ..UsageRecord::default()
    };
    for usage in [most, most, some(1)] {
        let day = DayRecord {
            day: 1,
            caller: "uid:0".to_owned(),
            usage,
        };
        store.add_usage(&[], &[day]).unwrap();
    }
    let usage = store.daily_usage_since(0).unwrap()[0].usage;
    assert_eq!((usage.cost_pico_usd, usage.requests), (i64::MAX as u64, 1));
}
