//! What may a session reach? Never more than the operator's ceiling: the presets that callers may ask for, the single
//! rules that they may ask for, and what every session has.
//!
//! A caller names hosts. That a host may lie at a private address only the operator says, and the caller's rule gets it from
//! there.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    EgressRule, HostPattern, NamedRule, NetworkOffer, NetworkPolicy, NetworkRequest, Reason,
    Refusal,
};

use crate::config::{PolicyError, option};

/// Rules of one session at most: what a person can still look over.
pub const MAX_NETWORK_RULES: usize = 256;
/// Ports of one rule at most.
const MAX_PORTS: usize = 16;
/// Methods or beginnings of paths of one rule at most.
const MAX_CONDITIONS: usize = 16;
/// Longest beginning of a path, bytes.
const MAX_PATH_BYTES: usize = 256;
/// Methods that a rule can name. `CONNECT` and `TRACE` are never passed on.
const METHODS: [&str; 7] = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"];
/// The port at which what is said is said in TLS.
const TLS_PORT: u16 = 443;
/// Characters of a name that a refusal repeats.
const MAX_SHOWN_CHARACTERS: usize = 64;
/// Rules of the ceiling that a refusal tells.
const MAX_TOLD: usize = 8;

/// The operator's side of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkConfig {
    /// Every set of rules that this program knows, by name.
    pub known_presets: BTreeMap<String, Vec<EgressRule>>,
    /// `network_presets`: those that callers may ask for.
    pub presets: Vec<String>,
    /// `network_allow`: single rules that callers may ask for.
    pub allow: Vec<EgressRule>,
    /// `network_default`: what every session has.
    pub default: Vec<Standing>,
    /// `network_private`: of all these, what may lie at a private address.
    pub private: Vec<EgressRule>,
    /// `credentials`: what requests of sessions may be given.
    pub credentials: Vec<OfferedCredential>,
    /// The proxy can open TLS to look at methods and paths.
    pub opens_tls: bool,
}

/// A credential of the operator's, as far as decisions need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferedCredential {
    /// Its name.
    pub name: String,
    /// Where it may go.
    pub destinations: Vec<EgressRule>,
    /// Every session has it that reaches one of them.
    pub always: bool,
}

/// What every session has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// A set of rules.
    Preset(String),
    /// A single rule.
    Rule(EgressRule),
}

impl OfferedCredential {
    fn is_reached_by(&self, rules: &[NamedRule]) -> bool {
        let reaches =
            |rule: &EgressRule, destination: &EgressRule| shared(rule, destination).is_some();
        self.destinations
            .iter()
            .any(|destination| rules.iter().any(|named| reaches(&named.rule, destination)))
    }
}

/// The configuration, checked, in the form that decisions need.
#[derive(Debug, Clone)]
pub(crate) struct Ceiling {
    config: NetworkConfig,
    /// What every session has, named.
    standing: Vec<NamedRule>,
    /// All that any session may ever reach, and where it stands, for refusals.
    rules: Vec<EgressRule>,
}

impl Ceiling {
    pub(crate) fn new(config: &NetworkConfig) -> Result<Self, PolicyError> {
        let mut rules = config.allow.clone();
        for name in &config.presets {
            rules.extend(known(config, name, "network_presets")?.iter().cloned());
        }
        let (mut standing, mut single) = (Vec::new(), Vec::new());
        for one in &config.default {
            match one {
                Standing::Preset(name) => {
                    standing.extend(named(name, known(config, name, "network_default")?));
                }
                Standing::Rule(rule) => single.push(rule.clone()),
            }
        }
        standing.extend(named("default", &single));
        rules.extend(standing.iter().map(|named| named.rule.clone()));
        let mut ceiling = Ceiling {
            config: config.clone(),
            standing: Vec::new(),
            rules: Vec::new(),
        };
        ceiling.check(&rules)?;
        ceiling.rules = ceiling.with_private(rules);
        ceiling.standing = ceiling.with_private_named(standing);
        Ok(ceiling)
    }

    /// Whether a session could reach anything but its provider.
    pub(crate) fn allows_anything(&self) -> bool {
        !self.rules.is_empty()
    }

    /// All that any session may ever reach.
    pub(crate) fn rules(&self) -> &[EgressRule] {
        &self.rules
    }

    pub(crate) fn offer(&self) -> NetworkOffer {
        let text = |rule: &EgressRule| rule.to_string();
        NetworkOffer {
            presets: self.config.presets.clone(),
            allow: self.config.allow.iter().map(text).collect(),
            standing: self
                .standing
                .iter()
                .map(|named| text(&named.rule))
                .collect(),
            credentials: self
                .config
                .credentials
                .iter()
                .map(|offered| offered.name.clone())
                .collect(),
        }
    }

