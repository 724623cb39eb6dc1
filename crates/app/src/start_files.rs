//! The files that a server opens once, at its start: whether it could, and what it would say. Looked at without a server; nothing
//! is made, locked or changed.
//!
//! What this does not look at: the content of the state database and of the audit log, and files of an engine's client
//! (`DOCKER_CERT_PATH`), which the engine's answer decides on.

use std::io;

use anyhow::Context;
use audit::{AuditLog, IdentityKey};
use http_door::Door;
use store::Pepper;

use crate::{
    audit_sinks, backends,
    config::{Config, PathsError, Problem, check_private_directory},
    server::ElectionError,
};

/// What is said where the audit log cannot be opened.
pub(crate) const LOG_UNUSABLE: &str =
    "the audit log cannot be used (MCP_AUDIT_LOG, or `audit_log` in the configuration file)";
/// Where the key of its identities cannot.
pub(crate) const IDENTITY_KEY_UNUSABLE: &str =
    "the key of the audit log's identities cannot be used";
/// Where the pepper of the keys of remote callers cannot.
pub(crate) const PEPPER_UNUSABLE: &str = "the pepper of the API keys cannot be used";

/// Which of them cannot be used.
pub(crate) fn problems(config: &Config) -> Vec<Problem> {
    let named = |key: &'static str| {
        move |error: anyhow::Error| config.unusable_file(Some(key.to_owned()), format!("{error:#}"))
    };
    let own = in_state_directory(config).into_iter();
    own.map(|error| config.unusable_file(None, format!("{error:#}")))
        .chain(log(config).map(named("audit_log")))
        .chain(
            audit_sinks::problems(config)
                .into_iter()
                .map(named("audit_sinks")),
        )
        .chain(door(config))
        .chain(backends::root_problem(config).map(named("native_root")))
        .collect()
}

