//! Budgets: every allowance is held, in dollars too; a stream that passes one is ended; what may be used beside what is
//! under way; what is put on record.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::support::*;
use egress::{
    Allowance, Caps, Clock, DailyBudgets, Ending, Keep, Ledger, LedgerConfig, Prices, Settled,
    Usage, Usd, Used, UsedBefore,
};

const SSE: &str = "text/event-stream; charset=utf-8";

/// Keeps what is put on record.
#[derive(Default)]
struct Kept(Mutex<Vec<Settled>>);

impl Keep for Kept {
    fn settled(&self, settled: &Settled) {
        self.0.lock().unwrap().push(settled.clone());
    }
}

/// What a test changes of a ledger that limits nothing.
struct Books {
    budgets: DailyBudgets,
    prices: Option<&'static str>,
    used_before: Vec<UsedBefore>,
    clock: Clock,
    kept: Arc<Kept>,
}

impl Books {
    fn new(budgets: DailyBudgets) -> Self {
        Books {
            budgets,
            prices: None,
            used_before: Vec::new(),
            clock: Arc::new(SystemTime::now),
            kept: Arc::default(),
        }
    }

    fn ledger(self) -> Ledger {
        Ledger::new(LedgerConfig {
            budgets: self.budgets,
            prices: Prices::new(self.prices).unwrap(),
            used_before: self.used_before,
            keep: self.kept,
            clock: self.clock,
        })
    }
}

fn usd(text: &str) -> Usd {
    Usd::parse(text).unwrap()
}

fn dollars(text: &str) -> Allowance {
    Allowance {
        cost: Some(usd(text)),
        ..Allowance::default()
    }
}

fn caller_day(caller: Allowance) -> DailyBudgets {
    DailyBudgets {
        caller,
        ..DailyBudgets::default()
    }
}

fn server_day(server: Allowance) -> DailyBudgets {
    DailyBudgets {
        server,
        ..DailyBudgets::default()
    }
}

fn bench(url: &str, ledger: &Ledger, caps: Caps, caller: &'static str) -> Bench {
    let mut setting = Setting::first_party(url);
    setting.ledger = ledger.clone();
    setting.caps = caps;
    setting.caller = caller;
    setting.bench()
}

/// Opus 5.5 is 4 $ in and 20 $ out for a million: such an answer costs 0.014 $.
fn priced_answer() -> Vec<Piece> {
    json(&message(1_000, 500))
}

#[tokio::test]
async fn each_allowance_in_dollars_is_held_for_good() {
    let upstream = Upstream::saying(priced_answer()).await;
    let session = Caps {
        max_cost: Some(usd("0.028")),
        ..Caps::default()
    };
    for (budgets, caps, expected) in [
        (DailyBudgets::default(), session, "max_usd_per_session"),
        (
            caller_day(dollars("0.028")),
            Caps::default(),
            "max_usd_per_caller_per_day",
        ),
        (
            server_day(dollars("0.028")),
            Caps::default(),
            "max_usd_per_day",
        ),
    ] {
        let bench = bench(&upstream.url, &Books::new(budgets).ledger(), caps, "uid:0");
        for _ in 0..2 {
            assert_eq!(status(&bench.ask(BODY).await), 200, "{expected}");
        }
        let said = bench.ask(BODY).await;
        assert_eq!((status(&said), rule(&said)), (429, Some(expected)));
        assert!(
            said.contains("x-should-retry: false") && said.contains("$0.028"),
            "{said}"
        );
        let usage = bench.session.usage();
        assert_eq!((usage.requests, usage.denied), (2, 1));
        assert_eq!(usage.cost, usd("0.028"));
        assert_eq!(bench.session.last_stop().unwrap().rule, expected);
        assert_eq!(bench.records(3).await[0].cost, Some(usd("0.014")));
    }
    assert_eq!(upstream.asked().len(), 6, "nothing refused was asked");
    // A millionth more is enough for one more.
    let ledger = Books::new(caller_day(dollars("0.028001"))).ledger();
    let bench = bench(&upstream.url, &ledger, Caps::default(), "uid:0");
    for _ in 0..3 {
        assert_eq!(status(&bench.ask(BODY).await), 200);
    }
    assert_eq!(bench.session.left_today().caller.cost, Some(Usd::ZERO));
}

