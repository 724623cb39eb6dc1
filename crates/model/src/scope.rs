//! What a remote caller may do: a few words, kept small on purpose.

use std::{fmt, str::FromStr};

/// One thing that a remote caller may be allowed to do. None implies another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Look at own sessions, their executions, logs and transcripts.
    SessionsRead,
    /// Create own sessions, run things in them, end them.
    SessionsRun,
    /// Carry files into own sessions and out of them.
    Files,
    /// Say what own sessions may reach, within the operator's ceiling.
    Network,
    /// Manage keys, and see and end the sessions of everybody. It lets nobody run, read or copy anything.
    Admin,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Scope; 5] = [
        Scope::SessionsRead,
        Scope::SessionsRun,
        Scope::Files,
        Scope::Network,
        Scope::Admin,
    ];

    /// The word in keys, tokens and challenges.
    pub const fn as_str(self) -> &'static str {
        match self {
            Scope::SessionsRead => "sessions:read",
            Scope::SessionsRun => "sessions:run",
            Scope::Files => "files",
            Scope::Network => "network",
            Scope::Admin => "admin",
        }
    }

    const fn bit(self) -> u8 {
        match self {
            Scope::SessionsRead => 1,
            Scope::SessionsRun => 2,
            Scope::Files => 4,
            Scope::Network => 8,
            Scope::Admin => 16,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no such scope; the scopes are sessions:read, sessions:run, files, network and admin"
)]
pub struct ScopeError;

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(word: &str) -> Result<Self, ScopeError> {
        let mut all = Scope::ALL.into_iter();
        all.find(|scope| scope.as_str() == word).ok_or(ScopeError)
    }
}

/// A set of scopes. Its text is words with spaces between, as in OAuth.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Scopes(u8);

impl Scopes {
    /// None at all.
    pub const NONE: Scopes = Scopes(0);

    /// Every scope.
    pub fn all() -> Self {
        Scope::ALL.into_iter().collect()
    }

    /// Those of an OAuth token's `scope`, less those that are not ours: tokens are made for more than one server.
    pub fn known_of(text: &str) -> Self {
        let words = text.split_ascii_whitespace();
        words
            .filter_map(|word| word.parse::<Scope>().ok())
            .collect()
    }

    /// Whether that scope is among them.
    pub const fn contains(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// Whether all of those are among them.
    pub const fn contains_all(self, others: Scopes) -> bool {
        self.0 & others.0 == others.0
    }

    /// With that one, too.
    #[must_use]
    pub const fn with(self, scope: Scope) -> Self {
        Scopes(self.0 | scope.bit())
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Each of them, in the order of [`Scope::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        let all = Scope::ALL.into_iter();
        all.filter(move |scope| self.contains(*scope))
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        scopes.into_iter().fold(Scopes::NONE, Scopes::with)
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = self.iter().map(Scope::as_str).collect();
        f.write_str(&words.join(" "))
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl FromStr for Scopes {
    type Err = ScopeError;

    /// Of a key: a word that is no scope is an error.
    fn from_str(text: &str) -> Result<Self, ScopeError> {
        text.split_ascii_whitespace().map(str::parse).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_reads_back_from_its_text() {
        for bits in 0..32u8 {
            let set: Scopes = Scope::ALL
                .into_iter()
                .filter(|scope| bits & scope.bit() != 0)
                .collect();
            assert_eq!(set.to_string().parse(), Ok(set));
            assert_eq!(Scopes::known_of(&format!("openid {set} profile")), set);
            assert_eq!(set.is_empty(), bits == 0);
        }
    }

    #[test]
    fn a_word_that_is_no_scope_is_an_error_in_a_key_and_nothing_in_a_token() {
        assert_eq!("files sudo".parse::<Scopes>(), Err(ScopeError));
        assert_eq!("Files".parse::<Scopes>(), Err(ScopeError));
        assert_eq!(
            Scopes::known_of("files sudo"),
            Scopes::NONE.with(Scope::Files)
        );
    }
}
