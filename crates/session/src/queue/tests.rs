//! The line (D3): callers in turn, nobody forgotten, nobody kept from trying, bounded.

use std::time::Duration;

use super::*;

/// Gives out places one after the other; who gets them.
fn served(line: &mut Line, places: usize) -> Vec<u64> {
    let mut served = Vec::new();
    for _ in 0..places {
        let mut turn = line.begin();
        if let Some(number) = turn {
            served.push(number);
            turn = line.tried(number, true);
        }
        // The others find nothing.
        while let Some(number) = turn {
            turn = line.tried(number, false);
        }
    }
    served
}

#[test]
fn callers_take_turns_however_many_one_of_them_has_waiting() {
    let mut line = Line::default();
    let greedy: Vec<_> = (0..6).map(|_| line.join("greedy").unwrap()).collect();
    let modest = line.join("modest").unwrap();
    let late = line.join("late").unwrap();
    assert_eq!(line.position(modest), 2);
    assert_eq!(line.position(late), 3);
    assert_eq!(line.position(greedy[1]), 4);
    assert_eq!(line.position(greedy[5]), 8);
    assert_eq!(
        served(&mut line, 5),
        [greedy[0], modest, late, greedy[1], greedy[2]]
    );
}

#[test]
fn one_whose_need_is_too_large_keeps_nobody_else_from_trying() {
    let mut line = Line::default();
    let (large, small) = (line.join("a").unwrap(), line.join("b").unwrap());
    assert_eq!(line.begin(), Some(large));
    assert_eq!(line.tried(large, false), Some(small));
    assert_eq!(line.tried(small, true), None, "all have tried");
    assert_eq!(line.begin(), Some(large), "and it is first again");
}

/// It was the next one's that had not tried yet, and the first had to wait on.
#[test]
fn what_became_free_during_a_round_was_not_the_firsts() {
    let mut line = Line::default();
    let (first, second) = (line.join("a").unwrap(), line.join("b").unwrap());
    assert_eq!(line.begin(), Some(first));
    assert_eq!(line.begin(), None, "it has its turn already");
    assert_eq!(line.tried(first, false), Some(first), "it tries once more");
    assert_eq!(line.tried(first, false), Some(second));
    assert_eq!(line.begin(), None);
    assert_eq!(line.tried(second, false), Some(first));
    assert_eq!(line.tried(first, true), Some(second));
    assert_eq!(line.tried(second, false), None);
}

#[test]
fn whoever_leaves_passes_its_turn_on() {
    let mut line = Line::default();
    let (first, second, third) = (
        line.join("a").unwrap(),
        line.join("b").unwrap(),
        line.join("c").unwrap(),
    );
    assert_eq!(line.begin(), Some(first));
    assert_eq!(line.leave(second), None);
    assert_eq!(line.leave(first), Some(third));
    assert_eq!(line.tried(third, true), None);
    assert_eq!((line.len(), line.begin()), (0, None));
}

#[test]
fn the_line_is_bounded_for_each_and_for_all() {
    let mut line = Line::default();
    for _ in 0..MAX_WAITING_OF_CALLER {
        line.join("greedy").unwrap();
    }
    assert_eq!(
        line.join("greedy"),
        Err(Crowded::Caller(MAX_WAITING_OF_CALLER))
    );
    for caller in 0..MAX_WAITING - MAX_WAITING_OF_CALLER {
        line.join(&caller.to_string()).unwrap();
    }
    assert_eq!(line.join("late"), Err(Crowded::Everybody(MAX_WAITING)));
    line.leave(0);
    assert!(line.join("late").is_ok(), "the control");
}

#[tokio::test]
async fn those_who_wait_are_woken_in_turn_and_a_dropped_one_is_out() {
    let queue = Queue::default();
    let first = queue.join("a").unwrap();
    first.turn().await;
    first.pass_on();
    let second = queue.join("b").unwrap();
    second.turn().await;
    // Its coming lets nobody else try: nothing ended.
    let nobody = tokio::time::timeout(Duration::from_millis(20), first.turn()).await;
    assert!(nobody.is_err());
    second.pass_on();
    queue.place_is_free();
    first.turn().await;
    drop(first);
    second.turn().await;
    assert_eq!(second.position(), 1);
    second.pass_on();
    let nobody = tokio::time::timeout(Duration::from_millis(20), second.turn()).await;
    assert!(nobody.is_err(), "nothing is free");
    queue.place_is_free();
    second.turn().await;
    second.got_one();
    assert!(queue.is_empty());
}
