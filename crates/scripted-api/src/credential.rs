//! Who asked: which credential arrived, and whether it is one that is accepted.

use jiff::Timestamp;

use crate::{
    refusal::Refusal,
    request::header,
    signature::{KeyPair, Signed, verify},
};

/// A credential that is accepted. Where an API has some, a request must bring one of them.
#[derive(Clone, PartialEq, Eq)]
pub enum Accept {
    /// The header `x-api-key` with this value.
    ApiKey(String),
    /// The header `authorization: Bearer …` with this token.
    Bearer(String),
    /// A signature of AWS with this pair.
    Signature(KeyPair),
}

/// The credentials of a request as they arrived. They are made up by tests, and kept in clear text: a real key does not
/// belong here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Credential {
    /// The header `x-api-key`.
    pub api_key: Option<String>,
    /// The header `authorization`, scheme included.
    pub authorization: Option<String>,
    /// What became of them.
    pub verdict: Verdict,
}

/// What became of a request's credentials.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody asked.
    #[default]
    Unchecked,
    /// One that is accepted.
    Accepted,
    /// None that is accepted, and why.
    Refused(String),
}

impl Credential {
    pub(crate) fn judge(accept: &[Accept], request: &Signed<'_>) -> Self {
        let own = |name| header(request.headers, name).map(str::to_owned);
        let mut credential = Self {
            api_key: own("x-api-key"),
            authorization: own("authorization"),
            verdict: Verdict::Unchecked,
        };
        if accept.is_empty() {
            return credential;
        }
        let reasons: Result<Vec<String>, ()> = accept
            .iter()
            .map(|accept| match credential.check(accept, request) {
                Ok(()) => Err(()),
                Err(reason) => Ok(reason),
            })
            .collect();
        credential.verdict = match reasons {
            Err(()) => Verdict::Accepted,
            Ok(reasons) => Verdict::Refused(reasons.join("; ")),
        };
        credential
    }

    fn check(&self, accept: &Accept, request: &Signed<'_>) -> Result<(), String> {
        match accept {
            Accept::ApiKey(key) => match &self.api_key {
                Some(own) if own == key => Ok(()),
                Some(_) => Err("invalid x-api-key".to_owned()),
                None => Err("x-api-key header is required".to_owned()),
            },
            Accept::Bearer(token) => {
                let own = self
                    .authorization
                    .as_deref()
                    .and_then(|own| own.strip_prefix("Bearer "));
                match own {
                    Some(own) if own == token => Ok(()),
                    Some(_) => Err("invalid bearer token".to_owned()),
                    None => Err("authorization header with a bearer token is required".to_owned()),
                }
            }
            Accept::Signature(pair) => verify(pair, request, Timestamp::now()),
        }
    }

    pub(crate) fn refusal(&self) -> Option<Refusal> {
        match &self.verdict {
            Verdict::Unchecked | Verdict::Accepted => None,
            Verdict::Refused(reason) => Some(Refusal::new(401, reason)),
        }
    }
}
