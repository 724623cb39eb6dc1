//! What is asked of Google's services, and how their answers are read.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, Uri, header};
use http_body_util::Full;
use model::Secret;
use serde::Deserialize;
use url::form_urlencoded::Serializer;

use super::{GoogleError, Token};
use crate::credential::host_client::{HostClient, is_private_way};

/// Until a service has answered.
const TIMEOUT: Duration = Duration::from_secs(15);
/// The metadata server is a neighbor, or there is none.
const METADATA_TIMEOUT: Duration = Duration::from_secs(3);
/// Where it is on Google's machines.
const METADATA_HOST: &str = "metadata.google.internal";
/// The right that the access token is for; Vertex AI takes no narrower one.
pub(super) const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// Longest code of an error that is believed to be one.
const MAX_CODE_BYTES: usize = 64;

/// Asks.
pub(super) struct Asker(pub(super) HostClient);

/// A service: what it is called in errors, and where it is.
pub(super) struct Service<'a> {
    pub(super) what: &'static str,
    pub(super) address: &'a str,
}

impl Asker {
    /// Sends a form to a token service (RFC 6749, section 5).
    pub(super) async fn form(
        &self,
        service: &Service<'_>,
        fields: &[(&str, &str)],
    ) -> Result<Token, GoogleError> {
        let form = Serializer::new(String::new()).extend_pairs(fields).finish();
        let mut request = service.post(form)?;
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(header::CONTENT_TYPE, kind);
        token(
            service.what,
            self.ask(service.what, request, TIMEOUT).await?,
        )
    }

    /// Has a token of a service account made, with a token of somebody who may have that.
    pub(super) async fn impersonate(
        &self,
        service: &Service<'_>,
        with: &Token,
        delegates: &[String],
    ) -> Result<Token, GoogleError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Made {
            access_token: Secret<String>,
            expire_time: jiff::Timestamp,
        }
        let body = serde_json::json!({
            "delegates": delegates, "scope": [SCOPE], "lifetime": "3600s",
        });
        let mut request = service.post(body.to_string())?;
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", with.token.expose()))
            .map_err(|_| GoogleError::NoToken("token service"))?;
        bearer.set_sensitive(true);
        let headers = request.headers_mut();
        headers.insert(header::AUTHORIZATION, bearer);
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        let answer = self.ask(service.what, request, TIMEOUT).await?;
        let made: Made = serde_json::from_slice(answer.body())
            .map_err(|_| GoogleError::NoToken(service.what))?;
        Ok(Token {
            token: made.access_token,
            end: made.expire_time.into(),
        })
    }

    /// The token of the service account of the machine this runs on.
    pub(super) async fn metadata(&self, host: Option<&str>) -> Result<Token, GoogleError> {
        let what = "metadata server of Google";
        let host = host.unwrap_or(METADATA_HOST);
        let address =
            format!("http://{host}/computeMetadata/v1/instance/service-accounts/default/token");
        let flavor = [(
            HeaderName::from_static("metadata-flavor"),
            HeaderValue::from_static("Google"),
        )];
        token(
            what,
            self.get(what, &address, flavor, METADATA_TIMEOUT).await?,
        )
    }

    /// What stands at an address: a token of somebody else's, for an exchange.
    pub(super) async fn subject(
        &self,
        address: &str,
        headers: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
    ) -> Result<Response<Bytes>, GoogleError> {
        self.get("place of the subject token", address, headers, TIMEOUT)
            .await
    }

    async fn get(
        &self,
        what: &'static str,
        address: &str,
        headers: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
        limit: Duration,
    ) -> Result<Response<Bytes>, GoogleError> {
        let mut request = Request::new(Full::default());
        *request.uri_mut() = address.parse().map_err(|_| GoogleError::Address(what))?;
        request.headers_mut().extend(headers);
        self.ask(what, request, limit).await
    }

    async fn ask(
        &self,
        what: &'static str,
        request: Request<Full<Bytes>>,
        limit: Duration,
    ) -> Result<Response<Bytes>, GoogleError> {
        let asked = self.0.ask(request, limit).await;
        let answer = asked.map_err(|why| GoogleError::Unreached { what, why })?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        Err(GoogleError::Refused {
            what,
            status: answer.status().as_u16(),
            code: code(answer.body()),
        })
    }
}

impl Service<'_> {
    fn post(&self, body: String) -> Result<Request<Full<Bytes>>, GoogleError> {
        let address = || GoogleError::Address(self.what);
        let uri: Uri = self.address.parse().map_err(|_| address())?;
        if !is_private_way(&uri) {
            return Err(address());
        }
        Request::post(uri)
            .body(Full::new(Bytes::from(body)))
            .map_err(|_| address())
    }
}

fn token(what: &'static str, answer: Response<Bytes>) -> Result<Token, GoogleError> {
    #[derive(Deserialize)]
    struct Given {
        access_token: Secret<String>,
        expires_in: u64,
    }
    let given: Given =
        serde_json::from_slice(answer.body()).map_err(|_| GoogleError::NoToken(what))?;
    let end = SystemTime::now().checked_add(Duration::from_secs(given.expires_in));
    Ok(Token {
        token: given.access_token,
        end: end.ok_or(GoogleError::NoToken(what))?,
    })
}

/// The code of an error, as OAuth and as Google's services say it. Not its description, which may repeat what was sent.
fn code(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Code {
        OAuth { error: String },
        Google { error: Status },
    }
    #[derive(Deserialize)]
    struct Status {
        status: String,
    }
    let code = match serde_json::from_slice(body).ok()? {
        Code::OAuth { error } => error,
        Code::Google { error } => error.status,
    };
    let is_code = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    (code.len() <= MAX_CODE_BYTES && code.bytes().all(is_code)).then_some(code)
}
