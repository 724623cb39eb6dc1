//! Where requests go: one provider for each session, resolved once.

use std::net::IpAddr;

use http::{
    Uri,
    uri::{Authority, PathAndQuery, Scheme},
};

/// Longest region or project name taken.
const MAX_NAME_BYTES: usize = 64;

/// A provider that cannot be talked to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// The base URL is none.
    #[error(
        "`{0}` is not a base URL: expected `https://host[:port][/path]` without user, query or fragment"
    )]
    BaseUrl(String),
    /// Plain http, which would show the key to the network.
    #[error(
        "plain http is taken for loopback addresses only: `{0}` would show the key to the network; use https"
    )]
    PlainHttp(String),
    /// A region or project that is no name.
    #[error(
        "`{value}` is not a {what}: expected 1 to {MAX_NAME_BYTES} characters of a-z, 0-9, `-`, `.` and `:`"
    )]
    Name {
        /// What was expected.
        what: &'static str,
        /// What came.
        value: String,
    },
}

/// Which provider, without its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProviderKind {
    /// The Messages API of Anthropic, or a gateway that speaks it.
    FirstParty,
    /// Amazon Bedrock.
    Bedrock,
    /// Google Vertex AI.
    Vertex,
}

/// A provider and its place. Made by the constructors alone, which check every part.
#[derive(Debug, Clone)]
pub struct Provider {
    pub(crate) place: Place,
    pub(crate) base: BaseUrl,
}

#[derive(Debug, Clone)]
pub(crate) enum Place {
    FirstParty,
    Bedrock { region: String },
    Vertex { project: String, region: String },
}

impl Provider {
    /// The Messages API at `base_url` (what the host calls `ANTHROPIC_BASE_URL`), or at <https://api.anthropic.com>.
    ///
    /// # Errors
    /// When the base URL is none, or plain http to anything but a loopback address.
    pub fn first_party(base_url: Option<&str>) -> Result<Self, ProviderError> {
        Ok(Provider {
            place: Place::FirstParty,
            base: BaseUrl::parse(base_url.unwrap_or("https://api.anthropic.com"))?,
        })
    }

    /// Bedrock in `region`, at its own address unless `base_url` names another.
    ///
    /// # Errors
    /// As [`Provider::first_party`], and when the region is no name.
    pub fn bedrock(region: &str, base_url: Option<&str>) -> Result<Self, ProviderError> {
        let region = name("region", region)?;
        let domain = if region.starts_with("cn-") {
            "amazonaws.com.cn"
        } else {
            "amazonaws.com"
        };
        let own = format!("https://bedrock-runtime.{region}.{domain}");
        Ok(Provider {
            base: BaseUrl::parse(base_url.unwrap_or(&own))?,
            place: Place::Bedrock { region },
        })
    }

    /// Vertex for `project` in `region`, at its own address unless `base_url` names another. A trailing `/v1`, as
    /// `ANTHROPIC_VERTEX_BASE_URL` has it, is taken as part of the paths.
    ///
    /// # Errors
    /// As [`Provider::first_party`], and when project or region are no names.
    pub fn vertex(
        project: &str,
        region: &str,
        base_url: Option<&str>,
    ) -> Result<Self, ProviderError> {
        let region = name("region", region)?;
        let own = match region.as_str() {
            "global" => "https://aiplatform.googleapis.com".to_owned(),
            "us" | "eu" => format!("https://aiplatform.{region}.rep.googleapis.com"),
            _ => format!("https://{region}-aiplatform.googleapis.com"),
        };
        let base = base_url.map_or(own.as_str(), |base| {
            let base = base.trim_end_matches('/');
            base.strip_suffix("/v1").unwrap_or(base)
        });
        Ok(Provider {
            base: BaseUrl::parse(base)?,
            place: Place::Vertex {
                project: name("project", project)?,
                region,
            },
        })
    }

    /// Which provider this is.
    pub const fn kind(&self) -> ProviderKind {
        match self.place {
            Place::FirstParty => ProviderKind::FirstParty,
            Place::Bedrock { .. } => ProviderKind::Bedrock,
            Place::Vertex { .. } => ProviderKind::Vertex,
        }
    }
}

fn name(what: &'static str, value: &str) -> Result<String, ProviderError> {
    let fits = !value.is_empty()
        && value.len() <= MAX_NAME_BYTES
        && value
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.:".contains(&byte))
        // A region becomes the beginning of a host name.
        && (what == "project" || !value.contains(['.', ':']));
    if fits {
        Ok(value.to_owned())
    } else {
        Err(ProviderError::Name {
            what,
            value: value.chars().take(MAX_NAME_BYTES).collect(),
        })
    }
}

/// Whether `text` can be the base URL of a provider, which a configuration asks before there is a session.
///
/// # Errors
/// When it is none, or plain http to anything but a loopback address.
pub fn check_base_url(text: &str) -> Result<(), ProviderError> {
    BaseUrl::parse(text).map(drop)
}

