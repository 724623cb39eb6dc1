//! Ways for a fuzzer into what is read from inside. They judge nothing that the proxy would act by; each says whether what came
//! would have gone on, so that a test can tell whether the seeds get as far.

use std::{
    net::Ipv4Addr,
    pin::pin,
    task::{Context, Poll, Waker},
};

use super::{
    gate::Chunks,
    head::{self, HeadScan, Speaks},
    hello::{Inspector, Verdict},
    names, socks, target,
};
use crate::destination::{Denial, HostName};

/// Reads a head, and what follows it as chunks.
pub fn http_head(bytes: &[u8]) -> bool {
    const LIMIT: usize = 32 * 1024;
    let mut is_head = false;
    if let Ok(Some(end)) = HeadScan::default().end(bytes, LIMIT) {
        for speaks in [Speaks::ToProxy, Speaks::ToServer] {
            if let Ok(head) = head::parse(&bytes[..end], speaks) {
                // What was read is the whole of it.
                assert_eq!(head.length, end);
                is_head = true;
                if let Some(host) = head.host {
                    let _ = target::parse(&host, Some(80));
                }
            }
        }
        let _ = Chunks::default().take(&bytes[end..]);
    }
    let _ = Chunks::default().take(bytes);
    is_head
}

/// Reads a greeting and a request of SOCKS5.
pub fn socks(bytes: &[u8]) -> bool {
    let mut stream = tokio::io::join(bytes, tokio::io::sink());
    let mut context = Context::from_waker(Waker::noop());
    // Memory never makes it wait.
    let Poll::Ready(Ok(request)) = pin!(socks::accept(&mut stream)).poll(&mut context) else {
        return false;
    };
    request.destination.name(|_| None).is_ok()
}

/// Answers a question of DNS.
pub fn dns(bytes: &[u8]) -> bool {
    let judge = |name: &HostName| match name.as_str().len() % 2 {
        0 => Ok(()),
        _ => Err(Denial::NetworkOff),
    };
    let Some(answered) = names::answer(bytes, judge, |_| Ipv4Addr::new(198, 18, 0, 1)) else {
        return false;
    };
    // An answer is never a question: nothing goes around in circles.
    assert!(names::answer(&answered.bytes, judge, |_| Ipv4Addr::LOCALHOST).is_none());
    // The code of the answer (RFC 1035, section 4.1.1).
    answered.refused.is_none() && answered.bytes.get(3).is_some_and(|code| code & 0x0f == 0)
}

/// Looks at the first bytes of a tunnel, which come in pieces of this length: what passes is byte for byte what came, and the
/// pieces change nothing.
pub fn hello(bytes: &[u8], piece: u8) -> bool {
    let Ok(host) = HostName::parse(b"a.example") else {
        return false;
    };
    let mut is_tls = false;
    for must_be_tls in [true, false] {
        let inspector = || Inspector::new(host.clone(), 443, must_be_tls);
        let mut whole = inspector();
        let verdict = whole.look(bytes);
        let mut pieces = inspector();
        let mut last = Verdict::More;
        let mut seen = 0;
        for piece in bytes.chunks(usize::from(piece) + 1) {
            last = pieces.look(piece);
            seen += piece.len();
            if last != Verdict::More {
                break;
            }
        }
        if verdict == Verdict::Pass {
            assert_eq!(last, Verdict::Pass);
            assert_eq!(pieces.into_seen(), bytes[..seen]);
            assert_eq!(whole.into_seen(), bytes);
            is_tls |= must_be_tls;
        }
    }
    is_tls
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    type Read = fn(&[u8]) -> bool;

    const SEEDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/seeds");

    fn cut_hello(seed: &[u8]) -> bool {
        let (piece, bytes) = seed.split_first().unwrap();
        hello(bytes, *piece)
    }

    /// Inputs that a fuzzer once found something by are among the seeds: this is where they stay mended.
    #[test]
    fn the_seeds_of_the_fuzzers_do_no_harm_and_get_as_far_as_they_should() {
        let targets: [(&str, Read); 4] = [
            ("http_head", http_head),
            ("socks", socks),
            ("dns", dns),
            ("hello", cut_hello),
        ];
        for (target, read) in targets {
            let seeds = std::fs::read_dir(format!("{SEEDS}/{target}")).unwrap();
            let went_on: Vec<bool> = seeds
                .map(|seed| read(&std::fs::read(seed.unwrap().path()).unwrap()))
                .collect();
            for expected in [true, false] {
                assert!(went_on.contains(&expected), "{target}: none is {expected}");
            }
        }
    }
}