#[tokio::test]
async fn requests_and_tokens_of_a_day_are_held_too() {
    let upstream = Upstream::saying(priced_answer()).await;
    let requests = Allowance {
        requests: Some(2),
        ..Allowance::default()
    };
    let tokens = Allowance {
        tokens: Some(3_000),
        ..Allowance::default()
    };
    for (budgets, expected) in [
        (caller_day(requests), "max_requests_per_caller_per_day"),
        (caller_day(tokens), "max_tokens_per_caller_per_day"),
        (server_day(requests), "max_requests_per_day"),
        (server_day(tokens), "max_tokens_per_day"),
    ] {
        let bench = bench(
            &upstream.url,
            &Books::new(budgets).ledger(),
            Caps::default(),
            "uid:0",
        );
        for _ in 0..2 {
            assert_eq!(status(&bench.ask(BODY).await), 200, "{expected}");
        }
        let said = bench.ask(BODY).await;
        assert_eq!((status(&said), rule(&said)), (429, Some(expected)));
        assert!(said.contains("midnight UTC"), "{said}");
    }
}

#[tokio::test]
async fn sessions_of_one_caller_share_and_another_callers_do_not() {
    let upstream = Upstream::saying(priced_answer()).await;
    let ledger = Books::new(caller_day(dollars("0.014"))).ledger();
    let of = |caller| bench(&upstream.url, &ledger, Caps::default(), caller);
    let (first, second, other) = (of("uid:1"), of("uid:1"), of("uid:2"));
    assert_eq!(status(&first.ask(BODY).await), 200);
    assert_eq!(status(&second.ask(BODY).await), 429);
    assert_eq!(status(&other.ask(BODY).await), 200);
}

/// START tells 10 tokens of input, 5 read and 2 written: 0.000051 $; then each delta is reckoned as 10 tokens of output, which are
/// 0.0002 $.
#[tokio::test]
async fn a_stream_that_passes_a_budget_in_dollars_is_ended_and_says_why() {
    let mut pieces = vec![chunked(SSE), chunk(START)];
    pieces.extend((0..100).map(|_| chunk(delta(40))));
    pieces.extend([chunk(end(1000)), last_chunk()]);
    let upstream = Upstream::saying(pieces).await;
    let ledger = Books::new(caller_day(dollars("0.002"))).ledger();
    let bench = bench(&upstream.url, &ledger, Caps::default(), "uid:0");
    let said = bench.ask(BODY).await;
    assert_eq!(status(&said), 200);
    assert_eq!(said.matches("text_delta").count(), 10, "{said}");
    assert!(
        said.contains("event: error\ndata: {")
            && said.contains("spent the $0.002 that they may on one day"),
        "{said}"
    );
    let record = &bench.records(1).await[0];
    assert_eq!(
        (record.ending, record.denied),
        (Ending::CapReached, Some("max_usd_per_caller_per_day"))
    );
    let over = record.cost.unwrap().saturating_sub(usd("0.002"));
    assert!(over < usd("0.0002"), "no more than one piece: {over}");
    assert_eq!(
        bench.session.last_stop().unwrap().rule,
        "max_usd_per_caller_per_day"
    );
    assert_eq!(status(&bench.ask(BODY).await), 429);
}

const OTHER: &str = r#"{"model":"claude-unheard-of","max_tokens":100,"messages":[]}"#;

