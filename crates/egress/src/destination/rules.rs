//! The rules of one session, as a snapshot that never changes: a new policy is a new snapshot.

use std::sync::Arc;

use model::{EgressRule, NamedRule, NetworkPolicy, NetworkTarget, SessionId};

use super::{
    denial::{ByPerson, Denial},
    name::HostName,
    ports::is_guarded_port,
    wishes::Wishes,
};

/// What one session may reach. Without a rule: nothing.
///
/// Rules add up: what any of them allows is allowed. Guarded ports and the addresses behind names are refused all the same.
#[derive(Debug, Clone, Default)]
pub struct RuleSet {
    /// Those that leave the wire closed first, and among these the operator's `private` ones: the first that fits is the one
    /// that allows most.
    rules: Vec<NamedRule>,
    askable: Option<Askable>,
}

/// What a person may let a session reach while it runs: refusals of that say how.
#[derive(Debug, Clone)]
pub struct Askable {
    session: SessionId,
    ceiling: Arc<[EgressRule]>,
    wishes: Arc<Wishes>,
}

impl Askable {
    /// For that session, all that the operator allows any.
    pub fn new(session: SessionId, ceiling: Vec<EgressRule>, wishes: Arc<Wishes>) -> Self {
        Askable {
            session,
            ceiling: ceiling.into(),
            wishes,
        }
    }

    /// What a person can do about it; `None` for what is past the ceiling.
    fn by_person(&self, host: &HostName, port: u16) -> Option<ByPerson> {
        let opens = |rule: &&EgressRule| {
            rule.host.matches(host.as_str())
                && rule.ports.contains(&port)
                && (rule.private || !is_guarded_port(port))
        };
        let target = target(host, port);
        // What no rule can name is nothing that a person could allow.
        let is_askable = self.ceiling.iter().any(|rule| opens(&rule)) && target.rule().is_ok();
        is_askable.then(|| ByPerson {
            session: self.session,
            said: self.wishes.said(&target),
        })
    }
}

impl RuleSet {
    /// A snapshot of a policy.
    pub fn new(policy: NetworkPolicy) -> RuleSet {
        let mut rules = policy.rules;
        rules.sort_by_key(|named| (named.rule.opens_tls(), !named.rule.private));
        RuleSet {
            rules,
            askable: None,
        }
    }

    /// The same, whose refusals say what a person may allow.
    #[must_use]
    pub fn askable(self, askable: Askable) -> RuleSet {
        RuleSet {
            askable: Some(askable),
            ..self
        }
    }

    /// The rule by which a host may be reached at a port: of several the one that restricts least.
    ///
    /// # Errors
    /// `network_off` without any rule, `host_not_allowed`, `port_not_allowed`.
    pub fn find(&self, host: &HostName, port: u16) -> Result<&NamedRule, Denial> {
        if let Some(found) = self.matching(host, port).next() {
            return Ok(found);
        }
        let person = self
            .askable
            .as_ref()
            .and_then(|askable| askable.by_person(host, port));
        if self.rules.is_empty() && person.is_none() {
            return Err(Denial::NetworkOff);
        }
        let Some(named) = self.naming(host).next() else {
            return Err(Denial::HostNotAllowed {
                host: host.clone(),
                port,
                person,
            });
        };
        if is_guarded_port(port) {
            return Err(Denial::GuardedPort {
                host: host.clone(),
                port,
            });
        }
        Err(Denial::PortNotAllowed {
            host: host.clone(),
            port,
            rule: named.name.clone(),
            ports: named.rule.ports.clone(),
            person,
        })
    }

    /// Makes a question of a refusal that a person could lift. The refusal, as it then reads.
    pub fn asked(&self, mut denial: Denial) -> Denial {
        if let (
            Some(askable),
            Denial::HostNotAllowed {
                host, port, person, ..
            }
            | Denial::PortNotAllowed {
                host, port, person, ..
            },
        ) = (&self.askable, &mut denial)
            && let Some(by) = person
        {
            by.said = askable.wishes.ask(&target(host, *port));
        }
        denial
    }

    /// All rules by which a host may be reached at a port, the least restricting first: what looks into TLS asks each of them.
    pub fn matching<'a>(
        &'a self,
        host: &HostName,
        port: u16,
    ) -> impl Iterator<Item = &'a NamedRule> {
        let guarded = is_guarded_port(port);
        self.naming(host)
            .filter(move |named| named.rule.ports.contains(&port))
            .filter(move |named| named.rule.private || !guarded)
    }

    /// Whether any rule names a host, at whatever port. Names that none does have no address inside.
    pub fn names(&self, host: &HostName) -> bool {
        self.naming(host).next().is_some()
    }

    /// Whether nothing at all may be reached.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    fn naming<'a>(&'a self, host: &HostName) -> impl Iterator<Item = &'a NamedRule> {
        self.rules
            .iter()
            .filter(|named| named.rule.host.matches(host.as_str()))
    }
}

fn target(host: &HostName, port: u16) -> NetworkTarget {
    NetworkTarget {
        host: host.as_str().to_owned(),
        port,
    }
}

#[cfg(test)]
mod tests;
