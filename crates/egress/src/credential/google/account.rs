//! The kinds of credentials files, and how each comes to an access token.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderName, HeaderValue};
use model::Secret;
use rustls::{
    SignatureScheme,
    crypto::ring::sign::any_supported_type,
    pki_types::{PrivateKeyDer, pem::PemObject},
};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, json};

use super::{
    GoogleError, MAX_FILE_BYTES, Token,
    ask::{Asker, SCOPE, Service},
};
use crate::credential::file::{self, Guard};

/// Google's token service, where the file names none.
const TOKEN_SERVICE: &str = "https://oauth2.googleapis.com/token";
/// Longest life of an assertion that Google takes, seconds.
const ASSERTION_SECONDS: u64 = 3600;

/// A credentials file. What is not named here is not needed.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Account {
    ServiceAccount(ServiceAccount),
    AuthorizedUser(AuthorizedUser),
    ExternalAccount(ExternalAccount),
    #[serde(rename = "impersonated_service_account")]
    Impersonated(Impersonated),
}

/// A service account with its private key.
#[derive(Deserialize)]
pub(super) struct ServiceAccount {
    client_email: String,
    private_key: Secret<String>,
    private_key_id: Option<String>,
    token_uri: Option<String>,
}

/// A person who signed in.
#[derive(Deserialize)]
pub(super) struct AuthorizedUser {
    client_id: String,
    client_secret: Secret<String>,
    refresh_token: Secret<String>,
    token_uri: Option<String>,
}

/// A workload of another cloud, by exchange of its token (<https://google.aip.dev/auth/4117>).
#[derive(Deserialize)]
pub(super) struct ExternalAccount {
    audience: String,
    subject_token_type: String,
    token_url: String,
    credential_source: SubjectSource,
    service_account_impersonation_url: Option<String>,
}

/// Where the token to be exchanged stands.
#[derive(Deserialize)]
struct SubjectSource {
    file: Option<PathBuf>,
    url: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    format: Option<SubjectFormat>,
    /// A program that prints the token; never run.
    executable: Option<IgnoredAny>,
    /// `aws1`: the token is a signed request; `url` is then no place where it stands.
    environment_id: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct SubjectFormat {
    #[serde(rename = "type")]
    kind: Option<String>,
    subject_token_field_name: Option<String>,
}

/// A service account whose tokens another account may have made.
#[derive(Deserialize)]
pub(super) struct Impersonated {
    service_account_impersonation_url: String,
    source_credentials: Box<Account>,
    #[serde(default)]
    delegates: Vec<String>,
}

impl Account {
    pub(super) async fn token(&self, asker: &Asker) -> Result<Token, GoogleError> {
        match self {
            Account::ServiceAccount(account) => account.token(asker).await,
            Account::AuthorizedUser(user) => user.token(asker).await,
            Account::ExternalAccount(account) => account.token(asker).await,
            Account::Impersonated(account) => {
                let own = Box::pin(account.source_credentials.token(asker)).await?;
                let service = impersonation(&account.service_account_impersonation_url);
                asker.impersonate(&service, &own, &account.delegates).await
            }
        }
    }
}

impl ServiceAccount {
    async fn token(&self, asker: &Asker) -> Result<Token, GoogleError> {
        let service = token_service(self.token_uri.as_deref());
        let assertion = self.assertion(service.address, SystemTime::now())?;
        let grant = "urn:ietf:params:oauth:grant-type:jwt-bearer";
        let fields = [("grant_type", grant), ("assertion", assertion.expose())];
        asker.form(&service, &fields).await
    }

