//! How a placeholder stands in a request, and what is written over it.

use base64::{
    Engine,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD},
};
use http::HeaderValue;
use percent_encoding::percent_decode_str;

/// Clients leave the padding out or not.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// Targets are decoded that often to look for a placeholder: a proxy behind may decode once more than its server.
const DECODINGS: usize = 3;

/// What stands around a placeholder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Nothing.
    Whole,
    /// A scheme, as it was written.
    Scheme(String),
    /// The user of `Basic`.
    Basic(Vec<u8>),
}

/// Reads `Bearer …`, `token …`, `Basic …` (RFC 9110, section 11.4; RFC 7617).
pub(super) fn in_authorization(value: &HeaderValue, placeholder: &str) -> Option<Shape> {
    let text = value.to_str().ok()?;
    let (scheme, rest) = text.split_once(' ')?;
    let rest = rest.trim_start_matches(' ');
    if scheme.eq_ignore_ascii_case("basic") {
        let pair = LENIENT.decode(rest).ok()?;
        let user = pair
            .strip_suffix(placeholder.as_bytes())?
            .strip_suffix(b":")?;
        // The first colon ends the user.
        return (!user.contains(&b':')).then(|| Shape::Basic(user.to_vec()));
    }
    let known = ["bearer", "token"];
    let is_known = known.iter().any(|name| scheme.eq_ignore_ascii_case(name));
    (is_known && rest == placeholder).then(|| Shape::Scheme(scheme.to_owned()))
}

impl Shape {
    /// The same with a credential.
    pub(super) fn filled(&self, secret: &HeaderValue) -> HeaderValue {
        let bytes = match self {
            Shape::Whole => secret.as_bytes().to_vec(),
            Shape::Scheme(scheme) => [scheme.as_bytes(), b" ", secret.as_bytes()].concat(),
            Shape::Basic(user) => {
                let pair = [user.as_slice(), b":", secret.as_bytes()].concat();
                format!("Basic {}", STANDARD.encode(pair)).into_bytes()
            }
        };
        // All of it comes from values of headers.
        let mut value = HeaderValue::from_bytes(&bytes).unwrap_or(HeaderValue::from_static(""));
        value.set_sensitive(true);
        value
    }
}

/// A target as it stands, and as servers may read it.
pub(super) fn spelled(target: &str) -> Vec<Vec<u8>> {
    let mut all = vec![target.as_bytes().to_vec()];
    for _ in 0..DECODINGS {
        let last = all.last().map(Vec::as_slice).unwrap_or_default();
        let text = String::from_utf8_lossy(last).into_owned();
        let decoded: Vec<u8> = percent_decode_str(&text).collect();
        if decoded == last {
            break;
        }
        all.push(decoded);
    }
    all
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn value(text: &str) -> HeaderValue {
        HeaderValue::from_str(text).unwrap()
    }

    #[test]
    fn it_is_found_in_each_scheme_and_what_stood_around_it_stays() {
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        for (written, filled) in [
            ("Bearer p-1".to_owned(), "Bearer secret".to_owned()),
            ("bearer p-1".to_owned(), "bearer secret".to_owned()),
            ("token  p-1".to_owned(), "token secret".to_owned()),
            (basic("x:p-1"), basic("x:secret")),
            (basic(":p-1"), basic(":secret")),
            (
                basic("x:p-1").trim_end_matches('=').to_owned(),
                basic("x:secret"),
            ),
        ] {
            let shape = in_authorization(&value(&written), "p-1").unwrap();
            let filled_now = shape.filled(&value("secret"));
            assert_eq!(filled_now.to_str().unwrap(), filled, "{written}");
            assert!(filled_now.is_sensitive());
        }
    }

    #[test]
    fn what_only_looks_like_it_is_not_it() {
        for written in [
            "p-1",
            "Bearer p-10",
            "Bearer x p-1",
            "Digest p-1",
            "Bearer",
            &format!("Basic {}", STANDARD.encode("p-1:x")),
            &format!("Basic {}", STANDARD.encode("x:y:p-1")),
            &format!("Basic {}", STANDARD.encode("xp-1")),
            "Basic p-1",
        ] {
            assert_eq!(in_authorization(&value(written), "p-1"), None, "{written}");
        }
    }

    #[test]
    fn a_target_is_read_as_often_as_it_is_encoded() {
        let all = spelled("/a?t=%2570-1");
        assert!(all.iter().any(|text| text == b"/a?t=p-1"), "{all:?}");
    }
}
