//! `Host` and `Origin`: against pages that a browser loads from elsewhere and that talk to this machine.
//!
//! A page whose own name was made to stand for 127.0.0.1 (DNS rebinding) sends its own name as `Host`. Any other page
//! sends its `Origin`. Both are compared exactly, with their port; nothing is a prefix or a suffix of anything. What is no
//! browser sends no `Origin`, which is fine: it has to present a token all the same.

use http::{HeaderValue, header, request::Parts, uri::Authority};

use crate::{
    answer::Refused,
    settings::{Listen, Settings},
};

/// A host, in small letters, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Site {
    host: String,
    port: u16,
}

impl Site {
    /// `host` or `host:port`, and nothing else.
    pub(crate) fn parse(text: &str, default_port: u16) -> Option<Self> {
        let authority: Authority = text.parse().ok()?;
        let port = match text.strip_prefix(authority.host())? {
            "" => default_port,
            rest => {
                let digits = rest.strip_prefix(':')?;
                let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
                digits.parse().ok().filter(|_| is_plain)?
            }
        };
        let host = authority.host().to_ascii_lowercase();
        (!host.is_empty()).then_some(Site { host, port })
    }
}

/// A scheme and a site.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    is_https: bool,
    site: Site,
}

impl Origin {
    fn parse(text: &str) -> Option<Self> {
        let (is_https, rest) = match text.split_once("://")? {
            ("https", rest) => (true, rest),
            ("http", rest) => (false, rest),
            _ => return None,
        };
        let site = Site::parse(rest, default_port(is_https))?;
        Some(Origin { is_https, site })
    }
}

/// Whether that is an origin as browsers send it.
pub(crate) fn is_origin(text: &str) -> bool {
    Origin::parse(text).is_some()
}

const fn default_port(is_https: bool) -> u16 {
    if is_https { 443 } else { 80 }
}

/// Names by which the door is reached, and whose pages may use it.
#[derive(Debug)]
pub(crate) struct Names {
    is_https: bool,
    sites: Vec<Site>,
    origins: Vec<Origin>,
}

/// Where a request of a browser comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Visitor {
    /// No page of another site.
    Here,
    /// A page of that origin, which may.
    Page(HeaderValue),
}

impl Names {
    /// Those of a door with these settings on that port.
    pub(crate) fn new(settings: &Settings, port: u16) -> Self {
        let is_https = settings.is_https();
        let audience = settings.oauth.iter().filter_map(|oauth| {
            let origin = oauth
                .audience
                .split('/')
                .take(3)
                .collect::<Vec<_>>()
                .join("/");
            Origin::parse(&origin).map(|origin| origin.site)
        });
        let named = settings.hosts.iter();
        let named = named.filter_map(|host| Site::parse(host, default_port(is_https)));
        Names {
            is_https,
            sites: own(&settings.listen, port)
                .into_iter()
                .chain(named)
                .chain(audience)
                .collect(),
            origins: settings
                .origins
                .iter()
                .filter_map(|text| Origin::parse(text))
                .collect(),
        }
    }

    /// One `Host` and an origin-form target, and the host is one of ours.
    pub(crate) fn check_host(&self, head: &Parts) -> Result<(), Refused> {
        // `GET http://elsewhere/ HTTP/1.1` would say two things.
        if head.uri.authority().is_some() {
            return Err(Refused::bad_request(
                "the target of the request is a whole URL",
                "This is no proxy: send the path alone.",
            ));
        }
        let mut hosts = head.headers.get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return Err(Refused::bad_request(
                "the request has no Host, or more than one",
                "Send one Host header.",
            ));
        };
        let site = host
            .to_str()
            .ok()
            .and_then(|text| Site::parse(text, default_port(self.is_https)));
        match site.is_some_and(|site| self.sites.contains(&site)) {
            true => Ok(()),
            false => Err(Refused::forbidden(
                "host_not_allowed",
                "this server is not known by the name in Host",
                "Use the address that the server listens on, or have its operator name this one (http_hosts).",
            )),
        }
    }

    /// No `Origin`, our own, or one that the operator names.
    pub(crate) fn check_origin(&self, head: &Parts) -> Result<Visitor, Refused> {
        let mut origins = head.headers.get_all(header::ORIGIN).iter();
        let Some(value) = origins.next() else {
            return Ok(Visitor::Here);
        };
        let origin = value.to_str().ok().and_then(Origin::parse);
        let refused = || {
            Refused::forbidden(
                "origin_not_allowed",
                "pages of that origin may not use this server",
                "Have the server's operator name the origin (http_origins).",
            )
        };
        let origin = origin
            .filter(|_| origins.next().is_none())
            .ok_or_else(refused)?;
        if self.origins.contains(&origin) {
            return Ok(Visitor::Page(value.clone()));
        }
        let is_own = origin.is_https == self.is_https && self.sites.contains(&origin.site);
        is_own.then_some(Visitor::Here).ok_or_else(refused)
    }
}

