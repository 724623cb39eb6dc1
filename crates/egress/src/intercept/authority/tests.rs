use std::os::unix::fs::PermissionsExt;

use rustls::pki_types::{ServerName, UnixTime};
use rustls::{RootCertStore, client::WebPkiServerVerifier, client::danger::ServerCertVerifier};

use super::*;

fn host(name: &str) -> HostName {
    HostName::parse(name.as_bytes()).unwrap()
}

fn directory() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca");
    (directory, path)
}

/// Whether who believes this authority, and nobody else, believes the certificate for that name.
fn is_believed(authority: &Authority, leaf: &CertifiedKey, name: &str) -> bool {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    verifier
        .verify_server_cert(&leaf.cert[0], &leaf.cert[1..], &name, &[], UnixTime::now())
        .is_ok()
}

#[test]
fn it_is_made_once_and_its_key_is_for_its_owner_alone() {
    let (_directory, path) = directory();
    let made = Authority::open(&path).unwrap();
    let found = Authority::open(&path).unwrap();
    assert_eq!(made.pem(), found.pem());
    let leaf = found.leaf(&host("a.example")).unwrap();
    assert!(is_believed(&made, &leaf, "a.example"));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&path), 0o700);
    assert_eq!(mode(&path.join(KEY_FILE)), 0o600);
    let (_other, other) = self::directory();
    let other = Authority::open(&other).unwrap();
    assert!(!is_believed(&other, &leaf, "a.example"));
}

#[test]
fn a_leaf_stands_for_one_host() {
    let (_directory, path) = directory();
    let authority = Authority::open(&path).unwrap();
    let leaf = authority.leaf(&host("a.example")).unwrap();
    for name in ["b.example", "x.a.example", "example"] {
        assert!(!is_believed(&authority, &leaf, name), "{name}");
    }
    let again = authority.leaf(&host("a.example")).unwrap();
    assert!(Arc::ptr_eq(&leaf, &again), "it is kept");
    for number in 0..2 * MAX_LEAVES {
        authority
            .leaf(&host(&format!("h{number}.example")))
            .unwrap();
    }
    assert!(authority.leaves.lock().unwrap().len() <= MAX_LEAVES);
}

#[test]
fn files_that_others_could_read_or_changed_are_refused_and_say_what_to_do() {
    let (_directory, path) = directory();
    Authority::open(&path).unwrap();
    let key = path.join(KEY_FILE);
    let certificate = path.join(CERTIFICATE_FILE);
    let set = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let refused = || Authority::open(&path).unwrap_err().to_string();
    set(&key, 0o640);
    assert!(refused().contains("chmod 600"), "{}", refused());
    set(&key, 0o600);
    set(&certificate, 0o666);
    assert!(refused().contains("chmod 600"));
    set(&certificate, 0o600);
    Authority::open(&path).unwrap();
    // Another authority's certificate.
    let (_other, other) = self::directory();
    Authority::open(&other).unwrap();
    fs::copy(other.join(CERTIFICATE_FILE), &certificate).unwrap();
    assert!(refused().contains("remove the directory"));
    fs::write(&certificate, "nothing").unwrap();
    assert!(refused().contains("remove the directory"));
    // One that is gone is made again, of the same key.
    fs::remove_file(&certificate).unwrap();
    Authority::open(&path).unwrap();
    fs::remove_file(&key).unwrap();
    std::os::unix::fs::symlink(other.join(KEY_FILE), &key).unwrap();
    assert!(matches!(
        Authority::open(&path),
        Err(AuthorityError::File { .. })
    ));
}
