//! May this caller manage keys? The server's user may; a remote one needs `admin`, and hands out nothing that it has not itself.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use model::{CreateKey, KeyId, KeyView, Principal, Reason, Refusal, RemoteCaller, Scope, Scopes};

use crate::{
    PathFacts, Policy,
    create::check_name,
    mounts::{HostRules, clean},
    roots::Roots,
};

/// Directories of one key at most: what a person can still look over.
pub const MAX_KEY_ROOTS: usize = 16;
/// Shortest life of a key.
const MIN_VALIDITY: Duration = Duration::from_secs(1);
/// Longest life of a key that has an end: ten years. Whoever means for ever names no end.
const MAX_VALIDITY: Duration = Duration::from_secs(3650 * 24 * 3600);
/// Longest time that two keys of a line are valid side by side: 30 days.
pub const MAX_KEY_OVERLAP: Duration = Duration::from_secs(30 * 24 * 3600);

/// What is done with a key that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyVerb {
    /// Put another in its place, after that time.
    Rotate {
        /// How long both are valid.
        overlap: Duration,
    },
    /// End it.
    Revoke,
}

/// A key may be made.
#[derive(Debug)]
#[must_use = "a permit that is dropped was a decision for nothing"]
pub struct NewKeyPermit {
    parts: CreateKey,
}

impl NewKeyPermit {
    /// What may be made: directories are canonical.
    pub fn into_parts(self) -> CreateKey {
        self.parts
    }
}

/// A key may be rotated or revoked.
#[derive(Debug)]
#[must_use = "a permit that is dropped was a decision for nothing"]
pub struct KeyPermit {
    key: KeyId,
    verb: KeyVerb,
}

impl KeyPermit {
    /// Which, and what.
    pub fn into_parts(self) -> (KeyId, KeyVerb) {
        (self.key, self.verb)
    }
}

/// Keys may be listed.
#[derive(Debug)]
#[must_use = "a permit that is dropped was a decision for nothing"]
pub struct KeyListPermit(());

impl KeyListPermit {
    /// Spends it.
    pub fn spend(self) {}
}

impl Policy {
    /// Decides on a new key. `roots`: what stands at each of its directories.
    ///
    /// # Errors
    /// [`Reason::InsufficientScope`] or [`Reason::PolicyDenied`] for who asks; [`Reason::InvalidArgument`],
    /// [`Reason::TooLarge`] and those of paths for what is asked.
    pub fn admit_new_key(
        &self,
        principal: &Principal,
        asked: &CreateKey,
        roots: &[PathFacts],
    ) -> Result<NewKeyPermit, Refusal> {
        self.require_key_manager(principal)?;
        check_name(Some(&asked.name), "name")?;
        if asked.scopes.is_empty() {
            let hint = "Name one or more of sessions:read, sessions:run, files, network and admin.";
            return Err(invalid(
                "A key without scopes may do nothing.",
                hint,
                "scopes",
            ));
        }
        check_numbers(asked)?;
        if asked.roots.len() > MAX_KEY_ROOTS || roots.len() != asked.roots.len() {
            let message = format!("A key has at most {MAX_KEY_ROOTS} directories.");
            return Err(
                Refusal::new(Reason::TooLarge, message, "Name a common parent directory.")
                    .in_field("roots"),
            );
        }
        let canonical = asked
            .roots
            .iter()
            .zip(roots)
            .map(|(root, facts)| self.key_root(principal, root, facts))
            .collect::<Result<Vec<_>, _>>()?;
        if asked.scopes.contains(Scope::SessionsRun) && canonical.is_empty() {
            let message = "A key that may run sessions needs a directory with their projects.";
            let hint = "Name one with `--root DIR`; its projects are the directories below it.";
            return Err(invalid(message, hint, "roots"));
        }
        self.require_no_more(principal, asked.scopes, &canonical)?;
        let own = principal.remote();
        let least = |asked: Option<u32>, own: Option<u32>| asked.into_iter().chain(own).min();
        Ok(NewKeyPermit {
            parts: CreateKey {
                roots: canonical,
                max_sessions: least(asked.max_sessions, own.and_then(|own| own.max_sessions)),
                calls_per_minute: least(
                    asked.calls_per_minute,
                    own.and_then(|own| own.calls_per_minute),
                ),
                ..asked.clone()
            },
        })
    }

