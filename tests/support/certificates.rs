//! Certificates of the tests' own: an authority, an engine's, a client's.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    date_time_ymd,
};

/// An authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum For {
    /// The engine at loopback.
    Engine,
    /// The engine of that name.
    EngineCalled(&'static str),
    /// A client.
    Client,
}

impl Authority {
    pub fn new() -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).expect("parameters");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Authority(CertifiedIssuer::self_signed(parameters, key).expect("an authority"))
    }

    /// Writes the authority's own certificate as `ca.pem`.
    pub fn write(&self, directory: &Path) {
        fs::write(directory.join("ca.pem"), self.0.pem()).expect("written");
    }

    /// Writes a certificate and its key: `cert.pem` and `key.pem`, or `engine.pem` and `engine-key.pem`.
    pub fn sign(&self, directory: &Path, purpose: For, expired: bool) {
        let (names, usage) = match purpose {
            For::Engine => (vec!["127.0.0.1"], ExtendedKeyUsagePurpose::ServerAuth),
            For::EngineCalled(name) => (vec![name], ExtendedKeyUsagePurpose::ServerAuth),
            For::Client => (Vec::new(), ExtendedKeyUsagePurpose::ClientAuth),
        };
        let names: Vec<_> = names.into_iter().map(str::to_owned).collect();
        let mut parameters = CertificateParams::new(names).expect("parameters");
        parameters.extended_key_usages = vec![usage];
        if expired {
            parameters.not_after = date_time_ymd(2020, 1, 1);
        }
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters.signed_by(&key, &self.0).expect("signed");
        let (certificate_name, key_name) = match purpose {
            For::Client => ("cert.pem", "key.pem"),
            For::Engine | For::EngineCalled(_) => ("engine.pem", "engine-key.pem"),
        };
        fs::write(directory.join(certificate_name), certificate.pem()).expect("written");
        let path = directory.join(key_name);
        fs::write(&path, key.serialize_pem()).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("mode");
    }

    /// All that an engine at loopback and its client need.
    pub fn equip(directory: &Path) -> Self {
        let authority = Self::new();
        authority.write(directory);
        authority.sign(directory, For::Engine, false);
        authority.sign(directory, For::Client, false);
        authority
    }
}