#[tokio::test]
async fn a_model_without_a_price_is_refused_where_dollars_count_and_counted_where_they_do_not() {
    let upstream = Upstream::saying(priced_answer()).await;
    let ledger = Books::new(server_day(dollars("100"))).ledger();
    let strict = bench(&upstream.url, &ledger, Caps::default(), "uid:0");
    let said = strict.ask(OTHER).await;
    assert_eq!((status(&said), rule(&said)), (429, Some("price_unknown")));
    assert!(
        said.contains("claude-unheard-of") && said.contains("prices_file"),
        "{said}"
    );
    assert_eq!(upstream.asked().len(), 0);
    assert_eq!(status(&strict.ask(BODY).await), 200, "the control");
    // What has a price of its own that the table does not know.
    let fast = BODY.replace("\"stream\"", "\"speed\":\"fast\",\"stream\"");
    assert_eq!(rule(&strict.ask(&fast).await), Some("price_unknown"));
    let counting = strict
        .send(&post(
            "/v1/messages/count_tokens",
            r#"{"model":"claude-unheard-of","messages":[]}"#,
        ))
        .await;
    assert_eq!(status(&counting), 200, "what costs nothing needs no price");

    let ledger = Books::new(DailyBudgets::default()).ledger();
    let open = bench(&upstream.url, &ledger, Caps::default(), "uid:0");
    assert_eq!(status(&open.ask(OTHER).await), 200);
    open.records(1).await;
    let usage = open.session.usage();
    assert_eq!((usage.unpriced, usage.cost), (1, Usd::ZERO));

    let mut books = Books::new(server_day(dollars("100")));
    books.prices = Some(
        r#"{"prices":[{"models":["claude-unheard-of"],"input":"1","output":"2","cacheWrite5m":"3","cacheWrite1h":"4","cacheRead":"1","source":"the contract","asOf":"2026-11-01"}]}"#,
    );
    let told = bench(&upstream.url, &books.ledger(), Caps::default(), "uid:0");
    assert_eq!(status(&told.ask(OTHER).await), 200);
    told.records(1).await;
    assert_eq!(told.session.usage().cost, usd("0.002"));
}

#[tokio::test]
async fn a_new_day_begins_at_midnight_utc() {
    let upstream = Upstream::saying(priced_answer()).await;
    let now = Arc::new(AtomicU64::new(86_400 * 20_000 + 86_399));
    let mut books = Books::new(caller_day(dollars("0.014")));
    let clock = now.clone();
    books.clock = Arc::new(move || UNIX_EPOCH + Duration::from_secs(clock.load(Ordering::Relaxed)));
    let kept = books.kept.clone();
    let bench = bench(&upstream.url, &books.ledger(), Caps::default(), "uid:0");
    for expected in [200, 429] {
        assert_eq!(status(&bench.ask(BODY).await), expected);
    }
    now.fetch_add(1, Ordering::Relaxed);
    for expected in [200, 429] {
        assert_eq!(status(&bench.ask(BODY).await), expected);
    }
    bench.records(4).await;
    let days: Vec<_> = kept
        .0
        .lock()
        .unwrap()
        .iter()
        .map(|settled| (settled.day, settled.used.requests, settled.used.denied))
        .collect();
    assert_eq!(
        days,
        [
            (20_000, 1, 0),
            (20_000, 0, 1),
            (20_001, 1, 0),
            (20_001, 0, 1)
        ]
    );
}

#[tokio::test]
async fn what_is_put_on_record_brings_the_next_server_to_the_same_place() {
    let upstream = Upstream::saying(priced_answer()).await;
    let books = Books::new(caller_day(dollars("0.042")));
    let kept = books.kept.clone();
    let before = bench(&upstream.url, &books.ledger(), Caps::default(), "uid:0");
    for _ in 0..2 {
        assert_eq!(status(&before.ask(BODY).await), 200);
    }
    before.records(2).await;
    let mut used = Used::default();
    let settled = kept.0.lock().unwrap().clone();
    settled.iter().for_each(|settled| used += settled.used);
    assert_eq!((used.requests, used.cost), (2, usd("0.028")));
    assert_eq!(used.bytes_up, 2 * BODY.len() as u64);

    let mut books = Books::new(caller_day(dollars("0.042")));
    books.used_before = vec![UsedBefore {
        day: settled[0].day,
        caller: "uid:0".to_owned(),
        used,
    }];
    let after = bench(&upstream.url, &books.ledger(), Caps::default(), "uid:0");
    for expected in [200, 429] {
        assert_eq!(status(&after.ask(BODY).await), expected);
    }
}

#[tokio::test]
async fn a_session_goes_on_from_what_it_had_used() {
    let upstream = Upstream::saying(priced_answer()).await;
    let with = |cost| {
        let mut setting = Setting::first_party(&upstream.url);
        setting.caps.max_cost = Some(usd("0.03"));
        setting.caps.max_requests = Some(10);
        setting.used_before = Usage {
            requests: 8,
            cost: usd(cost),
            ..Usage::default()
        };
        setting.bench()
    };
    let bench = with("0.01");
    assert_eq!(bench.session.left().cost, Some(usd("0.02")));
    for expected in [200, 200, 429] {
        assert_eq!(status(&bench.ask(BODY).await), expected);
    }
    assert_eq!(bench.records(3).await[2].denied, Some("max_requests"));
    let said = with("0.03").ask(BODY).await;
    assert_eq!(rule(&said), Some("max_usd_per_session"));
}