    /// Decides on a key that exists; `found` is `None` when there is none.
    ///
    /// # Errors
    /// [`Reason::KeyNotFound`]; as for [`Policy::admit_new_key`] for who asks: a rotation hands out a key.
    pub fn admit_key(
        &self,
        principal: &Principal,
        key: KeyId,
        verb: KeyVerb,
        found: Option<&KeyView>,
    ) -> Result<KeyPermit, Refusal> {
        self.require_key_manager(principal)?;
        let Some(found) = found else {
            let hint = "`claude-code-mcp keys list` shows the keys and their ids.";
            let message = "There is no key of this id.";
            return Err(Refusal::new(Reason::KeyNotFound, message, hint).in_field("keyId"));
        };
        match verb {
            KeyVerb::Revoke => self.require_no_more(principal, found.scopes, &found.roots)?,
            KeyVerb::Rotate { overlap } => {
                require_holder(principal, found)?;
                self.require_no_more(principal, found.scopes, &found.roots)?;
                if overlap > MAX_KEY_OVERLAP {
                    let message = "Two keys are valid side by side for 30 days at most.";
                    let hint = "Choose a shorter time; 0 ends the old key at once.";
                    return Err(invalid(message, hint, "overlapSeconds"));
                }
            }
        }
        Ok(KeyPermit { key, verb })
    }

    /// Decides on the list of keys.
    ///
    /// # Errors
    /// As for [`Policy::admit_new_key`], for who asks.
    pub fn admit_key_list(&self, principal: &Principal) -> Result<KeyListPermit, Refusal> {
        self.require_key_manager(principal)?;
        Ok(KeyListPermit(()))
    }

    fn require_key_manager(&self, principal: &Principal) -> Result<(), Refusal> {
        self.maker(principal, Scopes::NONE.with(Scope::Admin))
            .map(drop)
    }

    /// A remote caller hands out no more than it has.
    fn require_no_more(
        &self,
        principal: &Principal,
        scopes: Scopes,
        roots: &[PathBuf],
    ) -> Result<(), Refusal> {
        let Some(caller) = principal.remote() else {
            return Ok(());
        };
        let own = Roots::of(principal, &[], &self.forbidden);
        if caller.scopes.contains_all(scopes)
            && roots.iter().all(|root| own.holding(root).is_some())
        {
            return Ok(());
        }
        let message = "This key could do more than you may.";
        let hint = "Give it scopes and directories that you have yourself, or ask whoever runs the server.";
        Err(Refusal::new(Reason::PolicyDenied, message, hint))
    }

    fn key_root(
        &self,
        principal: &Principal,
        asked: &Path,
        facts: &PathFacts,
    ) -> Result<PathBuf, Refusal> {
        let roots = Roots::of(principal, &self.config.project_roots, &self.forbidden);
        if principal.remote().is_some() {
            let rules = HostRules {
                roots: &roots,
                forbidden: &self.forbidden,
                protected: &self.protected,
                server_uid: self.config.server_uid,
            };
            return Ok(rules.named_project(asked, facts, "roots")?.path);
        }
        let asked = clean(asked, "roots")?;
        let PathFacts::Directory(found) = facts else {
            let hint = "Name a directory that exists, and that the server may open.";
            let message = format!("`{}` is no directory that can be used.", asked.display());
            return Err(Refusal::new(Reason::PathNotFound, message, hint).in_field("roots"));
        };
        if let Some(why) = self.forbidden.why_forbidden(&found.path) {
            let message = format!("No session may have `{}`: {why}.", asked.display());
            let hint = "Name the directory that holds the projects and nothing else.";
            return Err(Refusal::new(Reason::PathForbidden, message, hint).in_field("roots"));
        }
        Ok(found.path.clone())
    }
}

/// Whoever has the new key has the sessions of the old one: a remote caller gets those of its own line alone.
fn require_holder(principal: &Principal, found: &KeyView) -> Result<(), Refusal> {
    let is_holder = |caller: &RemoteCaller| caller.name == found.identity.owner_name();
    if principal.remote().is_none_or(is_holder) {
        return Ok(());
    }
    let message =
        "Only its holder or the server's user rotates a key: the new one has its sessions.";
    let hint = "Make a new key with `create_key`, and revoke this one.";
    Err(Refusal::new(Reason::PolicyDenied, message, hint).in_field("keyId"))
}

fn check_numbers(asked: &CreateKey) -> Result<(), Refusal> {
    if asked.max_sessions == Some(0) {
        let hint = "Use 1 or more, or leave it out for the server's own bound.";
        return Err(invalid(
            "A bound of no sessions allows none.",
            hint,
            "maxSessions",
        ));
    }
    if asked.calls_per_minute == Some(0) {
        let hint = "Use 1 or more, or leave it out for the server's own bound.";
        return Err(invalid(
            "A bound of no calls allows none.",
            hint,
            "callsPerMinute",
        ));
    }
    let is_sensible = |time: &Duration| (MIN_VALIDITY..=MAX_VALIDITY).contains(time);
    if asked
        .valid_for
        .as_ref()
        .is_some_and(|time| !is_sensible(time))
    {
        let hint =
            "Choose between a second and ten years, or leave it out for a key without an end.";
        return Err(invalid(
            "A key cannot be valid for that long.",
            hint,
            "expiresSeconds",
        ));
    }
    Ok(())
}

fn invalid(message: &str, hint: &str, field: &str) -> Refusal {
    Refusal::new(Reason::InvalidArgument, message, hint).in_field(field)
}