    /// What of an earlier decision is still within it. A rule that may no longer lead to private addresses may still lead to
    /// public ones.
    pub(crate) fn within(&self, decided: &NetworkPolicy) -> NetworkPolicy {
        let kept = decided.rules.iter().filter_map(|named| {
            let public = EgressRule {
                private: false,
                ..named.rule.clone()
            };
            let rule = [&named.rule, &public]
                .into_iter()
                .find(|rule| self.covers(rule))?;
            Some(NamedRule {
                name: named.name.clone(),
                rule: rule.clone(),
            })
        });
        let is_offered = |name: &&String| {
            let mut offered = self.config.credentials.iter();
            offered.any(|offered| offered.name == **name)
        };
        NetworkPolicy {
            rules: kept.collect(),
            credentials: decided
                .credentials
                .iter()
                .filter(is_offered)
                .cloned()
                .collect(),
        }
    }

    /// What a session has that asks for this.
    pub(crate) fn policy(&self, asked: &NetworkRequest) -> Result<NetworkPolicy, Refusal> {
        let mut rules = self.standing.clone();
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        for (index, name) in asked.presets.iter().enumerate() {
            let preset = self.asked_preset(name, index)?;
            let stands = self
                .config
                .default
                .contains(&Standing::Preset(name.clone()));
            if seen.insert(name) && !stands {
                rules.extend(self.with_private_named(named(name, preset)));
            }
        }
        self.judge(&asked.allow)?;
        rules.extend(self.with_private_named(named("allow", &asked.allow)));
        if rules.len() > MAX_NETWORK_RULES {
            return Err(too_many(rules.len()));
        }
        let credentials = self.credentials(&asked.credentials, &rules)?;
        Ok(NetworkPolicy { rules, credentials })
    }

    /// The credentials that are asked for, and those that every session has which reaches their destinations.
    fn credentials(&self, asked: &[String], rules: &[NamedRule]) -> Result<Vec<String>, Refusal> {
        let offered = &self.config.credentials;
        for (index, name) in asked.iter().enumerate() {
            let field = format!("network.credentials[{index}]");
            let Some(found) = offered.iter().find(|offered| offered.name == *name) else {
                return Err(self.unknown_credential(name).in_field(field));
            };
            if !found.is_reached_by(rules) {
                let hosts: Vec<String> = found
                    .destinations
                    .iter()
                    .map(EgressRule::to_string)
                    .collect();
                return Err(wrong(
                    &format!(
                        "No rule of the session reaches where the credential `{name}` is used."
                    ),
                    &format!("Ask for one of these as well: {}.", hosts.join(", ")),
                )
                .in_field(field));
            }
        }
        let has = |offered: &&OfferedCredential| {
            asked.contains(&offered.name) || (offered.always && offered.is_reached_by(rules))
        };
        Ok(offered
            .iter()
            .filter(has)
            .map(|offered| offered.name.clone())
            .collect())
    }

    /// Their names are no secret: `get_server_info` tells them to every caller.
    fn unknown_credential(&self, name: &str) -> Refusal {
        let offered = self.config.credentials.iter();
        let names: Vec<&str> = offered.map(|offered| offered.name.as_str()).collect();
        let (there_are, ask) = match names.is_empty() {
            true => ("none".to_owned(), "Do without it"),
            false => (names.join(", "), "Ask for one of these"),
        };
        let shown = printable(name);
        Refusal::new(
            Reason::NetworkNotAllowed,
            format!("No credential `{shown}` is configured; configured are: {there_are}."),
            format!(
                "{ask}, or let the operator add `[credentials.{shown}]` to the server's configuration."
            ),
        )
    }

    /// What a session gets beside its own rules.
    pub(crate) fn added(&self, asked: &[EgressRule]) -> Result<Vec<EgressRule>, Refusal> {
        if asked.is_empty() {
            return Err(wrong(
                "No host is named.",
                "Name what the session is to reach.",
            ));
        }
        self.judge(asked)?;
        Ok(self.with_private(asked.to_vec()))
    }

