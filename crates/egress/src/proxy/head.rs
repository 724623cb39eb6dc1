//! The head of a request, read strictly: what two readers could understand in two ways is refused (RFC 9112, section 11.2).

use http::{Method, Uri};

use crate::destination::Denial;

/// Headers of a request. Browsers send about 20.
pub(crate) const MAX_HEADERS: usize = 100;

/// Headers by which Rack, Symfony, Laravel, APIs of Google, and IIS take another method or path than the line's.
const OVERRIDES: [&str; 5] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
];

/// A request's line and headers, as far as the proxy judges by them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    /// Bytes of the head with the empty line at its end.
    pub length: usize,
    pub method: Method,
    pub form: Form,
    /// What the header `host` says, where there is one.
    pub host: Option<Vec<u8>>,
    pub body: Framing,
    /// A header names another method or path, which some servers act by.
    pub is_overridden: bool,
}

/// What stands as the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Form {
    /// CONNECT and its authority.
    Connect(Vec<u8>),
    /// `http://…`.
    Absolute(Uri),
    /// `/…`, to the server at the other end of an opened tunnel.
    Origin(Uri),
}

/// Whom the client believes to speak to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// The proxy.
    ToProxy,
    /// The server: what is read is a tunnel whose TLS is opened.
    ToServer,
}

/// How the end of a body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(u64),
    Chunked,
}

/// Finds the end of a head that comes in pieces, and looks at each byte once.
#[derive(Debug, Default)]
pub(crate) struct HeadScan {
    scanned: usize,
}

impl HeadScan {
    /// The length of the head at the beginning of `bytes`, once it is whole. `bytes` only grows from call to call.
    ///
    /// # Errors
    /// When a line does not end as it must, or a byte stands there that no head has: no more of it needs to come then.
    pub(crate) fn end(&mut self, bytes: &[u8], limit: usize) -> Result<Option<usize>, Denial> {
        if bytes.first().is_some_and(|first| !is_token(*first)) {
            return Err(bad("it does not begin as a request of HTTP/1.1"));
        }
        while let Some(byte) = bytes.get(self.scanned) {
            let before = |distance: usize| self.scanned.checked_sub(distance).map(|at| bytes[at]);
            match byte {
                b'\n' if before(1) != Some(b'\r') => return Err(bad("a line ends in a bare LF")),
                _ if *byte != b'\n' && before(1) == Some(b'\r') => {
                    return Err(bad("a CR stands within a line"));
                }
                b'\n' if before(2) == Some(b'\n') => {
                    self.scanned += 1;
                    return match self.scanned <= limit {
                        true => Ok(Some(self.scanned)),
                        false => Err(bad("line and headers are too long")),
                    };
                }
                b'\r' | b'\n' | b'\t' => {}
                byte if byte.is_ascii_control() => {
                    return Err(bad("a control character stands in it"));
                }
                _ => {}
            }
            self.scanned += 1;
            if self.scanned > limit {
                return Err(bad("line and headers are too long"));
            }
        }
        Ok(None)
    }
}

/// Reads a whole head, as [`HeadScan::end`] found it.
pub(crate) fn parse(bytes: &[u8], speaks: Speaks) -> Result<Head, Denial> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => length,
        Ok(_) => return Err(bad("the head is not whole")),
        Err(error) => return Err(bad(what_is_wrong(error))),
    };
    if bytes
        .split(|byte| *byte == b'\n')
        .any(|line| line.first().is_some_and(|first| b" \t".contains(first)))
    {
        return Err(bad("a header is folded over lines"));
    }
    let is_old = request.version == Some(0);
    let method = request.method.unwrap_or_default();
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| bad("the method is none"))?;
    let fields = Fields(request.headers);
    let form = form(&method, request.path.unwrap_or_default(), speaks)?;
    let body = fields.framing(is_old)?;
    if is_old && speaks == Speaks::ToServer {
        return Err(bad("HTTP/1.0 is not read in tunnels"));
    }
    if body == Framing::Chunked && [Method::GET, Method::HEAD].contains(&method) {
        return Err(bad("GET and HEAD have no body in chunks"));
    }
    if matches!(form, Form::Connect(_)) && body != Framing::Length(0) {
        return Err(bad("CONNECT has no body"));
    }
    fields.refuse_upgrade()?;
    let host = fields.only("host")?.map(<[u8]>::to_vec);
    if host.is_none() && !is_old && !matches!(form, Form::Connect(_)) {
        return Err(bad("the header host is missing"));
    }
    Ok(Head {
        length,
        method,
        form,
        host,
        body,
        is_overridden: OVERRIDES
            .iter()
            .any(|name| fields.all(name).next().is_some()),
    })
}

