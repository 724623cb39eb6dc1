//! Which credential goes where. A sandbox holds a placeholder of each; what stands for it is put into a request on its way
//! out, at the destinations that the operator bound it to, and at no other.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use http::{HeaderName, HeaderValue, header, request::Parts};
use model::{EgressRule, SessionId};

use super::{
    placeholder::{self, Shape},
    spelling::Spellings,
};
use crate::{
    credential::{Carried, Credential, CredentialError, Held, Presented},
    destination::{Denial, HostName},
    proxy::{Ask, has_method, has_path},
};

/// Longest credential that is taken. Tokens that hold claims have 1 to 2 KiB.
const MAX_SECRET_BYTES: usize = 4096;
/// Shortest credential that is taken: of a shorter one, an answer could not be told from one that holds it by chance.
const MIN_SECRET_BYTES: usize = 12;

/// How a credential travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Carrier {
    /// As `authorization`, in the scheme that the placeholder came in: `Bearer`, `token`, or the password of `Basic`.
    Authorization,
    /// As a header of its own, such as `private-token`.
    Header(HeaderName),
}

impl Carrier {
    /// In a header of that name.
    pub fn of(name: HeaderName) -> Self {
        match name {
            header::AUTHORIZATION => Carrier::Authorization,
            name => Carrier::Header(name),
        }
    }
}

/// A credential and where it may go.
#[derive(Debug)]
pub struct Binding {
    /// What the operator calls it.
    pub name: String,
    /// Its destinations; methods and paths count.
    pub destinations: Vec<EgressRule>,
    /// How it travels there.
    pub carrier: Carrier,
    /// Where it comes from: a bearer token, fixed or from a source.
    pub credential: Credential,
}

/// A credential that cannot be bound.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BindingError {
    /// It is none that a header carries.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// It is too short to be found in answers, or too long.
    #[error("it must have {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes")]
    Length,
}

/// A binding in one session.
pub struct Bound {
    binding: Arc<Binding>,
    held: Arc<Held>,
    placeholder: String,
    spellings: Spellings,
    /// Of the credential that went out last.
    of_last: Mutex<Option<(HeaderValue, Spellings)>>,
}

/// The credentials of one session.
#[derive(Default)]
pub struct Broker {
    bound: Vec<Arc<Bound>>,
}

/// A request that holds a placeholder where it belongs.
#[derive(Clone)]
pub(crate) struct Claim {
    bound: Arc<Bound>,
    header: HeaderName,
    shape: Shape,
}

/// What stands for a placeholder now.
pub(crate) struct Filled {
    bound: Arc<Bound>,
    presented: Presented,
    /// What the answer must not say.
    pub(crate) unspoken: Unspoken,
}

/// A credential that an answer must not hold.
pub(crate) struct Unspoken {
    pub(super) name: String,
    pub(super) spellings: Spellings,
}

impl Binding {
    /// Whether its credential can be used, as far as that is known before it is: a file is read again, a command is not run.
    ///
    /// # Errors
    /// When it is none that a header carries, has not the length of one, or its file cannot be used.
    pub fn check(&self) -> Result<(), BindingError> {
        let held = Held::token(self.credential.clone(), SessionId::from_bytes([0; 16]))?;
        match held.at_once() {
            Some(carried) => secret(&carried?).map(drop),
            None => Ok(()),
        }
    }
}

/// The credential itself, where it has the length of one.
fn secret(carried: &Carried) -> Result<HeaderValue, BindingError> {
    let secret = carried.secrets().into_iter().next();
    secret
        .filter(|secret| (MIN_SECRET_BYTES..=MAX_SECRET_BYTES).contains(&secret.len()))
        .ok_or(BindingError::Length)
}

impl Bound {
    /// For a session that has this placeholder.
    ///
    /// # Errors
    /// When the credential is none that a header carries.
    pub fn new(
        binding: Arc<Binding>,
        placeholder: String,
        session: SessionId,
    ) -> Result<Self, BindingError> {
        let held = Held::token(binding.credential.clone(), session)?;
        Ok(Bound {
            spellings: Spellings::new(placeholder.as_bytes()),
            binding,
            held,
            placeholder,
            of_last: Mutex::default(),
        })
    }

    /// The spellings of a credential, built once for each that goes out.
    fn spellings_of(&self, secret: &HeaderValue) -> Spellings {
        let mut last = self.of_last.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((known, spellings)) if known == secret => spellings.clone(),
            _ => {
                let spellings = Spellings::new(secret.as_bytes());
                *last = Some((secret.clone(), spellings.clone()));
                spellings
            }
        }
    }

    fn fits(&self, ask: &Ask) -> bool {
        self.binding.destinations.iter().any(|rule| {
            rule.host.matches(ask.host.as_str())
                && rule.ports.contains(&ask.port)
                && ask.http.as_ref().is_some_and(|spoken| {
                    has_method(rule, &spoken.method)
                        && has_path(rule, &spoken.path)
                        && !(spoken.is_overridden && rule.opens_tls())
                })
        })
    }

    fn header(&self) -> HeaderName {
        match &self.binding.carrier {
            Carrier::Authorization => header::AUTHORIZATION,
            Carrier::Header(name) => name.clone(),
        }
    }

    /// How the placeholder stands in a header, where it stands there as the credential would.
    fn shape(&self, value: &HeaderValue) -> Option<Shape> {
        match self.binding.carrier {
            Carrier::Authorization => placeholder::in_authorization(value, &self.placeholder),
            Carrier::Header(_) => {
                (value.as_bytes() == self.placeholder.as_bytes()).then_some(Shape::Whole)
            }
        }
    }
}