/// Names that need not be said: of a loopback address all that it has, of another the address itself, of a socket the one
/// that clients make up.
fn own(listen: &Listen, port: u16) -> Vec<Site> {
    let site = |host: &str| Site {
        host: host.to_owned(),
        port,
    };
    match listen {
        Listen::Unix(_) => vec![Site {
            host: "localhost".to_owned(),
            port: default_port(false),
        }],
        Listen::Tcp(address) if address.ip().to_canonical().is_loopback() => {
            ["localhost", "127.0.0.1", "[::1]"].map(site).to_vec()
        }
        Listen::Tcp(address) if address.ip().is_unspecified() => Vec::new(),
        Listen::Tcp(address) => {
            let text = address.to_string();
            let host = text.rsplit_once(':').map_or("", |(host, _)| host);
            vec![site(host)]
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::settings::OAuth;

    fn head(pairs: &[(&str, &str)]) -> Parts {
        let mut request = Request::get("/mcp");
        for (name, value) in pairs {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn loopback() -> Settings {
        Settings::new("127.0.0.1:0".parse().unwrap())
    }

    fn knows(names: &Names, host: &str) -> bool {
        names.check_host(&head(&[("host", host)])).is_ok()
    }

    fn may(names: &Names, origin: &str) -> bool {
        names.check_origin(&head(&[("origin", origin)])).is_ok()
    }

    #[test]
    fn names_are_compared_whole_and_with_their_port() {
        let names = Names::new(&loopback(), 7860);
        for own in [
            "localhost:7860",
            "127.0.0.1:7860",
            "[::1]:7860",
            "LOCALHOST:7860",
        ] {
            assert!(knows(&names, own), "{own}");
        }
        for other in [
            "localhost",
            "localhost:78600",
            "localhost:7861",
            "localhost:7860.evil.example",
            "localhost.evil.example:7860",
            "evil.example:7860",
            "evil@localhost:7860",
            "localhost.:7860",
            "127.0.0.1.nip.io:7860",
            "127.1:7860",
            "2130706433:7860",
            "[::ffff:127.0.0.1]:7860",
            "0.0.0.0:7860",
            "localhost:+7860",
            "localhost:07860x",
            "localhost:",
            "",
            " localhost:7860",
        ] {
            assert!(!knows(&names, other), "{other}");
        }
        assert!(names.check_host(&head(&[])).is_err());
        let two = head(&[("host", "localhost:7860"), ("host", "localhost:7860")]);
        assert!(names.check_host(&two).is_err());
        let whole = Request::get("http://localhost:7860/mcp").header("host", "localhost:7860");
        let whole = whole.body(()).unwrap().into_parts().0;
        assert!(names.check_host(&whole).is_err());
    }

    #[test]
    fn a_name_without_a_port_has_that_of_its_scheme() {
        let mut settings = loopback();
        settings.hosts = vec![
            "mcp.example.com".to_owned(),
            "other.example:8443".to_owned(),
        ];
        let plain = Names::new(&settings, 7860);
        assert!(knows(&plain, "mcp.example.com") && knows(&plain, "mcp.example.com:80"));
        assert!(!knows(&plain, "mcp.example.com:443") && !knows(&plain, "mcp.example.com:7860"));
        settings.proxies = vec!["127.0.0.1".parse().unwrap()];
        let behind = Names::new(&settings, 7860);
        assert!(knows(&behind, "mcp.example.com") && knows(&behind, "mcp.example.com:443"));
        assert!(knows(&behind, "other.example:8443") && !knows(&behind, "other.example"));
    }

    #[test]
    fn the_audience_is_a_name_of_the_server() {
        let mut settings = loopback();
        settings.oauth = Some(OAuth {
            issuers: vec!["https://id.example".to_owned()],
            audience: "https://mcp.example/mcp".to_owned(),
        });
        let names = Names::new(&settings, 7860);
        assert!(knows(&names, "mcp.example:443"));
        assert!(!knows(&names, "id.example:443"));
    }

    #[test]
    fn origins_are_compared_whole() {
        let mut settings = loopback();
        settings.origins = vec!["https://app.example".to_owned()];
        let names = Names::new(&settings, 7860);
        for allowed in [
            "https://app.example",
            "https://app.example:443",
            "http://localhost:7860",
            "http://127.0.0.1:7860",
        ] {
            assert!(may(&names, allowed), "{allowed}");
        }
        for refused in [
            "null",
            "http://app.example",
            "https://app.example:444",
            "https://app.example.evil",
            "https://xapp.example",
            "https://app.example/",
            "https://localhost:7860",
            "http://localhost:7861",
            "http://localhost",
            "http://evil.example:7860",
            "",
            "*",
        ] {
            assert!(!may(&names, refused), "{refused}");
        }
        assert_eq!(names.check_origin(&head(&[])).ok(), Some(Visitor::Here));
        let two = head(&[
            ("origin", "https://app.example"),
            ("origin", "https://app.example"),
        ]);
        assert!(names.check_origin(&two).is_err());
    }
}
