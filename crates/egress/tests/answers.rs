//! How answers come back: at once, unchanged, counted, and ended where they must be.

use std::time::{Duration, Instant};

use crate::support::*;
use egress::{Caps, Ending, Tokens};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SSE: &str = "text/event-stream; charset=utf-8";

#[tokio::test]
async fn a_stream_passes_as_it_comes_and_is_counted() {
    let upstream = Upstream::saying(vec![
        chunked(SSE),
        chunk(START),
        Piece::Wait(Duration::from_millis(700)),
        chunk(delta(40)),
        chunk(end(77)),
        last_chunk(),
    ])
    .await;
    let bench = Setting::first_party(&upstream.url).bench();
    let started = Instant::now();
    let mut stream = bench.connect();
    stream
        .write_all(post("/v1/messages", BODY).as_bytes())
        .await
        .unwrap();
    let mut said = String::new();
    while !said.contains("message_start") {
        let mut buffer = [0; 1024];
        let count = stream.read(&mut buffer).await.unwrap();
        assert_ne!(count, 0, "{said}");
        said.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    assert!(started.elapsed() < Duration::from_millis(600), "held back");
    // What is known so far is counted so far.
    assert_eq!(bench.session.usage().tokens.cache_read, 5);
    stream.read_to_string(&mut said).await.unwrap();
    assert!(
        said.contains(&delta(40)) && said.contains("message_stop"),
        "{said}"
    );
    let record = &bench.records(1).await[0];
    let tokens = Tokens {
        input: 10,
        output: 77,
        cache_read: 5,
        cache_creation: 2,
        ..Tokens::default()
    };
    assert_eq!(record.tokens, tokens);
    assert_eq!((record.ending, record.reckoned), (Ending::Complete, false));
    assert_eq!((record.method, record.shape), ("POST", "/v1/messages"));
    assert_eq!((record.status, record.stream), (Some(200), true));
    assert_eq!(
        record.bytes_down as usize,
        START.len() + delta(40).len() + end(77).len()
    );
    assert!(record.duration >= Duration::from_millis(700));
    let usage = bench.session.usage();
    assert_eq!(usage.tokens, tokens);
    assert_eq!(usage.models["claude-opus-5-5"].tokens, tokens);
}

#[tokio::test]
async fn errors_of_the_provider_pass_unchanged_and_cost_nothing() {
    for code in [
        "400 Bad Request",
        "401 Unauthorized",
        "429 Too Many Requests",
        "529 Overloaded",
    ] {
        let body = r#"{"type":"error","error":{"type":"x","message":"Your credit balance is too low"},"usage":{"input_tokens":5,"output_tokens":5}}"#;
        let upstream = Upstream::saying(answer(
            code,
            "content-type: application/json\r\nretry-after: 7\r\n",
            body,
        ))
        .await;
        let bench = Setting::first_party(&upstream.url).bench();
        let said = bench.ask(BODY).await;
        assert_eq!(status(&said).to_string(), code[..3]);
        assert!(
            said.ends_with(body) && said.contains("retry-after: 7"),
            "{said}"
        );
        assert_eq!(rule(&said), None);
        let record = &bench.records(1).await[0];
        assert_eq!(
            (record.ending, record.tokens.total()),
            (Ending::Complete, 0)
        );
        assert_eq!(bench.session.usage().tokens.total(), 0);
    }
}

fn capped(url: &str, output: Option<u64>, total: Option<u64>) -> Bench {
    let mut setting = Setting::first_party(url);
    setting.caps = Caps {
        max_output_tokens: output,
        max_total_tokens: total,
        ..Caps::default()
    };
    setting.bench()
}

#[tokio::test]
async fn a_session_that_has_used_its_tokens_is_refused_for_good() {
    let upstream = Upstream::saying(json(&message(100, 50))).await;
    for (bench, expected) in [
        (capped(&upstream.url, Some(100), None), "max_output_tokens"),
        (capped(&upstream.url, None, Some(300)), "max_total_tokens"),
    ] {
        for _ in 0..2 {
            assert_eq!(status(&bench.ask(BODY).await), 200);
        }
        let said = bench.ask(BODY).await;
        assert_eq!(
            (status(&said), rule(&said)),
            (429, Some(expected)),
            "{said}"
        );
        assert!(said.contains("start a new session"), "{said}");
        assert_eq!(bench.session.usage().requests, 2);
    }
    let bench = capped(&upstream.url, Some(101), Some(301));
    for _ in 0..3 {
        assert_eq!(status(&bench.ask(BODY).await), 200);
    }
}

#[tokio::test]
async fn a_stream_that_passes_the_cap_is_cut_with_an_error_event() {
    let mut pieces = vec![chunked(SSE), chunk(START)];
    pieces.extend((0..100).map(|_| chunk(delta(40))));
    pieces.extend([chunk(end(1000)), last_chunk()]);
    let upstream = Upstream::saying(pieces).await;
    // 40 bytes are reckoned as 10 tokens.
    let bench = capped(&upstream.url, Some(95), None);
    let said = bench.ask(BODY).await;
    assert_eq!(status(&said), 200);
    assert_eq!(said.matches("text_delta").count(), 10, "{said}");
    assert!(
        said.contains("event: error\ndata: {") && said.contains("rate_limit_error"),
        "{said}"
    );
    assert!(
        said.ends_with("0\r\n\r\n"),
        "the stream ends in order: {said}"
    );
    let record = &bench.records(1).await[0];
    assert_eq!(
        (record.ending, record.denied),
        (Ending::CapReached, Some("max_output_tokens"))
    );
    assert_eq!((record.tokens.output, record.reckoned), (100, true));
    assert_eq!(status(&bench.ask(BODY).await), 429);

    // The last word of the provider that passes the cap is not worth cutting.
    let short = Upstream::saying(vec![
        chunked(SSE),
        chunk(START),
        chunk(end(500)),
        last_chunk(),
    ])
    .await;
    let bench = capped(&short.url, Some(95), None);
    let said = bench.ask(BODY).await;
    assert!(
        said.contains("message_stop") && !said.contains("event: error"),
        "{said}"
    );
    assert_eq!(bench.records(1).await[0].ending, Ending::Complete);
    assert_eq!(status(&bench.ask(BODY).await), 429);
}

#[tokio::test]
async fn a_stream_that_stops_coming_is_ended() {
    let upstream = Upstream::start(|request| {
        let body = if request.contains("whole") {
            bytes(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{",
            )
        } else {
            chunked(SSE)
        };
        vec![body, chunk(START), Piece::Hang]
    })
    .await;
    let mut setting = Setting::first_party(&upstream.url);
    setting.limits.stall_timeout = Duration::from_millis(300);
    let bench = setting.bench();
    let said = bench.ask(BODY).await;
    assert!(
        said.contains("event: error") && said.contains("sent nothing for 0.3 s"),
        "{said}"
    );
    assert!(said.ends_with("0\r\n\r\n"), "{said}");
    let record = &bench.records(1).await[0];
    assert_eq!(
        (record.ending, record.denied),
        (Ending::Stalled, Some("response_stalled"))
    );
    // An answer of a certain length gets no words added; it is cut.
    let said = bench.ask(r#"{"model":"whole"}"#).await;
    assert!(!said.contains("event: error"), "{said}");
    assert_eq!(bench.records(2).await[1].ending, Ending::Stalled);
}

#[tokio::test]
async fn a_slow_stream_is_no_stalled_one() {
    let mut pieces = vec![chunked(SSE), chunk(START)];
    for _ in 0..6 {
        pieces.extend([Piece::Wait(Duration::from_millis(150)), chunk(delta(4))]);
    }
    pieces.extend([chunk(end(9)), last_chunk()]);
    let upstream = Upstream::saying(pieces).await;
    let mut setting = Setting::first_party(&upstream.url);
    setting.limits.stall_timeout = Duration::from_millis(500);
    let bench = setting.bench();
    let said = bench.ask(BODY).await;
    assert!(said.contains("message_stop"), "{said}");
}

#[tokio::test]
async fn a_client_that_reads_slowly_is_no_stalled_provider() {
    let mut pieces = vec![chunked(SSE), chunk(START)];
    pieces.extend((0..200).map(|_| chunk(delta(16_000))));
    pieces.extend([chunk(end(9)), last_chunk()]);
    let upstream = Upstream::saying(pieces).await;
    let mut setting = Setting::first_party(&upstream.url);
    setting.limits.stall_timeout = Duration::from_millis(300);
    let bench = setting.bench();
    let mut stream = bench.connect();
    stream
        .write_all(post("/v1/messages", BODY).as_bytes())
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(900)).await;
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    assert!(said.contains("message_stop") && !said.contains("event: error"));
    assert_eq!(bench.records(1).await[0].ending, Ending::Complete);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_taken_for_whole() {
    let upstream = Upstream::saying(vec![
        chunked(SSE),
        chunk(START),
        chunk(delta(40)),
        Piece::Close,
    ])
    .await;
    let bench = Setting::first_party(&upstream.url).bench();
    let said = bench.ask(BODY).await;
    assert!(
        said.contains("text_delta") && !said.ends_with("0\r\n\r\n"),
        "{said}"
    );
    let record = &bench.records(1).await[0];
    assert_eq!(
        (record.ending, record.reckoned),
        (Ending::UpstreamBroken, true)
    );
    assert_eq!((record.tokens.input, record.tokens.output), (10, 10));
}

#[tokio::test]
async fn a_client_that_hangs_up_does_not_escape_the_count() {
    let upstream = Upstream::start(|request| {
        if request.contains("silent") {
            return vec![Piece::Hang];
        }
        vec![chunked(SSE), chunk(START), chunk(delta(400)), Piece::Hang]
    })
    .await;
    let bench = Setting::first_party(&upstream.url).bench();
    let mut stream = bench.connect();
    stream
        .write_all(post("/v1/messages", BODY).as_bytes())
        .await
        .unwrap();
    let mut buffer = vec![0; 200_000];
    let mut count = 0;
    while count < 700 {
        count += stream.read(&mut buffer[count..]).await.unwrap();
    }
    drop(stream);
    let record = &bench.records(1).await[0];
    assert_eq!((record.ending, record.reckoned), (Ending::ClientGone, true));
    assert_eq!((record.tokens.input, record.tokens.output), (10, 100));

    // Before the answer began: the input is reckoned from the request.
    let body = format!(r#"{{"model":"silent","x":"{}"}}"#, "y".repeat(4000));
    let mut stream = bench.connect();
    stream
        .write_all(post("/v1/messages", &body).as_bytes())
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(stream);
    let record = &bench.records(2).await[1];
    assert_eq!(record.ending, Ending::ClientGone);
    assert_eq!(record.tokens.input, (body.len() as u64).div_ceil(4));
    // Its place is free again.
    assert_eq!(bench.session.usage().requests, 2);
    for _ in 0..20 {
        let mut stream = bench.connect();
        stream
            .write_all(post("/v1/messages", BODY).as_bytes())
            .await
            .unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_is_reckoned_by_its_bytes() {
    let packed = "x".repeat(400);
    let headers = "content-type: text/event-stream\r\ncontent-encoding: br\r\n";
    let upstream = Upstream::saying(answer("200 OK", headers, &packed)).await;
    let bench = Setting::first_party(&upstream.url).bench();
    assert!(bench.ask(BODY).await.ends_with(&packed));
    let record = &bench.records(1).await[0];
    assert_eq!((record.tokens.output, record.reckoned), (100, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_streams_at_a_time() {
    let mut pieces = vec![chunked(SSE), chunk(START)];
    for _ in 0..20 {
        pieces.extend([chunk(delta(100)), Piece::Wait(Duration::from_millis(10))]);
    }
    pieces.extend([chunk(end(600)), last_chunk()]);
    let upstream = Upstream::saying(pieces).await;
    let mut setting = Setting::first_party(&upstream.url);
    setting.caps = Caps {
        max_concurrent: 100,
        max_connections: 100,
        ..Caps::default()
    };
    let bench = setting.bench();
    let all = futures::future::join_all((0..100).map(|_| bench.ask(BODY))).await;
    for said in all {
        assert_eq!(said.matches("text_delta").count(), 20);
        assert!(said.contains("message_stop"));
    }
    let usage = bench.session.usage();
    assert_eq!(
        (usage.requests, usage.tokens.output, usage.tokens.input),
        (100, 60_000, 1000)
    );
    assert!(
        bench
            .records(100)
            .await
            .iter()
            .all(|record| record.ending == Ending::Complete)
    );
}

#[tokio::test]
async fn ending_the_connection_from_here_ends_its_requests() {
    let upstream = Upstream::saying(vec![chunked(SSE), chunk(START), Piece::Hang]).await;
    let bench = Setting::first_party(&upstream.url).bench();
    let (mut ours, theirs) = tokio::io::duplex(64 * 1024);
    let serving = tokio::spawn({
        let (relay, session) = (bench.relay.clone(), std::sync::Arc::clone(&bench.session));
        async move { relay.serve(theirs, session).await }
    });
    ours.write_all(post("/v1/messages", BODY).as_bytes())
        .await
        .unwrap();
    let mut first = [0; 12];
    ours.read_exact(&mut first).await.unwrap();
    serving.abort();
    assert_eq!(bench.records(1).await[0].ending, Ending::ClientGone);
}
