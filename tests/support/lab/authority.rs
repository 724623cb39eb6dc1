//! The authority of the laboratory, and certificates as a server presents them: right ones, and three kinds of wrong ones.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    date_time_ymd,
};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

/// Vouches for any name.
#[derive(Debug, Clone)]
pub(super) struct Authority(Arc<CertifiedIssuer<'static, KeyPair>>);

impl Authority {
    pub fn new() -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).expect("parameters");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters
            .distinguished_name
            .push(rcgen::DnType::CommonName, "Laboratory");
        let key = KeyPair::generate().expect("a key");
        Authority(Arc::new(
            CertifiedIssuer::self_signed(parameters, key).expect("an authority"),
        ))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// TLS as the name in a client's greeting wants it.
    pub fn server(&self) -> Arc<ServerConfig> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(self.clone()));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    }

    fn certify(&self, name: &str) -> CertifiedKey {
        let shown = match name {
            "wrong-name.example.com" => "somebody-else.example.net",
            _ => name,
        };
        let mut parameters = CertificateParams::new(vec![shown.to_owned()]).expect("parameters");
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        if name == "expired.example.com" {
            parameters.not_after = date_time_ymd(2020, 1, 1);
        }
        let key = KeyPair::generate().expect("a key");
        let certificate: CertificateDer<'static> = if name == "self-signed.example.com" {
            parameters.self_signed(&key).expect("signed").into()
        } else {
            parameters.signed_by(&key, &*self.0).expect("signed").into()
        };
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signing = ring::sign::any_supported_type(&private).expect("a signing key");
        CertifiedKey::new(vec![certificate], signing)
    }
}

impl ResolvesServerCert for Authority {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().unwrap_or("nobody.example.com");
        Some(Arc::new(self.certify(name)))
    }
}