impl Broker {
    /// Of a session.
    pub fn new(bound: Vec<Bound>) -> Self {
        Broker {
            bound: bound.into_iter().map(Arc::new).collect(),
        }
    }

    /// Whether a credential is bound to a destination: TLS is opened there.
    pub(crate) fn is_bound(&self, host: &HostName, port: u16) -> bool {
        self.bound.iter().any(|bound| {
            let destinations = &bound.binding.destinations;
            destinations
                .iter()
                .any(|rule| rule.host.matches(host.as_str()) && rule.ports.contains(&port))
        })
    }

    /// What a request holds of the session's placeholders.
    ///
    /// # Errors
    /// `placeholder_misplaced` where one stands anywhere but where its credential belongs, in whatever spelling: it is sent
    /// to nobody. `is_open`: the wire is one that credentials may go over.
    pub(crate) fn claim(
        &self,
        ask: &Ask,
        head: &Parts,
        is_open: bool,
    ) -> Result<Option<Claim>, Denial> {
        let claimed = self
            .bound
            .iter()
            .filter(|bound| is_open && bound.fits(ask))
            .find_map(|bound| {
                let header = bound.header();
                let mut values = head.headers.get_all(&header).iter();
                let shape = bound.shape(values.next()?)?;
                // Two of them would be read by each server in its own way.
                values.next().is_none().then(|| Claim {
                    bound: Arc::clone(bound),
                    header,
                    shape,
                })
            });
        let others = head
            .headers
            .iter()
            .filter(|(name, _)| claimed.as_ref().is_none_or(|claim| claim.header != *name));
        let texts: Vec<&[u8]> = others
            .flat_map(|(name, value)| [name.as_str().as_bytes(), value.as_bytes()])
            .collect();
        let target = head.uri.to_string();
        let spelled = placeholder::spelled(&target);
        for bound in &self.bound {
            let stands = |text: &[u8]| bound.spellings.stand_in(text);
            if texts.iter().any(|text| stands(text)) || spelled.iter().any(|text| stands(text)) {
                return Err(Denial::PlaceholderMisplaced {
                    credential: bound.binding.name.clone(),
                    host: ask.host.clone(),
                });
            }
        }
        Ok(claimed)
    }
}

impl Claim {
    /// The name of its credential.
    pub(crate) fn name(&self) -> &str {
        &self.bound.binding.name
    }

    /// Puts the credential where its placeholder stands.
    ///
    /// # Errors
    /// `credential_unavailable` when its source does not give one.
    pub(crate) async fn fill(&self, head: &mut Parts) -> Result<Filled, Denial> {
        let unavailable = |error: &dyn fmt::Display| {
            tracing::warn!(credential = self.name(), %error, "a credential is not to be had");
            Denial::CredentialUnavailable {
                credential: self.name().to_owned(),
            }
        };
        let presented = self.bound.held.present().await;
        let presented = presented.map_err(|error| unavailable(&error))?;
        let secret = secret(&presented.carried).map_err(|error| unavailable(&error))?;
        let value = self.shape.filled(&secret);
        head.headers.insert(self.header.clone(), value);
        // What is not compressed can be looked through.
        head.headers.insert(
            header::ACCEPT_ENCODING,
            HeaderValue::from_static("identity"),
        );
        // A credential in two parts of an answer would be found in neither.
        head.headers.remove(header::RANGE);
        head.headers.remove(header::IF_RANGE);
        Ok(Filled {
            bound: Arc::clone(&self.bound),
            presented,
            unspoken: Unspoken {
                name: self.name().to_owned(),
                spellings: self.bound.spellings_of(&secret),
            },
        })
    }
}

impl Unspoken {
    /// What an answer is refused with that holds it.
    pub(crate) fn denial(&self) -> Denial {
        Denial::CredentialEchoed {
            credential: self.name.clone(),
        }
    }
}

impl Filled {
    /// The destination did not take it: its source is asked anew before the next use.
    pub(crate) fn refused(&self) {
        self.bound.held.doubt(&self.presented);
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: BTreeSet<&str> = self
            .bound
            .iter()
            .map(|bound| bound.binding.name.as_str())
            .collect();
        f.debug_tuple("Broker").field(&names).finish()
    }
}
