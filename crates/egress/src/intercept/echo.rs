//! An answer that would tell the sandbox the credential that its request was given: it breaks off before that.

use std::{
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body::{Body, Frame, SizeHint};

use super::binding::Unspoken;
use crate::destination::Denial;

/// A body that ends in an error where a credential would stand.
pub(crate) struct Unechoed<B> {
    inner: B,
    unspoken: Unspoken,
    /// The end of what has come, as long as a credential may begin there.
    held: Bytes,
    is_over: bool,
    /// Told when it breaks off.
    on_echo: Option<Box<dyn FnOnce() + Send>>,
}

/// Why such a body ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EchoError<E> {
    #[error("the answer held the credential of its request")]
    Echoed,
    #[error(transparent)]
    Inner(#[from] E),
}

/// Whether the head of an answer may be told.
///
/// # Errors
/// `credential_echoed`; also for a body in an encoding that was not asked for and cannot be looked through.
pub(crate) fn look_at(headers: &HeaderMap, unspoken: &Unspoken) -> Result<(), Denial> {
    let tells = headers.iter().any(|(name, value)| {
        [name.as_str().as_bytes(), value.as_bytes()]
            .into_iter()
            .any(|text| unspoken.spellings.stand_in(text))
    });
    let other_than = |name, usual: &[u8]| {
        let mut values = headers.get_all(name).iter();
        values.any(|value| !value.as_bytes().eq_ignore_ascii_case(usual))
    };
    let is_encoded = other_than(header::CONTENT_ENCODING, b"identity")
        || other_than(header::TRANSFER_ENCODING, b"chunked");
    match tells || is_encoded {
        true => Err(unspoken.denial()),
        false => Ok(()),
    }
}

impl<B> Unechoed<B> {
    /// `on_echo`: called once, when it breaks off.
    pub(crate) fn new(
        inner: B,
        unspoken: Unspoken,
        on_echo: impl FnOnce() + Send + 'static,
    ) -> Self {
        Unechoed {
            inner,
            unspoken,
            held: Bytes::new(),
            is_over: false,
            on_echo: Some(Box::new(on_echo)),
        }
    }

    /// What of all that has come can pass now; nothing where a credential stands in it.
    fn passing(&mut self, piece: Bytes) -> Option<Bytes> {
        let mut all = match self.held.is_empty() {
            true => piece,
            false => [mem::take(&mut self.held), piece].concat().into(),
        };
        let spellings = &self.unspoken.spellings;
        if spellings.stand_in(&all) {
            return None;
        }
        self.held = all.split_off(all.len() - spellings.begun_at_the_end(&all));
        Some(all)
    }
}

impl<B> Unechoed<B> {
    fn broken_off<E>(&mut self) -> EchoError<E> {
        self.is_over = true;
        if let Some(tell) = self.on_echo.take() {
            tell();
        }
        EchoError::Echoed
    }
}

impl<B> Body for Unechoed<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = EchoError<B::Error>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        while !self.is_over {
            match ready!(Pin::new(&mut self.inner).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data().map(|piece| self.passing(piece)) {
                    Ok(Some(piece)) if piece.is_empty() => {}
                    Ok(Some(piece)) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                    Ok(None) => return Poll::Ready(Some(Err(self.broken_off()))),
                    // Trailers are not passed on.
                    Err(_) => {}
                },
                Some(Err(error)) => {
                    self.is_over = true;
                    return Poll::Ready(Some(Err(error.into())));
                }
                None => {
                    self.is_over = true;
                    let held = mem::take(&mut self.held);
                    // One that ends within the credential tells it as well.
                    if self.unspoken.spellings.is_told_by(&held) {
                        return Poll::Ready(Some(Err(self.broken_off())));
                    }
                    return Poll::Ready((!held.is_empty()).then(|| Ok(Frame::data(held))));
                }
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || (self.held.is_empty() && self.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let inner = self.inner.size_hint();
        let held = self.held.len() as u64;
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + held);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + held);
        }
        hint
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::{
        collections::VecDeque,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering::Relaxed},
        },
    };

    use http_body_util::{BodyExt, Full};

    use super::{super::spelling::Spellings, *};

    const SECRET: &str = "s3cret-of-length";

    fn unspoken() -> Unspoken {
        Unspoken {
            name: "test".to_owned(),
            spellings: Spellings::new(SECRET.as_bytes()),
        }
    }

    struct Pieces(VecDeque<Bytes>);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
        }
    }

    /// What passes of a text that comes in pieces of a length, and whether it passed whole.
    async fn passed(text: &[u8], length: usize) -> (Vec<u8>, bool) {
        let pieces = text.chunks(length).map(Bytes::copy_from_slice).collect();
        let told = Arc::new(AtomicBool::new(false));
        let tell = Arc::clone(&told);
        let mut body = Unechoed::new(Pieces(pieces), unspoken(), move || {
            tell.store(true, Relaxed)
        });
        let mut all = Vec::new();
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => all.extend_from_slice(&frame.into_data().unwrap()),
                Err(_) => {
                    assert!(told.load(Relaxed));
                    return (all, false);
                }
            }
        }
        assert!(!told.load(Relaxed));
        (all, true)
    }

    #[tokio::test]
    async fn not_a_byte_of_it_passes_however_it_is_cut() {
        let text = format!("before {SECRET} after");
        let in_base64 = format!("before {} after", base64_of(&format!("user:{SECRET}")));
        for length in 1..text.len() {
            let (came, is_whole) = passed(text.as_bytes(), length).await;
            assert!(!is_whole && b"before ".starts_with(&came), "{length}");
            let (came, is_whole) = passed(in_base64.as_bytes(), length).await;
            assert!(!is_whole, "{length}");
            assert!(came.len() <= "before ".len() + 8, "{length}");
        }
    }

    fn base64_of(text: &str) -> String {
        use base64::Engine;

        base64::engine::general_purpose::STANDARD.encode(text)
    }

    #[tokio::test]
    async fn an_answer_that_ends_within_it_does_not_tell_it() {
        let cut = &SECRET[..SECRET.len() - 1];
        for length in 1..cut.len() + 7 {
            let (came, is_whole) = passed(format!("before {cut}").as_bytes(), length).await;
            assert!(!is_whole && came.len() <= "before ".len(), "{length}");
        }
    }

    #[tokio::test]
    async fn everything_else_passes_whole() {
        let almost = &SECRET[..SECRET.len() / 2];
        let text = format!("{almost} {almost}{almost} s s3 {}", "x".repeat(200));
        for text in [text.as_bytes(), almost.as_bytes(), b"", b"s"] {
            for length in 1..40 {
                assert_eq!(
                    passed(text, length).await,
                    (text.to_vec(), true),
                    "{length}"
                );
            }
        }
    }

    #[test]
    fn the_length_is_what_the_server_said() {
        let body = Unechoed::new(Full::new(Bytes::from_static(b"12345")), unspoken(), || {});
        assert_eq!(body.size_hint().exact(), Some(5));
    }

    #[test]
    fn a_head_with_it_or_a_body_that_cannot_be_read_is_refused() {
        let head = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            look_at(&headers, &unspoken())
        };
        for (name, value) in [
            ("x-echo", SECRET),
            ("x-echo", "a s3cret-of-length b"),
            ("content-encoding", "gzip"),
            ("transfer-encoding", "gzip, chunked"),
        ] {
            let refused = head(name, value).unwrap_err();
            assert_eq!(refused.code(), "credential_echoed", "{value}");
        }
        for (name, value) in [("x-echo", "s3cret"), ("content-encoding", "identity")] {
            assert_eq!(head(name, value), Ok(()), "{value}");
        }
    }
}