/// Scheme, authority and leading path of an upstream.
#[derive(Debug, Clone)]
pub(crate) struct BaseUrl {
    scheme: Scheme,
    authority: Authority,
    /// Without a trailing `/`.
    path: String,
}

impl BaseUrl {
    fn parse(text: &str) -> Result<Self, ProviderError> {
        let refuse = || ProviderError::BaseUrl(shown(text));
        let uri: Uri = text.parse().map_err(|_| refuse())?;
        let parts = uri.into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            return Err(refuse());
        };
        let path = parts
            .path_and_query
            .unwrap_or_else(|| PathAndQuery::from_static("/"));
        if authority.as_str().contains('@') || path.query().is_some() || text.contains('#') {
            return Err(refuse());
        }
        if scheme == Scheme::HTTP && !is_loopback(authority.host()) {
            return Err(ProviderError::PlainHttp(shown(text)));
        }
        if scheme != Scheme::HTTP && scheme != Scheme::HTTPS {
            return Err(refuse());
        }
        Ok(BaseUrl {
            scheme,
            authority,
            path: path.path().trim_end_matches('/').to_owned(),
        })
    }

    /// What the `Host` header says there.
    pub(crate) fn host(&self) -> &str {
        self.authority.as_str()
    }

    /// The address of a path and query there.
    pub(crate) fn join(&self, path_and_query: &str) -> Result<Uri, http::Error> {
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(format!("{}{path_and_query}", self.path))
            .build()
    }
}

/// A base URL as an error may show it: what stands before an `@` may be a password.
fn shown(text: &str) -> String {
    let text: String = text.chars().take(200).collect();
    match text.rsplit_once('@') {
        Some((_, rest)) => format!("…@{rest}"),
        None => text,
    }
}

pub(crate) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_loopback_alone() {
        for loopback in [
            "http://127.0.0.1:8080",
            "http://[::1]:8080/x/",
            "http://localhost:1",
        ] {
            Provider::first_party(Some(loopback)).unwrap();
        }
        for other in [
            "http://10.0.0.1",
            "http://api.anthropic.com",
            "http://127.0.0.1.example.com",
            "http://localhost.example.com",
        ] {
            assert!(
                matches!(
                    Provider::first_party(Some(other)),
                    Err(ProviderError::PlainHttp(_))
                ),
                "{other}"
            );
        }
    }

    #[test]
    fn a_base_url_is_an_address_and_nothing_else() {
        for (text, joined) in [
            (
                "https://gateway.example",
                "https://gateway.example/v1/messages",
            ),
            (
                "https://gateway.example:8443/anthropic/",
                "https://gateway.example:8443/anthropic/v1/messages",
            ),
        ] {
            let provider = Provider::first_party(Some(text)).unwrap();
            assert_eq!(
                provider.base.join("/v1/messages").unwrap().to_string(),
                joined
            );
        }
        for bad in [
            "api.anthropic.com",
            "ftp://x",
            "https://x/?a=b",
            "https://x/#f",
            "/v1",
            "",
        ] {
            assert!(
                matches!(
                    Provider::first_party(Some(bad)),
                    Err(ProviderError::BaseUrl(_))
                ),
                "{bad}"
            );
        }
        let error = Provider::first_party(Some("https://user:pass@x")).unwrap_err();
        assert!(!error.to_string().contains("pass@"), "{error}");
    }

    #[test]
    fn each_region_has_its_host() {
        let bedrock = |region| Provider::bedrock(region, None).map(|p| p.base.host().to_owned());
        assert_eq!(
            bedrock("us-east-1").unwrap(),
            "bedrock-runtime.us-east-1.amazonaws.com"
        );
        assert_eq!(
            bedrock("cn-north-1").unwrap(),
            "bedrock-runtime.cn-north-1.amazonaws.com.cn"
        );
        assert!(bedrock("evil.example/").is_err());
        assert!(bedrock("evil.example").is_err());
        let vertex =
            |region| Provider::vertex("my-proj", region, None).map(|p| p.base.host().to_owned());
        assert_eq!(
            vertex("us-east5").unwrap(),
            "us-east5-aiplatform.googleapis.com"
        );
        assert_eq!(vertex("global").unwrap(), "aiplatform.googleapis.com");
        assert_eq!(vertex("eu").unwrap(), "aiplatform.eu.rep.googleapis.com");
        assert!(Provider::vertex("a/b", "global", None).is_err());
        let custom = Provider::vertex("p", "global", Some("http://127.0.0.1:9/v1/")).unwrap();
        assert_eq!(
            custom.base.join("/v1/x").unwrap().to_string(),
            "http://127.0.0.1:9/v1/x"
        );
    }
}
