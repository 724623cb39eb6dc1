use proptest::prelude::*;
use tokio::io::AsyncReadExt;

use super::*;

fn limits(head_timeout_ms: u64) -> ProxyLimits {
    ProxyLimits {
        max_head_bytes: 1024,
        head_timeout: Duration::from_millis(head_timeout_ms),
        ..ProxyLimits::default()
    }
}

/// What comes out behind, and the verdicts by code.
fn through(input: &[u8]) -> (Vec<u8>, Vec<&'static str>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut gate = Gate::new(input, BytesMut::new(), Speaks::ToProxy, &limits(5_000));
        let mut output = Vec::new();
        let _ = gate.read_to_end(&mut output).await;
        let verdicts = gate.verdicts();
        let mut verdicts = verdicts.lock();
        let codes = verdicts.verdicts.drain(..).map(|verdict| match verdict {
            Ok(_) => "ok",
            Err(denial) => denial.code(),
        });
        let codes = codes.collect();
        (output, codes)
    })
}

const GET: &[u8] = b"GET http://a.example/ HTTP/1.1\r\nhost: a.example\r\n\r\n";
const SIZED: &[u8] =
    b"POST http://a.example/ HTTP/1.1\r\nhost: a.example\r\ncontent-length: 5\r\n\r\nGET \n";
const CHUNKED: &[u8] = b"POST http://a.example/ HTTP/1.1\r\nhost: a.example\r\n\
    transfer-encoding: chunked\r\n\r\n5\r\nGET \n\r\n0A\r\n0123456789\r\n0\r\nx-trailer: a\r\n\r\n";

#[test]
fn each_request_has_its_verdict_and_passes_as_it_came() {
    let all = [GET, SIZED, CHUNKED, GET].concat();
    assert_eq!(through(&all), (all.clone(), vec!["ok"; 4]));
}

#[test]
fn behind_a_refused_head_nothing_passes() {
    let bad = b"GET http://a.example/ HTTP/1.1\nhost: a.example\n\n";
    let all = [SIZED, bad, GET].concat();
    let (output, codes) = through(&all);
    assert_eq!(codes, ["ok", "bad_request"]);
    assert_eq!(output, [SIZED, STAND_IN].concat());
}

#[test]
fn chunks_that_two_readers_could_cut_differently_are_an_end() {
    let head = &CHUNKED[..CHUNKED
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap()
        + 4];
    for body in [
        &b"5\nhello\r\n0\r\n\r\n"[..],
        b"5;a=b\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"\r\n0\r\n\r\n",
        b"5\r\nhelloo\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"ffffffffffffffffffff\r\n",
        b"10000000000000000\r\n",
        b"0\r\nx: a\n\r\n\r\n",
    ] {
        let (output, codes) = through(&[head, body, GET].concat());
        assert_eq!(codes, ["ok"], "{body:?}");
        assert!(!output.ends_with(GET), "{body:?}");
    }
}

#[tokio::test]
async fn half_a_head_is_waited_for_so_long_and_no_longer() {
    let (near, mut far) = tokio::io::duplex(64);
    tokio::io::AsyncWriteExt::write_all(&mut far, &GET[..20])
        .await
        .unwrap();
    let limit = Duration::from_millis(100);
    let mut gate = Gate::new(near, BytesMut::new(), Speaks::ToProxy, &limits(100));
    let began = Instant::now();
    assert_eq!(gate.read(&mut [0; 64]).await.unwrap(), 0);
    assert!(began.elapsed() >= limit);
}

proptest! {
    #[test]
    fn garbage_never_passes_as_more_than_it_was(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let (output, _) = through(&[SIZED, &bytes].concat());
        prop_assert!(output.starts_with(SIZED));
        let (output, codes) = through(&[CHUNKED, &bytes].concat());
        prop_assert!(output.starts_with(CHUNKED) && !codes.is_empty());
    }

    #[test]
    fn chunks_are_the_same_in_pieces(cuts in proptest::collection::vec(1_usize..9, 0..40)) {
        let body = b"5\r\nGET \n\r\n0A\r\n0123456789\r\n0\r\nx-trailer: a\r\n\r\n";
        let mut chunks = Chunks::default();
        let mut at = 0;
        for cut in cuts.into_iter().chain([body.len()]) {
            let end = (at + cut).min(body.len());
            at += chunks.take(&body[at..end]).unwrap();
        }
        prop_assert_eq!(at, body.len());
        prop_assert!(chunks.is_over());
        prop_assert_eq!(chunks.take(GET).unwrap(), 0);
    }
}
