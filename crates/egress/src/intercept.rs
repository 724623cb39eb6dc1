//! TLS opened by choice: for a destination with a rule about methods or paths, or with a credential bound to it, and for no
//! other.
//!
//! Reading order: whose certificates the sandbox believes ([`Authority`], [`Interception`]), which credential goes where
//! ([`Binding`], [`Broker`]), how a placeholder becomes one on its way out (`placeholder`), and that none comes back (`echo`,
//! `spelling`). The proxy serves what it reads of an opened tunnel as it serves plain HTTP.
//!
//! What this does not stop: a credential used as its destination allows, an answer that tells it in another spelling than
//! those of `spelling`, and a placeholder in the body of a request, which is passed on as it is.

mod authority;
mod binding;
mod echo;
mod placeholder;
mod spelling;
mod upstream;

use std::{fmt, sync::Arc};

use rustls::ServerConfig;

use crate::relay::{Trust, TrustError};

pub use authority::{Authority, AuthorityError};
pub use binding::{Binding, BindingError, Bound, Broker, Carrier};

pub(crate) use binding::{Claim, Unspoken};
pub(crate) use echo::{EchoError, Unechoed, look_at};
pub(crate) use upstream::Upstream;

/// Both sides of opened tunnels, for all sessions of a server.
pub struct Interception {
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) upstream: Upstream,
    certificates: String,
}

impl Interception {
    /// With an authority that sandboxes believe, and those that the server believes.
    ///
    /// # Errors
    /// When TLS cannot be set up with them.
    pub fn new(authority: &Arc<Authority>, trust: &Trust) -> Result<Arc<Self>, TrustError> {
        Ok(Arc::new(Interception {
            server: authority.server_config().map_err(TrustError::Tls)?,
            upstream: Upstream::new(trust)?,
            certificates: upstream::roots_pem(trust) + authority.pem(),
        }))
    }

    /// What a sandbox believes that has tunnels opened, PEM: the authority, and whom the server believes, since its other
    /// tunnels lead to these.
    pub fn certificates(&self) -> &str {
        &self.certificates
    }
}

impl fmt::Debug for Interception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interception").finish_non_exhaustive()
    }
}