fn form(method: &Method, target: &str, speaks: Speaks) -> Result<Form, Denial> {
    if !target.bytes().all(|byte| byte.is_ascii_graphic()) || target.contains('#') {
        return Err(bad("the target has characters that no target has"));
    }
    if *method == Method::TRACE {
        return Err(bad("TRACE would have the request told back"));
    }
    let uri = || {
        target
            .parse::<Uri>()
            .map_err(|_| bad("the target is no URI"))
    };
    match speaks {
        Speaks::ToServer if *method == Method::CONNECT => {
            Err(bad("CONNECT does not go through a tunnel"))
        }
        Speaks::ToServer if !target.starts_with('/') => Err(bad(
            "the target of a request in a tunnel begins with a slash",
        )),
        Speaks::ToServer => uri().map(Form::Origin),
        Speaks::ToProxy if *method == Method::CONNECT => {
            Ok(Form::Connect(target.as_bytes().to_vec()))
        }
        Speaks::ToProxy => absolute(uri()?),
    }
}

fn absolute(uri: Uri) -> Result<Form, Denial> {
    match uri.scheme_str() {
        Some("http") if uri.authority().is_some() => Ok(Form::Absolute(uri)),
        Some("https") => Err(bad(
            "https goes through CONNECT: set https_proxy to http://…",
        )),
        Some(_) => Err(bad(
            "the proxy speaks http, and passes https through CONNECT",
        )),
        None => Err(bad(
            "this is a proxy, no server: the target must be http://host/…",
        )),
    }
}

struct Fields<'a>(&'a [httparse::Header<'a>]);

impl<'a> Fields<'a> {
    fn all(&self, name: &'static str) -> impl Iterator<Item = &'a [u8]> {
        self.0
            .iter()
            .filter(move |field| field.name.eq_ignore_ascii_case(name))
            .map(|field| field.value)
    }

    fn only(&self, name: &'static str) -> Result<Option<&'a [u8]>, Denial> {
        let mut values = self.all(name);
        let first = values.next();
        match values.next() {
            Some(_) => Err(bad(
                "a header comes twice that must come once: host, content-length or transfer-encoding",
            )),
            None => Ok(first),
        }
    }

    fn framing(&self, is_old: bool) -> Result<Framing, Denial> {
        let length = self.only("content-length")?;
        match (self.only("transfer-encoding")?, length) {
            (Some(_), Some(_)) => Err(bad("it has both content-length and transfer-encoding")),
            (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") && !is_old => {
                Ok(Framing::Chunked)
            }
            (Some(_), None) => Err(bad("its transfer-encoding is not chunked alone")),
            (None, Some(digits)) => decimal(digits)
                .map(Framing::Length)
                .ok_or_else(|| bad("its content-length is no number")),
            (None, None) => Ok(Framing::Length(0)),
        }
    }

    fn refuse_upgrade(&self) -> Result<(), Denial> {
        let nominated = self
            .all("connection")
            .flat_map(|value| value.split(|byte| *byte == b','))
            .any(|name| name.trim_ascii().eq_ignore_ascii_case(b"upgrade"));
        let named = ["upgrade", "http2-settings"]
            .into_iter()
            .any(|name| self.all(name).next().is_some());
        match nominated || named {
            true => Err(Denial::Upgrade),
            false => Ok(()),
        }
    }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits)
        .ok()
        .filter(|_| plain)?
        .parse()
        .ok()
}

/// RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn what_is_wrong(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::HeaderName => "a header has no name, or a space in it",
        httparse::Error::HeaderValue => "a header's value has characters that no value has",
        httparse::Error::NewLine => "a line does not end as lines of HTTP do",
        httparse::Error::Status | httparse::Error::Token => "the line of the request is none",
        httparse::Error::TooManyHeaders => "it has too many headers",
        httparse::Error::Version => "its version is not HTTP/1.1",
    }
}

fn bad(what: &'static str) -> Denial {
    Denial::BadRequest(what)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
