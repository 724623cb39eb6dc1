//! Ways for a fuzzer into what is read from inside. They judge nothing that the proxy would act by.

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
pub fn http_head(bytes: &[u8]) {
    const LIMIT: usize = 32 * 1024;
    if let Ok(Some(end)) = HeadScan::default().end(bytes, LIMIT) {
        for speaks in [Speaks::ToProxy, Speaks::ToServer] {
            if let Ok(head) = head::parse(&bytes[..end], speaks) {
                // What was read is the whole of it.
                assert_eq!(head.length, end);
                if let Some(host) = head.host {
                    let _ = target::parse(&host, Some(80));
                }
            }
        }
        let _ = Chunks::default().take(&bytes[end..]);
    }
    let _ = Chunks::default().take(bytes);
}

/// Reads a greeting and a request of SOCKS5.
pub fn socks(bytes: &[u8]) {
    let mut stream = tokio::io::join(bytes, tokio::io::sink());
    let mut context = Context::from_waker(Waker::noop());
    // Memory never makes it wait.
    if let Poll::Ready(Ok(request)) = pin!(socks::accept(&mut stream)).poll(&mut context) {
        let _ = request.destination.name(|_| None);
    }
}

/// Answers a question of DNS.
pub fn dns(bytes: &[u8]) {
    let judge = |name: &HostName| match name.as_str().len() % 2 {
        0 => Ok(()),
        _ => Err(Denial::NetworkOff),
    };
    if let Some(answered) = names::answer(bytes, judge, |_| Ipv4Addr::new(198, 18, 0, 1)) {
        // An answer is never a question: nothing goes around in circles.
        assert!(names::answer(&answered.bytes, judge, |_| Ipv4Addr::LOCALHOST).is_none());
    }
}

/// Looks at the first bytes of a tunnel, which come in pieces of this length: what passes is byte for byte what came, and the
/// pieces change nothing.
pub fn hello(bytes: &[u8], piece: u8) {
    let Ok(host) = HostName::parse(b"a.example") else {
        return;
    };
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
        }
    }
}