/// The state directory and what the server keeps there.
fn in_state_directory(config: &Config) -> Vec<anyhow::Error> {
    let paths = &config.paths;
    match check_private_directory(&paths.state_dir, paths.uid()) {
        Ok(()) => {}
        // The server makes it.
        Err(PathsError::Make { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Vec::new();
        }
        Err(error) => return vec![ElectionError::StateDirectory(error).into()],
    }
    let looked = [
        IdentityKey::check(&paths.audit_identity_key()).context(IDENTITY_KEY_UNUSABLE),
        Pepper::check(&paths.pepper()).context(PEPPER_UNUSABLE),
    ];
    looked.into_iter().filter_map(Result::err).collect()
}

fn log(config: &Config) -> Option<anyhow::Error> {
    let directory = config.audit_log.parent();
    if directory == Some(config.paths.state_dir.as_path()) && !config.paths.state_dir.exists() {
        return None;
    }
    AuditLog::check(&config.audit_log)
        .context(LOG_UNUSABLE)
        .err()
}

/// The certificate of the HTTP door.
fn door(config: &Config) -> Option<Problem> {
    let settings = config.http.as_ref()?;
    let error = Door::check_files(settings).err()?;
    let key = match error.path() {
        Some(path) if settings.tls.as_ref().is_some_and(|tls| tls.key == path) => "http_tls_key",
        Some(_) | None => "http_tls_cert",
    };
    let message = format!("{:#}", anyhow::Error::new(error));
    Some(config.unusable_file(Some(key.to_owned()), message))
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        fs,
        os::unix::fs::PermissionsExt,
        path::{Path, PathBuf},
    };

    use audit::AuditConfig;
    use model::OwnerId;

    use super::*;
    use crate::{
        audit_sinks::StandardError,
        config::{Environment, Flags, load},
        reload::inspect_whole,
    };

    /// A directory with everything that this configuration names, as it should be.
    struct Case(tempfile::TempDir);

    impl Case {
        fn new() -> Self {
            let case = Case(tempfile::tempdir().unwrap());
            let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            case.write("cert.pem", &made.cert.pem(), 0o644);
            case.write("key.pem", &made.signing_key.serialize_pem(), 0o600);
            case.write("ca.pem", &made.cert.pem(), 0o644);
            case.write("secret", "0123456789abcdef\n", 0o600);
            fs::create_dir_all(case.path("root/bin")).unwrap();
            case.write("root/bin/sh", "", 0o755);
            case.directory("root", 0o755);
            case.directory("state", 0o700);
            case.directory("log", 0o700);
            case.write("state/audit-identity.key", &"ab".repeat(32), 0o600);
            case.write("state/keys.pepper", &"p".repeat(32), 0o600);
            case.write("config.toml", &case.text(), 0o600);
            case
        }

        fn text(&self) -> String {
            let base = self.0.path().display();
            format!(
                "audit_log = \"{base}/log/audit.jsonl\"\n\
                 http_listen = \"127.0.0.1:0\"\n\
                 http_tls_cert = \"{base}/cert.pem\"\n\
                 http_tls_key = \"{base}/key.pem\"\n\
                 backend = \"native\"\n\
                 native_root = \"{base}/root\"\n\
                 [audit_sinks.siem]\n\
                 kind = \"webhook\"\n\
                 url = \"https://siem.example/in\"\n\
                 secret_file = \"{base}/secret\"\n\
                 ca_file = \"{base}/ca.pem\"\n"
            )
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn write(&self, name: &str, content: &str, mode: u32) {
            fs::write(self.path(name), content).unwrap();
            self.directory(name, mode);
        }

        fn directory(&self, name: &str, mode: u32) {
            let path = self.path(name);
            if !path.exists() {
                fs::create_dir(&path).unwrap();
            }
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }

        fn flags(&self) -> Flags {
            Flags {
                config: Some(self.path("config.toml")),
                state_dir: Some(self.path("state")),
                ..Flags::default()
            }
        }

        fn environment(&self) -> Environment {
            let uid = rustix::process::geteuid().as_raw();
            Environment::of(uid, [("HOME", self.0.path().to_str().unwrap())])
        }

        fn config(&self) -> Config {
            load(&self.flags(), &self.environment()).unwrap()
        }

        /// Key, line and sentence of each problem that `config check` finds.
        fn problems(&self) -> Vec<(Option<String>, Option<u32>, String)> {
            let found = inspect_whole(&self.flags(), &self.environment());
            let told = |problem: Problem| {
                assert_eq!(problem.code, "file_unusable", "{problem:?}");
                let line = problem.place.and_then(|place| match place {
                    crate::config::Place::File { line, .. } => line,
                    crate::config::Place::Variable(_) | crate::config::Place::Flag(_) => None,
                });
                (problem.key, line, problem.message)
            };
            found.problems.into_iter().map(told).collect()
        }

        /// The only problem that `config check` finds.
        fn problem(&self) -> (Option<String>, Option<u32>, String) {
            let mut found = self.problems();
            assert_eq!(found.len(), 1, "{found:?}");
            found.remove(0)
        }

        fn everything(&self) -> BTreeSet<PathBuf> {
            fn below(path: &Path, found: &mut BTreeSet<PathBuf>) {
                for entry in fs::read_dir(path).unwrap() {
                    let path = entry.unwrap().path();
                    if path.is_dir() {
                        below(&path, found);
                    }
                    found.insert(path);
                }
            }
            let mut found = BTreeSet::new();
            below(self.0.path(), &mut found);
            found
        }
    }

    /// A file, what becomes of it, and the key and the words that tell of it.
    type Row = (
        &'static str,
        fn(&Path),
        Option<&'static str>,
        &'static [&'static str],
    );

    fn remove(path: &Path) {
        fs::remove_file(path).unwrap();
    }

    fn open_to_others(path: &Path) {
        let mode = fs::metadata(path).unwrap().permissions().mode();
        fs::set_permissions(path, fs::Permissions::from_mode(mode | 0o066)).unwrap();
    }

    fn spoil(path: &Path) {
        fs::write(path, "short").unwrap();
    }

    fn make_and_open(path: &Path) {
        fs::write(path, "").unwrap();
        open_to_others(path);
    }

    const ROWS: &[Row] = &[
        ("secret", remove, Some("audit_sinks"), &["No such file"]),
        (
            "secret",
            open_to_others,
            Some("audit_sinks"),
            &["`siem`", "chmod 600"],
        ),
        ("secret", spoil, Some("audit_sinks"), &["at least 16 bytes"]),
        ("ca.pem", remove, Some("audit_sinks"), &["No such file"]),
        (
            "ca.pem",
            spoil,
            Some("audit_sinks"),
            &["holds no certificate"],
        ),
        (
            "cert.pem",
            remove,
            Some("http_tls_cert"),
            &["cert.pem", "No such file"],
        ),
        (
            "cert.pem",
            spoil,
            Some("http_tls_cert"),
            &["holds no certificate"],
        ),
        (
            "key.pem",
            remove,
            Some("http_tls_key"),
            &["key.pem", "No such file"],
        ),
        (
            "key.pem",
            open_to_others,
            Some("http_tls_key"),
            &["chmod 600"],
        ),
        (
            "root/bin/sh",
            remove,
            Some("native_root"),
            &["holds no /bin/sh"],
        ),
        ("log", open_to_others, Some("audit_log"), &["chmod go-w"]),
        (
            "log/audit.jsonl",
            make_and_open,
            Some("audit_log"),
            &["chmod go-w"],
        ),
        (
            "log/audit.jsonl.key",
            make_and_open,
            Some("audit_log"),
            &["others may"],
        ),
        (
            "state/audit-identity.key",
            open_to_others,
            None,
            &["chmod 600"],
        ),
        (
            "state/audit-identity.key",
            spoil,
            None,
            &["64 hexadecimal digits"],
        ),
        (
            "state/keys.pepper",
            open_to_others,
            None,
            &["no secret any more"],
        ),
        ("state/keys.pepper", spoil, None, &["its length is wrong"]),
        ("state", open_to_others, None, &["chmod 700"]),
    ];

    /// A1, A4, S1: whatever of its files would keep a server from starting is told without one.
    #[test]
    fn a_file_that_a_server_could_not_use_at_its_start_is_told_by_the_check() {
        for (file, damage, key, words) in ROWS {
            let case = Case::new();
            damage(&case.path(file));
            let (found, line, message) = case.problem();
            assert_eq!(found.as_deref(), *key, "{file}: {message}");
            assert_eq!(line.is_some(), key.is_some(), "{file}: {message}");
            for word in *words {
                assert!(message.contains(word), "{file}: {word}: {message}");
            }
        }
    }

    /// The control, and what a check leaves: nothing.
    #[test]
    fn a_check_of_what_is_as_it_should_be_finds_nothing_and_makes_nothing() {
        let case = Case::new();
        let before = case.everything();
        assert_eq!(case.problems(), []);
        // Nor where the server would make what is missing.
        for made_by_the_server in ["state/keys.pepper", "state/audit-identity.key"] {
            remove(&case.path(made_by_the_server));
        }
        assert_eq!(case.problems(), []);
        assert_eq!(before.len() - 2, case.everything().len());
        fs::remove_dir(case.path("state")).unwrap();
        assert_eq!(case.problems(), []);
        assert!(!case.path("state").exists());
    }

    /// A4, S1: in the words of the server.
    #[tokio::test]
    async fn the_check_says_what_the_server_would_say() {
        let case = Case::new();
        open_to_others(&case.path("secret"));
        let started = audit_sinks::start(&case.config(), StandardError::OfTheOperator);
        let refused = format!("{:#}", started.err().expect("no sinks"));
        assert_eq!(case.problem().2, refused);

        let case = Case::new();
        remove(&case.path("key.pem"));
        let settings = case.config().http.expect("a door");
        let refused = Door::open(settings, true).await.err().expect("no door");
        assert_eq!(
            case.problem().2,
            format!("{:#}", anyhow::Error::new(refused))
        );

        let case = Case::new();
        open_to_others(&case.path("log"));
        let config = AuditConfig::new(
            case.path("log/audit.jsonl"),
            OwnerId::from_bytes([1; 8]),
            IdentityKey::from_bytes(&[1; 32]),
        );
        let refused = AuditLog::open(config).map(drop).context(LOG_UNUSABLE);
        let refused = format!("{:#}", refused.expect_err("no log"));
        assert_eq!(case.problem().2, refused);
    }
}
