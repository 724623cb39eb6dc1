//! What a session may reach beside its model provider.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{AnsweredBy, SessionId};

/// Longest name of a host, bytes (RFC 1035, section 2.3.4: 255 on the wire are 253 written).
pub const MAX_HOST_BYTES: usize = 253;
/// Longest label of it (RFC 1035, section 2.3.4).
const MAX_LABEL_BYTES: usize = 63;
/// The port of a rule that names none.
const DEFAULT_PORTS: [u16; 1] = [443];

/// What a caller asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkRequest {
    /// Named sets of rules, such as `github`.
    pub presets: Vec<String>,
    /// Single rules.
    pub allow: Vec<EgressRule>,
    /// Credentials of the operator's, by name.
    pub credentials: Vec<String>,
}

impl NetworkRequest {
    /// Something is asked for.
    pub const fn asks_for_something(&self) -> bool {
        !(self.presets.is_empty() && self.allow.is_empty() && self.credentials.is_empty())
    }
}

/// What the operator lets callers ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkOffer {
    /// Named sets of rules.
    pub presets: Vec<String>,
    /// Single rules, each with all that is narrower.
    pub allow: Vec<String>,
    /// What every session has, unasked.
    pub standing: Vec<String>,
    /// Credentials, by name.
    pub credentials: Vec<String>,
}

/// See [`crate::Action::WidenNetwork`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WidenNetwork {
    /// Which session.
    pub session: SessionId,
    /// What it is to reach beside what it may reach already.
    pub allow: Vec<EgressRule>,
    /// Whose word it is.
    pub by: AnsweredBy,
}

/// One host at one port, as something inside asked for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkTarget {
    /// The host; lower case, ASCII.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// A way that was refused inside and that a person may open: it waits for their word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkQuestion {
    /// Where to.
    pub target: NetworkTarget,
    /// When nobody waits for the answer any more, milliseconds since 1970.
    pub denied_at_ms: u64,
}

/// See [`crate::Action::AnswerNetwork`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerNetwork {
    /// Which session.
    pub session: SessionId,
    /// What it asked for.
    pub target: NetworkTarget,
    /// Whether it may reach it, as long as it lives.
    pub allow: bool,
    /// Whose word it is.
    pub by: AnsweredBy,
}

impl NetworkTarget {
    /// The rule that allows this and nothing else.
    ///
    /// # Errors
    /// When the host is no name.
    pub fn rule(&self) -> Result<EgressRule, RuleError> {
        let host: HostPattern = self.host.parse()?;
        match &host {
            HostPattern::Exact(_) if self.port != 0 => Ok(EgressRule {
                ports: vec![self.port],
                ..EgressRule::on(host)
            }),
            HostPattern::Exact(_) => Err(RuleError::Port(self.port.to_string())),
            HostPattern::Below(_) => Err(RuleError::Host(host.to_string())),
        }
    }
}

impl fmt::Display for NetworkTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// What a session has: everything that no rule allows is refused. Without a rule it reaches its model provider alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkPolicy {
    /// The rules, each with a name that denials and the audit log use.
    pub rules: Vec<NamedRule>,
    /// Credentials that requests to their destinations may be given, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub credentials: Vec<String>,
}

impl NetworkPolicy {
    /// Whether TLS is opened anywhere: for a rule about methods or paths, or for a credential.
    pub fn opens_tls(&self) -> bool {
        !self.credentials.is_empty() || self.rules.iter().any(|named| named.rule.opens_tls())
    }
}

/// A rule and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NamedRule {
    /// `github/1`, `default/1`, `allow/2`, `person/3`: the set and the place in it.
    pub name: String,
    /// What it allows.
    pub rule: EgressRule,
}

/// Hosts, ports and, where TLS is opened to look, methods and paths.
///
/// As text: `host`, `host:port` or `host:port,port`, the host exact or `*.suffix` (names below the suffix, not itself).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EgressRule {
    /// Which hosts.
    pub host: HostPattern,
    /// Which ports; 443 where none was named.
    #[serde(default = "default_ports")]
    pub ports: Vec<u16>,
    /// Which methods of HTTP; empty: all. Not empty means that TLS is opened.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// How paths must begin; empty: any. Not empty means that TLS is opened.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// The operator says that this host may lie at a private address. No caller can say so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub private: bool,
}

