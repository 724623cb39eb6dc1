#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use proptest::prelude::*;

use super::*;

const PATIENCE: Duration = Duration::from_secs(300);

fn target(index: usize) -> NetworkTarget {
    NetworkTarget {
        host: format!("h{index}.example.com"),
        port: 443,
    }
}

fn none() -> Wishes {
    Wishes::new(PATIENCE, [])
}

fn hosts(wishes: &Wishes) -> Vec<String> {
    let open = wishes.open().into_iter();
    open.map(|question| question.target.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_twice_is_asked_once_and_a_no_stands() {
    let wishes = none();
    assert_eq!(wishes.ask(&target(1)), Said::NothingYet);
    assert_eq!(wishes.ask(&target(1)), Said::NothingYet);
    assert_eq!(hosts(&wishes), ["h1.example.com:443"]);
    // Another port is another question.
    let other = NetworkTarget {
        port: 8443,
        ..target(1)
    };
    assert_eq!(wishes.said(&other), Said::Nothing);
    wishes.decline(target(1));
    assert_eq!(wishes.ask(&target(1)), Said::No);
    assert_eq!(hosts(&wishes), Vec::<String>::new());
    // Also by the next server.
    let later = Wishes::new(PATIENCE, wishes.declined());
    assert_eq!(later.ask(&target(1)), Said::No);
    // Until a person allows it after all.
    later.settle(|allowed| *allowed == target(1));
    assert_eq!(later.ask(&target(1)), Said::NothingYet);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_answers_lapses_and_is_asked_again_when_it_is_tried_again() {
    let wishes = none();
    wishes.ask(&target(1));
    tokio::time::advance(PATIENCE - Duration::from_millis(1)).await;
    assert!(wishes.is_open(&target(1)));
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(!wishes.is_open(&target(1)));
    assert_eq!(wishes.said(&target(1)), Said::Nothing);
    assert_eq!(wishes.ask(&target(1)), Said::NothingYet);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_names_asks_a_few_at_a_time_and_a_number_in_all() {
    let wishes = none();
    let asked = |from: usize| {
        (from..from + 1000)
            .filter(|index| wishes.ask(&target(*index)) == Said::NothingYet)
            .count()
    };
    assert_eq!(asked(0), MAX_OPEN);
    assert_eq!(hosts(&wishes)[0], "h0.example.com:443");
    let mut all = MAX_OPEN;
    for round in 1..100 {
        match round % 2 {
            0 => wishes
                .open()
                .into_iter()
                .for_each(|question| wishes.decline(question.target)),
            _ => tokio::time::advance(PATIENCE).await,
        }
        all += asked(round * 1000);
    }
    assert_eq!(all, MAX_ASKED);
}

#[tokio::test(start_paused = true)]
async fn who_waits_hears_of_a_question_its_answer_and_its_lapse() {
    let wishes = Arc::new(none());
    let waiting = |reached: fn(&Wishes) -> bool| {
        let wishes = wishes.clone();
        tokio::spawn(async move { wishes.reached(reached).await })
    };
    let asked = waiting(|wishes| wishes.is_open(&target(1)));
    tokio::task::yield_now().await;
    wishes.ask(&target(1));
    asked.await.unwrap();
    let answered = waiting(|wishes| !wishes.is_open(&target(1)));
    tokio::task::yield_now().await;
    assert!(!answered.is_finished());
    wishes.settle(|allowed| *allowed == target(1));
    answered.await.unwrap();
    wishes.ask(&target(2));
    let lapsed = waiting(|wishes| !wishes.is_open(&target(2)));
    tokio::time::timeout(PATIENCE * 2, lapsed)
        .await
        .unwrap()
        .unwrap();
}

#[derive(Debug, Clone)]
enum Step {
    Ask(usize),
    Decline(usize),
    Allow(usize),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..30usize).prop_map(Step::Ask),
        1 => (0..30usize).prop_map(Step::Decline),
        1 => (0..30usize).prop_map(Step::Allow),
        1 => (1..400u64).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_questions_are_bounded_and_a_no_is_never_asked(steps in prop::collection::vec(step(), 0..200)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let wishes = none();
            let (mut declined, mut opened) = (BTreeSet::new(), 0);
            for step in steps {
                match step {
                    Step::Ask(index) => {
                        let was_open = wishes.is_open(&target(index));
                        let said = wishes.ask(&target(index));
                        prop_assert_eq!(said == Said::No, declined.contains(&target(index)));
                        opened += usize::from(said == Said::NothingYet && !was_open);
                    }
                    Step::Decline(index) => {
                        wishes.decline(target(index));
                        declined.insert(target(index));
                    }
                    Step::Allow(index) => {
                        wishes.settle(|allowed| *allowed == target(index));
                        declined.remove(&target(index));
                    }
                    Step::Wait(seconds) => tokio::time::advance(Duration::from_secs(seconds)).await,
                }
                let open = wishes.open();
                prop_assert!(open.len() <= MAX_OPEN && opened <= MAX_ASKED);
                prop_assert!(open.iter().all(|question| !declined.contains(&question.target)));
            }
            Ok(())
        })?;
    }
}