    /// Each rule must make sense, and what may be private must be something that is allowed.
    fn check(&self, rules: &[EgressRule]) -> Result<(), PolicyError> {
        let config = &self.config;
        let standing = config.default.iter().filter_map(|standing| match standing {
            Standing::Rule(rule) => Some(rule),
            Standing::Preset(_) => None,
        });
        let keys = std::iter::repeat("network_allow").zip(&config.allow);
        let keys = keys.chain(std::iter::repeat("network_default").zip(standing));
        let destinations = config
            .credentials
            .iter()
            .flat_map(|offered| &offered.destinations);
        let keys = keys.chain(std::iter::repeat("credentials").zip(destinations));
        for (key, rule) in keys.chain(std::iter::repeat("network_private").zip(&config.private)) {
            if let Some(flaw) = self.flaw(rule) {
                return Err(option(
                    key,
                    format!("has the rule `{rule}`, in which {flaw}"),
                ));
            }
        }
        let idle =
            |private: &&EgressRule| !rules.iter().any(|rule| shared(rule, private).is_some());
        match config.private.iter().find(idle) {
            None => Ok(()),
            Some(private) => Err(option(
                "network_private",
                format!(
                    "names `{private}`, which neither `network_allow`, `network_default` nor a preset of \
                     `network_presets` allows"
                ),
            )),
        }
    }

    fn asked_preset(&self, name: &str, index: usize) -> Result<&[EgressRule], Refusal> {
        let field = format!("network.presets[{index}]");
        let Some(preset) = self.config.known_presets.get(name) else {
            let known: Vec<&str> = self
                .config
                .known_presets
                .keys()
                .map(String::as_str)
                .collect();
            let shown = printable(name);
            return Err(wrong(
                &format!("There is no preset `{shown}`."),
                &format!("Name one of these: {}.", known.join(", ")),
            )
            .in_field(field));
        };
        let allowed = self.config.presets.iter().any(|allowed| allowed == name)
            || self
                .config
                .default
                .contains(&Standing::Preset(name.to_owned()));
        match allowed {
            true => Ok(preset),
            false => Err(self.not_allowed(&format!("the preset `{name}`"), &field)),
        }
    }

    /// Refuses rules that make no sense, and those that reach past the ceiling.
    fn judge(&self, asked: &[EgressRule]) -> Result<(), Refusal> {
        if asked.len() > MAX_NETWORK_RULES {
            return Err(too_many(asked.len()));
        }
        for rule in asked {
            if let Some(flaw) = self.flaw(rule) {
                let message = format!("In the rule `{rule}` {flaw}.");
                return Err(wrong(&message, "Correct the rule.").in_field("network.allow"));
            }
            // Private addresses are never a caller's to name.
            if rule.private || !self.covers(rule) {
                return Err(self.not_allowed(&format!("`{rule}`"), "network.allow"));
            }
        }
        Ok(())
    }

    /// Whether the ceiling allows all of it. Each port by itself, since the operator may name them in several rules.
    fn covers(&self, asked: &EgressRule) -> bool {
        asked.ports.iter().all(|port| {
            let single = EgressRule {
                ports: vec![*port],
                ..asked.clone()
            };
            self.rules.iter().any(|rule| rule.covers(&single))
        })
    }

    /// What is wrong with a rule, as a phrase.
    fn flaw(&self, rule: &EgressRule) -> Option<String> {
        if rule.ports.is_empty() || rule.ports.len() > MAX_PORTS || rule.ports.contains(&0) {
            return Some(format!(
                "there must be 1 to {MAX_PORTS} ports, from 1 to 65535"
            ));
        }
        if rule.methods.len() > MAX_CONDITIONS || rule.paths.len() > MAX_CONDITIONS {
            return Some(format!(
                "there may be {MAX_CONDITIONS} methods and {MAX_CONDITIONS} paths"
            ));
        }
        let is_known = |method: &String| METHODS.contains(&method.as_str());
        if !rule.methods.iter().all(is_known) {
            return Some(format!("a method is none of {}", METHODS.join(", ")));
        }
        if !rule.paths.iter().all(|path| is_path(path)) {
            return Some(
                "a path does not begin with `/`, or has `..`, `//`, `%`, `?`, `#` or other characters than printable ASCII"
                    .to_owned(),
            );
        }
        if rule.opens_tls() && rule.ports.contains(&TLS_PORT) && !self.config.opens_tls {
            return Some(
                "methods or paths are named for port 443, where this server does not open TLS to see them".to_owned(),
            );
        }
        None
    }

    /// The rules, where the operator says so with leave to lie at private addresses: whole, or a part that comes first.
    fn with_private(&self, rules: Vec<EgressRule>) -> Vec<EgressRule> {
        let named = rules.into_iter().map(|rule| NamedRule {
            name: String::new(),
            rule,
        });
        let marked = self.with_private_named(named.collect());
        marked.into_iter().map(|named| named.rule).collect()
    }