/// One host, or all below a suffix. Lower case, ASCII (an international name in its `xn--` form), never an address.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HostPattern {
    /// That host.
    Exact(String),
    /// Hosts below it, at any depth; not itself.
    Below(String),
}

/// A text that is no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// The host.
    #[error(
        "{0:?} is no host: expected a name such as example.com or *.example.com, in ASCII, not an address"
    )]
    Host(String),
    /// A suffix that half of the world is below of.
    #[error("*.{0} is too wide: a suffix has at least two labels")]
    TooWide(String),
    /// A URL, or the beginning of one.
    #[error("{0:?} is a URL: write HOST or HOST:PORT, without scheme and path")]
    Url(String),
    /// The port.
    #[error("{0:?} is no port: expected numbers from 1 to 65535, separated by commas")]
    Port(String),
}

fn default_ports() -> Vec<u16> {
    DEFAULT_PORTS.to_vec()
}

impl EgressRule {
    /// All of a host, at the port of a rule that names none.
    pub fn on(host: HostPattern) -> Self {
        EgressRule {
            host,
            ports: default_ports(),
            methods: Vec::new(),
            paths: Vec::new(),
            private: false,
        }
    }

    /// Whether the wire must be opened to see what the rule speaks of.
    pub fn opens_tls(&self) -> bool {
        !self.methods.is_empty() || !self.paths.is_empty()
    }

    /// Whether everything that `other` allows is allowed by this rule.
    pub fn covers(&self, other: &EgressRule) -> bool {
        let within = |mine: &[String], theirs: &[String], fits: fn(&str, &str) -> bool| {
            mine.is_empty()
                || (!theirs.is_empty()
                    && theirs
                        .iter()
                        .all(|their| mine.iter().any(|my| fits(my, their))))
        };
        self.host.covers(&other.host)
            && other.ports.iter().all(|port| self.ports.contains(port))
            && within(&self.methods, &other.methods, |my, their| my == their)
            && within(&self.paths, &other.paths, |my, their| their.starts_with(my))
            && (self.private || !other.private)
    }
}

impl HostPattern {
    /// Whether a name, already in lower case and without a dot at its end, is meant.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            HostPattern::Exact(name) => name == host,
            HostPattern::Below(suffix) => below(host, suffix),
        }
    }

    fn covers(&self, other: &HostPattern) -> bool {
        match (self, other) {
            (_, HostPattern::Exact(name)) => self.matches(name),
            (HostPattern::Below(mine), HostPattern::Below(theirs)) => {
                mine == theirs || below(theirs, mine)
            }
            (HostPattern::Exact(_), HostPattern::Below(_)) => false,
        }
    }
}

fn below(host: &str, suffix: &str) -> bool {
    host.strip_suffix(suffix)
        .and_then(|rest| rest.strip_suffix('.'))
        .is_some_and(|rest| !rest.is_empty())
}

/// Whether a text is the name of a host: labels of letters, digits and hyphens (an underscore is taken, as some services
/// have it), the last one not a number, since that would be an address to many readers (WHATWG URL, "ends in a number").
fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        (1..=MAX_LABEL_BYTES).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte)
            })
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    let looks_like_number = last.bytes().all(|byte| byte.is_ascii_digit())
        || last
            .strip_prefix("0x")
            .is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
    text.len() <= MAX_HOST_BYTES && text.split('.').all(label) && !looks_like_number
}

impl FromStr for HostPattern {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let lower = text.to_ascii_lowercase();
        let (name, is_suffix) = match lower.strip_prefix("*.") {
            Some(suffix) => (suffix, true),
            None => (lower.as_str(), false),
        };
        if !is_host(name) {
            return Err(RuleError::Host(text.chars().take(MAX_HOST_BYTES).collect()));
        }
        match is_suffix {
            true if !name.contains('.') => Err(RuleError::TooWide(name.to_owned())),
            true => Ok(HostPattern::Below(name.to_owned())),
            false => Ok(HostPattern::Exact(name.to_owned())),
        }
    }
}