    /// A signed statement of who asks (RFC 7523), good for an hour.
    fn assertion(&self, audience: &str, now: SystemTime) -> Result<Secret<String>, GoogleError> {
        let now = now
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO)
            .as_secs();
        let mut head = json!({ "alg": "RS256", "typ": "JWT" });
        if let Some(id) = &self.private_key_id {
            head["kid"] = Value::from(id.as_str());
        }
        let claims = json!({
            "iss": self.client_email, "scope": SCOPE, "aud": audience, "iat": now, "exp": now + ASSERTION_SECONDS,
        });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let said = format!("{}.{}", part(&head), part(&claims));
        let signature = URL_SAFE_NO_PAD.encode(self.sign(said.as_bytes())?);
        Ok(Secret::new(format!("{said}.{signature}")))
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, GoogleError> {
        let key = PrivateKeyDer::from_pem_slice(self.private_key.expose().as_bytes())
            .map_err(|_| GoogleError::PrivateKey)?;
        let key = any_supported_type(&key).map_err(|_| GoogleError::PrivateKey)?;
        let signer = key
            .choose_scheme(&[SignatureScheme::RSA_PKCS1_SHA256])
            .ok_or(GoogleError::PrivateKey)?;
        signer.sign(message).map_err(|_| GoogleError::PrivateKey)
    }
}

impl AuthorizedUser {
    async fn token(&self, asker: &Asker) -> Result<Token, GoogleError> {
        let fields = [
            ("grant_type", "refresh_token"),
            ("client_id", self.client_id.as_str()),
            ("client_secret", self.client_secret.expose()),
            ("refresh_token", self.refresh_token.expose()),
        ];
        asker
            .form(&token_service(self.token_uri.as_deref()), &fields)
            .await
    }
}

impl ExternalAccount {
    async fn token(&self, asker: &Asker) -> Result<Token, GoogleError> {
        let subject = self.credential_source.subject(asker).await?;
        let fields = [
            (
                "grant_type",
                "urn:ietf:params:oauth:grant-type:token-exchange",
            ),
            (
                "requested_token_type",
                "urn:ietf:params:oauth:token-type:access_token",
            ),
            ("audience", self.audience.as_str()),
            ("scope", SCOPE),
            ("subject_token_type", self.subject_token_type.as_str()),
            ("subject_token", subject.expose()),
        ];
        let service = token_service(Some(&self.token_url));
        let exchanged = asker.form(&service, &fields).await?;
        match &self.service_account_impersonation_url {
            None => Ok(exchanged),
            Some(url) => {
                asker
                    .impersonate(&impersonation(url), &exchanged, &[])
                    .await
            }
        }
    }
}

impl SubjectSource {
    async fn subject(&self, asker: &Asker) -> Result<Secret<String>, GoogleError> {
        if self.executable.is_some() {
            return Err(GoogleError::Unsupported(
                "external_account by an executable",
            ));
        }
        if self.environment_id.is_some() {
            return Err(GoogleError::Unsupported(
                "external_account by signatures of AWS",
            ));
        }
        let text = match (&self.file, &self.url) {
            (Some(path), _) => {
                let (opened, _) =
                    file::open(path, Guard::OwnerWrites).map_err(GoogleError::File)?;
                file::read(opened, MAX_FILE_BYTES).map_err(GoogleError::File)?
            }
            (None, Some(url)) => {
                let answer = asker.subject(url, self.headers()?).await?;
                String::from_utf8_lossy(answer.body()).into_owned()
            }
            (None, None) => {
                return Err(GoogleError::Unsupported(
                    "external_account without a file or address",
                ));
            }
        };
        self.token_in(&Secret::new(text))
    }

    fn headers(&self) -> Result<Vec<(HeaderName, HeaderValue)>, GoogleError> {
        let place = || GoogleError::Address("place of the subject token");
        let mut headers = Vec::new();
        for (name, value) in &self.headers {
            let name = HeaderName::try_from(name).map_err(|_| place())?;
            headers.push((name, HeaderValue::try_from(value).map_err(|_| place())?));
        }
        Ok(headers)
    }

    fn token_in(&self, text: &Secret<String>) -> Result<Secret<String>, GoogleError> {
        let none = || GoogleError::NoToken("place of the subject token");
        let format = self.format.as_ref();
        let token = match format.and_then(|format| format.kind.as_deref()) {
            None | Some("text") => text.expose().trim().to_owned(),
            Some(_) => {
                let field = format.and_then(|format| format.subject_token_field_name.as_deref());
                let object: Value = serde_json::from_str(text.expose()).map_err(|_| none())?;
                let token = object[field.unwrap_or_default()].as_str();
                token.ok_or_else(none)?.to_owned()
            }
        };
        Ok(Secret::new(token))
    }
}

fn token_service(address: Option<&str>) -> Service<'_> {
    Service {
        what: "token service of Google",
        address: address.unwrap_or(TOKEN_SERVICE),
    }
}

const fn impersonation(address: &str) -> Service<'_> {
    Service {
        what: "impersonation service of Google",
        address,
    }
}
