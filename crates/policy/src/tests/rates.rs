//! Rates (P2c): never more than the burst and what the time refills, in any window and whatever the clock does; a retry after the
//! time that was told passes; many buckets stay bounded.

use proptest::prelude::*;

use crate::{Buckets, Moment, Rate};

const SECOND_NS: u64 = 1_000_000_000;

fn rate(per_minute: u32, burst: u32) -> Rate {
    Rate::new(per_minute, burst).unwrap()
}

#[test]
fn a_burst_passes_at_once_and_then_one_for_each_interval() {
    let (rate, mut buckets) = (rate(60, 3), Buckets::new(8));
    let mut passes = |at_ms: u64| {
        let now = Moment(at_ms * 1_000_000);
        buckets
            .take_all(&[("one", rate)], now)
            .map_err(|(_, early)| early.milliseconds())
    };
    assert_eq!([passes(0), passes(0), passes(0)], [Ok(()); 3]);
    assert_eq!(passes(0), Err(1000));
    assert_eq!(passes(999), Err(1));
    assert_eq!(passes(1000), Ok(()));
    assert_eq!(passes(1000), Err(1000));
    // A minute of rest refills the burst, and no more than that.
    assert_eq!(
        [passes(61_000), passes(61_000), passes(61_000)],
        [Ok(()); 3]
    );
    assert_eq!(passes(61_000), Err(1000));
}

#[test]
fn callers_have_buckets_of_their_own_and_a_refused_call_takes_from_none() {
    let (wide, narrow) = (rate(600, 10), rate(60, 1));
    let mut buckets = Buckets::new(8);
    let both = [("a", wide), ("a's creates", narrow)];
    assert_eq!(buckets.take_all(&both, Moment(0)), Ok(()));
    for _ in 0..100 {
        let refused = buckets.take_all(&both, Moment(0)).unwrap_err();
        assert_eq!(refused.0, 1, "the narrow one is in the way");
    }
    let fill = buckets.fill(&"a", wide, Moment(0));
    assert_eq!(
        (fill.limit, fill.remaining),
        (10, 9),
        "refusals cost nothing"
    );
    assert_eq!(
        buckets.take_all(&[("b", narrow)], Moment(0)),
        Ok(()),
        "another caller"
    );
}

#[test]
fn a_clock_that_jumps_mints_nothing() {
    let (rate, mut buckets) = (rate(60, 5), Buckets::new(8));
    let hour = 3600 * SECOND_NS;
    let mut passed = 0;
    for now in [hour, 0, 5 * SECOND_NS, hour, 0, hour - 1, hour] {
        for _ in 0..10 {
            passed += u32::from(buckets.take_all(&[("k", rate)], Moment(now)).is_ok());
        }
    }
    assert_eq!(
        passed, 5,
        "the burst of the first moment, and nothing since it was passed"
    );
    assert!(
        buckets
            .take_all(&[("k", rate)], Moment(hour + SECOND_NS))
            .is_ok(),
        "the control"
    );
}

#[test]
fn a_hundred_thousand_callers_take_no_more_room_than_there_is_and_abusers_are_the_last_to_be_forgotten()
 {
    const ROOM: usize = 1_000;
    let (rate, mut buckets) = (rate(60, 100), Buckets::new(ROOM));
    let abuser = u64::MAX;
    while buckets.take_all(&[(abuser, rate)], Moment(0)).is_ok() {}
    for caller in 0..100_000_u64 {
        let now = Moment(caller * 1_000);
        assert!(
            buckets.take_all(&[(caller, rate)], now).is_ok(),
            "a newcomer is never in the way of the table"
        );
        assert!(buckets.len() <= ROOM);
    }
    let soon = Moment(100_000 * 1_000);
    assert!(
        buckets.take_all(&[(abuser, rate)], soon).is_err(),
        "it is still known"
    );
    assert!(
        buckets
            .take_all(&[(abuser, rate)], Moment(soon.0 + SECOND_NS))
            .is_ok(),
        "the control"
    );
}

#[test]
fn full_buckets_are_let_go_of_first() {
    let (rate, mut buckets) = (rate(6_000, 10), Buckets::new(4));
    for caller in 0..3 {
        buckets.take_all(&[(caller, rate)], Moment(0)).unwrap();
    }
    // They are full again by now, but for this one.
    let now = Moment(SECOND_NS);
    for _ in 0..10 {
        buckets.take_all(&[(9, rate)], now).unwrap();
    }
    buckets.take_all(&[(10, rate)], now).unwrap();
    assert!(
        buckets.take_all(&[(9, rate)], now).is_err(),
        "it is not forgotten"
    );
    assert_eq!(buckets.len(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever the moments of the calls: in no window more than burst + rate × time.
    #[test]
    fn never_more_than_the_burst_and_what_the_time_refills(
        per_minute in 1_u32..200_000,
        burst in 1_u32..40,
        steps in prop::collection::vec((0_u64..3_000_000_000, any::<bool>()), 1..300),
    ) {
        let (rate, mut buckets) = (rate(per_minute, burst), Buckets::new(4));
        let (mut now, mut latest) = (1_000 * SECOND_NS, 0);
        let mut admitted = Vec::new();
        for (step, back) in steps {
            // Short steps are as likely as long ones, and some go back.
            let step = step >> (step % 32);
            let asked = if back { now.saturating_sub(step) } else { now += step; now };
            latest = latest.max(asked);
            if buckets.take_all(&[((), rate)], Moment(asked)).is_ok() {
                admitted.push(latest);
            }
        }
        for (first, from) in admitted.iter().enumerate() {
            for (last, to) in admitted.iter().enumerate().skip(first) {
                let refilled = u128::from(to - from) * u128::from(per_minute) / (60 * u128::from(SECOND_NS));
                prop_assert!((last - first + 1) as u128 <= u128::from(burst) + refilled);
            }
        }
    }

    /// The wait that is told is exact: a try after it passes, a try before it does not.
    #[test]
    fn a_retry_after_the_told_time_passes(per_minute in 1_u32..200_000, burst in 1_u32..20, begin in 0_u64..SECOND_NS) {
        let (rate, mut buckets) = (rate(per_minute, burst), Buckets::new(4));
        let now = Moment(begin);
        for _ in 0..burst {
            prop_assert!(buckets.take_all(&[((), rate)], now).is_ok());
        }
        let (_, early) = buckets.take_all(&[((), rate)], now).unwrap_err();
        prop_assert!(buckets.take_all(&[((), rate)], Moment(begin + early.0 - 1)).is_err());
        prop_assert!(buckets.take_all(&[((), rate)], Moment(begin + early.milliseconds() * 1_000_000)).is_ok());
    }
}