/// Streams that never end by themselves, in two sessions of one caller at once. Their requests are small, so that several fit
/// beside each other; all of them are ended, and together they pass the budget by less than an answer.
#[tokio::test]
async fn parallel_requests_pass_a_budget_by_no_more_than_one_answer() {
    let mut pieces = vec![chunked(SSE), chunk(START)];
    for _ in 0..400 {
        pieces.extend([chunk(delta(40)), Piece::Wait(Duration::from_millis(2))]);
    }
    pieces.extend([chunk(end(4000)), last_chunk()]);
    let upstream = Upstream::saying(pieces).await;
    let body = r#"{"model":"claude-opus-5-5","max_tokens":4000,"stream":true,"messages":[]}"#;
    // Such an answer costs at most 0.08 $ and a little for its input: three fit into 0.25 $ beside each other.
    let ledger = Books::new(caller_day(dollars("0.25"))).ledger();
    let of = || bench(&upstream.url, &ledger, Caps::default(), "uid:0");
    let sessions = [of(), of()];
    let asked = (0..12).map(|number| sessions[number % 2].ask(body));
    let said = futures::future::join_all(asked).await;
    let passed = said.iter().filter(|said| status(said) == 200).count();
    let held = said
        .iter()
        .filter(|said| rule(said) == Some("budget_held") && said.contains("retry-after: 1"))
        .count();
    assert_eq!((passed, held), (3, 9), "{said:?}");
    // One after the other until nothing is left.
    loop {
        let said = sessions[0].ask(body).await;
        if status(&said) == 429 {
            assert_eq!(rule(&said), Some("max_usd_per_caller_per_day"));
            break;
        }
    }
    let mut total = Usd::ZERO;
    for session in &sessions {
        total += session.session.usage().cost;
    }
    assert!(
        total >= usd("0.25") && total < usd("0.2502"),
        "a stream is ended as it passes: {total}"
    );
}

/// Answers in one piece cannot be cut: the budget is passed by one of them, not by one for each that wanted to go beside it.
#[tokio::test]
async fn whole_answers_pass_a_budget_by_one_of_them() {
    let upstream = Upstream::start(|_| {
        let mut pieces = vec![Piece::Wait(Duration::from_millis(300))];
        pieces.extend(json(&message(1_000, 500)));
        pieces
    })
    .await;
    let ledger = Books::new(caller_day(dollars("0.001"))).ledger();
    let of = || bench(&upstream.url, &ledger, Caps::default(), "uid:0");
    let sessions = [of(), of()];
    let said =
        futures::future::join_all((0..10).map(|number| sessions[number % 2].ask(BODY))).await;
    let passed = said.iter().filter(|said| status(said) == 200).count();
    assert_eq!(passed, 1, "{said:?}");
    assert_eq!(upstream.asked().len(), 1);
}

/// What a client leaves behind is charged and its place is free again.
#[tokio::test]
async fn hanging_up_frees_the_place_and_not_the_charge() {
    let upstream = Upstream::saying(vec![
        chunked(SSE),
        chunk(START),
        chunk(delta(400)),
        Piece::Hang,
    ])
    .await;
    let ledger = Books::new(caller_day(dollars("0.7"))).ledger();
    let bench = bench(&upstream.url, &ledger, Caps::default(), "uid:0");
    for number in 1..=3 {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = bench.connect();
        stream
            .write_all(post("/v1/messages", BODY).as_bytes())
            .await
            .unwrap();
        let mut said = Vec::new();
        while !String::from_utf8_lossy(&said).contains("text_delta") {
            let mut buffer = [0; 4096];
            let count = stream.read(&mut buffer).await.unwrap();
            assert_ne!(count, 0, "{}", String::from_utf8_lossy(&said));
            said.extend_from_slice(&buffer[..count]);
        }
        drop(stream);
        let record = &bench.records(number).await[number - 1];
        assert_eq!(record.ending, Ending::ClientGone);
        assert!(record.cost.unwrap() >= usd("0.002"));
    }
    let left = bench.session.left_today().caller.cost.unwrap();
    assert!(left < usd("0.694") && left > usd("0.69"), "{left}");
}