    fn with_private_named(&self, rules: Vec<NamedRule>) -> Vec<NamedRule> {
        let mut marked = Vec::new();
        for NamedRule { name, rule } in rules {
            let parts = self
                .config
                .private
                .iter()
                .filter_map(|private| shared(&rule, private));
            let parts: Vec<_> = parts
                .map(|part| EgressRule {
                    private: true,
                    ..part
                })
                .collect();
            let is_whole = parts.iter().any(|part| part.covers(&rule));
            marked.extend(parts.into_iter().map(|rule| NamedRule {
                name: name.clone(),
                rule,
            }));
            if !is_whole {
                marked.push(NamedRule { name, rule });
            }
        }
        marked
    }

    fn not_allowed(&self, what: &str, field: &str) -> Refusal {
        let mut told: Vec<String> = self.config.presets.clone();
        told.extend(self.config.allow.iter().map(ToString::to_string));
        told.extend(self.standing.iter().map(|named| named.rule.to_string()));
        let more = told.len().saturating_sub(MAX_TOLD);
        told.truncate(MAX_TOLD);
        let allows = match (told.is_empty(), more) {
            (true, _) => "nothing".to_owned(),
            (false, 0) => told.join(", "),
            (false, more) => format!("{} and {more} more", told.join(", ")),
        };
        Refusal::new(
            Reason::NetworkNotAllowed,
            format!("The operator does not let sessions reach {what}; allowed are: {allows}."),
            "Ask for less, or let the operator add it to `network_allow` or `network_presets` of the server's configuration.",
        )
        .in_field(field)
    }
}

fn known<'a>(
    config: &'a NetworkConfig,
    name: &str,
    key: &str,
) -> Result<&'a [EgressRule], PolicyError> {
    let known = &config.known_presets;
    known.get(name).map(Vec::as_slice).ok_or_else(|| {
        let names: Vec<_> = known.keys().map(|name| format!("`{name}`")).collect();
        option(
            key,
            format!("names `{name}`, and there are {}", names.join(", ")),
        )
    })
}

fn named(set: &str, rules: &[EgressRule]) -> Vec<NamedRule> {
    let numbered = rules.iter().enumerate();
    numbered
        .map(|(index, rule)| NamedRule {
            name: format!("{set}/{}", index + 1),
            rule: rule.clone(),
        })
        .collect()
}

/// What of a rule's hosts and ports another one means, too.
fn shared(rule: &EgressRule, other: &EgressRule) -> Option<EgressRule> {
    let ports: Vec<u16> = rule
        .ports
        .iter()
        .copied()
        .filter(|port| other.ports.contains(port))
        .collect();
    // Of two patterns one holds the other, or they have nothing in common.
    let host = match (&rule.host, &other.host) {
        (wide, HostPattern::Exact(name)) if wide.matches(name) => &other.host,
        (HostPattern::Exact(name), wide) if wide.matches(name) => &rule.host,
        (HostPattern::Below(mine), HostPattern::Below(theirs)) if mine == theirs => &rule.host,
        (wide @ HostPattern::Below(_), HostPattern::Below(theirs)) if wide.matches(theirs) => {
            &other.host
        }
        (HostPattern::Below(mine), wide @ HostPattern::Below(_)) if wide.matches(mine) => {
            &rule.host
        }
        _ => return None,
    };
    (!ports.is_empty()).then(|| EgressRule {
        host: host.clone(),
        ports,
        ..rule.clone()
    })
}

fn is_path(path: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"%?#\\".contains(&byte);
    path.starts_with('/')
        && path.len() <= MAX_PATH_BYTES
        && path.bytes().all(plain)
        && !path.contains("//")
        && !path.split('/').any(|part| part == ".." || part == ".")
}

/// A name of the caller's as a refusal may repeat it.
fn printable(name: &str) -> String {
    let graphic = name.chars().filter(char::is_ascii_graphic);
    graphic.take(MAX_SHOWN_CHARACTERS).collect()
}

fn wrong(message: &str, hint: &str) -> Refusal {
    Refusal::new(Reason::InvalidArgument, message, hint).in_field("network.allow")
}

fn too_many(count: usize) -> Refusal {
    Refusal::new(
        Reason::TooLarge,
        format!("{count} rules are more than the {MAX_NETWORK_RULES} of one session."),
        "Name suffixes such as *.example.com instead of each host, or fewer presets.",
    )
    .in_field("network.allow")
}