impl FromStr for EgressRule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        if text.contains("://") {
            return Err(RuleError::Url(text.chars().take(MAX_HOST_BYTES).collect()));
        }
        let (host, ports) = match text.split_once(':') {
            Some((host, ports)) => (host, Some(ports)),
            None => (text, None),
        };
        let port = |digits: &str| {
            let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse().ok().filter(|port| plain && *port != 0)
        };
        let ports = match ports {
            None => default_ports(),
            Some(ports) => ports
                .split(',')
                .map(|digits| port(digits).ok_or_else(|| RuleError::Port(digits.to_owned())))
                .collect::<Result<_, _>>()?,
        };
        Ok(EgressRule {
            ports,
            ..EgressRule::on(host.parse()?)
        })
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostPattern::Exact(name) => f.write_str(name),
            HostPattern::Below(suffix) => write!(f, "*.{suffix}"),
        }
    }
}

impl fmt::Debug for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for EgressRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.host, f)?;
        if self.ports != DEFAULT_PORTS {
            let ports: Vec<String> = self.ports.iter().map(u16::to_string).collect();
            write!(f, ":{}", ports.join(","))?;
        }
        Ok(())
    }
}

impl TryFrom<String> for HostPattern {
    type Error = RuleError;

    fn try_from(text: String) -> Result<Self, RuleError> {
        text.parse()
    }
}

impl From<HostPattern> for String {
    fn from(pattern: HostPattern) -> String {
        pattern.to_string()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn rule(text: &str) -> EgressRule {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        for (text, shown) in [
            ("example.com", "example.com"),
            ("EXAMPLE.com:443", "example.com"),
            ("*.example.com:80,443", "*.example.com:80,443"),
            ("localhost:8080", "localhost:8080"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ] {
            assert_eq!(rule(text).to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_name_is_no_rule() {
        for text in [
            "",
            "*",
            "*.",
            "*.com",
            "a*.example.com",
            "*.*.example.com",
            "example..com",
            ".example.com",
            "example.com.",
            "127.0.0.1",
            "1",
            "0x7f",
            "0x7f.1",
            "2130706433",
            "[::1]",
            "::1",
            "exa mple.com",
            "example.com:",
            "example.com:0",
            "example.com:65536",
            "example.com:+80",
            "example.com:80:80",
            "bücher.example",
            "a@b.example",
            "a%2eb.example",
            "a/b",
            "http://example.com",
            "-a.example",
            "a-.example",
            "ex\0ample.com",
        ] {
            assert!(text.parse::<EgressRule>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_suffix_is_no_name_below_itself_and_no_part_of_a_label() {
        let pattern: HostPattern = "*.example.com".parse().unwrap();
        assert!(pattern.matches("a.example.com") && pattern.matches("a.b.example.com"));
        for other in [
            "example.com",
            "badexample.com",
            ".example.com",
            "example.com.evil.org",
        ] {
            assert!(!pattern.matches(other), "{other}");
        }
    }

    #[test]
    fn a_rule_covers_what_is_narrower_and_nothing_else() {
        let wide = rule("*.example.com:80,443");
        for narrow in [
            "a.example.com",
            "*.a.example.com:80",
            "*.example.com:443,80",
        ] {
            assert!(wide.covers(&rule(narrow)), "{narrow}");
        }
        for other in [
            "example.com",
            "a.example.com:22",
            "*.example.org",
            "*.com.example",
        ] {
            if let Ok(other) = other.parse() {
                assert!(!wide.covers(&other), "{other}");
            }
        }
        let reading = EgressRule {
            methods: vec!["GET".to_owned()],
            paths: vec!["/a/".to_owned()],
            ..wide.clone()
        };
        assert!(wide.covers(&reading) && !reading.covers(&wide) && reading.covers(&reading));
        let deeper = EgressRule {
            paths: vec!["/a/b".to_owned()],
            ..reading.clone()
        };
        assert!(reading.covers(&deeper) && !deeper.covers(&reading));
        let private = EgressRule {
            private: true,
            ..wide.clone()
        };
        assert!(private.covers(&wide) && !wide.covers(&private));
    }
}
