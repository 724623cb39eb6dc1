//! The table `audit_sinks`: further places that get the records of the audit log.

use std::path::{Path, PathBuf};

use audit::{
    export::Format,
    sinks::{Facility, SinkKind, SinkSettings, SyslogAddress, WebhookSettings},
};
use serde::Deserialize;

use super::{
    ConfigError, Environment,
    layers::Given,
    named_tables::{self, absolute},
};

/// Sinks in all: each has a thread.
pub(super) const MAX_SINKS: usize = 16;
/// Where syslog daemons listen.
const SYSLOG_SOCKET: &str = "/dev/log";
/// Where systemd's journal listens.
const JOURNAL_SOCKET: &str = "/run/systemd/journal/socket";
/// What sinks there are.
pub(super) const KINDS: [&str; 5] = ["stderr", "syslog", "journald", "webhook", "file"];
/// What their records are written as.
pub(super) const FORMATS: [&str; 3] = ["jsonl", "ocsf", "cef"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    kind: String,
    format: Option<String>,
    max_lag: Option<u64>,
    address: Option<String>,
    facility: Option<String>,
    url: Option<String>,
    secret_file: Option<String>,
    ca_file: Option<String>,
    path: Option<String>,
}

/// Reads the table.
///
/// # Errors
/// For a sink of no kind, without what its kind needs, or with what only another kind has.
pub(super) fn read(
    given: &Given,
    environment: &Environment,
) -> Result<Vec<SinkSettings>, ConfigError> {
    let wrong = |name, origin, why| ConfigError::AuditSink { name, origin, why };
    named_tables::read(given, MAX_SINKS, wrong, |name, table| {
        one(name, table, environment)
    })
}

fn one(name: &str, mut table: Table, environment: &Environment) -> Result<SinkSettings, String> {
    let format = match table.format.take() {
        None => Format::default(),
        Some(text) => Format::named(&text)
            .ok_or_else(|| format!("`format` must be one of {}", FORMATS.join(", ")))?,
    };
    if table.max_lag == Some(0) {
        return Err("`max_lag` is at least 1".to_owned());
    }
    let max_lag = table.max_lag.take();
    let kind = kind(&mut table, environment)?;
    match leftover(&table) {
        Some(key) => Err(format!("`{key}` is not for the kind {}", kind.as_str())),
        None => Ok(SinkSettings {
            name: name.to_owned(),
            kind,
            format,
            max_lag,
        }),
    }
}

/// Takes what the kind has from the table.
fn kind(table: &mut Table, environment: &Environment) -> Result<SinkKind, String> {
    let path = |value: &mut Option<String>, key: &str| {
        value
            .take()
            .map(|text| absolute(&text, key, environment))
            .transpose()
    };
    match table.kind.as_str() {
        "stderr" => Ok(SinkKind::Stderr),
        "syslog" => {
            let facility = match table.facility.take() {
                None => Facility::LOG_AUDIT,
                Some(name) => Facility::named(&name).ok_or(
                    "`facility` must be one of audit, auth, authpriv, daemon, user, local0 to local7",
                )?,
            };
            let address = table.address.take();
            let address = address.as_deref().unwrap_or(SYSLOG_SOCKET);
            Ok(SinkKind::Syslog {
                address: syslog_address(address)?,
                facility,
            })
        }
        "journald" => Ok(SinkKind::Journald {
            socket: path(&mut table.path, "path")?.unwrap_or_else(|| JOURNAL_SOCKET.into()),
        }),
        "webhook" => {
            let secret_file = path(&mut table.secret_file, "secret_file")?;
            let ca_file = path(&mut table.ca_file, "ca_file")?;
            let url = table.url.take().ok_or("`url` is missing")?;
            let settings = WebhookSettings::new(&url, secret_file, ca_file);
            settings
                .map(SinkKind::Webhook)
                .map_err(|why| format!("`url` cannot be used: {why}"))
        }
        "file" => Ok(SinkKind::File {
            path: path(&mut table.path, "path")?.ok_or("`path` is missing")?,
        }),
        _ => Err(format!("`kind` must be one of {}", KINDS.join(", "))),
    }
}

/// A second file that is the log, or that could be taken for one of its files, would end the log or be removed as one of them.
pub(super) fn check_apart(
    sinks: &[SinkSettings],
    log: &Path,
    given: &Given,
) -> Result<(), ConfigError> {
    let place = |path: &Path| {
        let parent = path.parent().unwrap_or(Path::new("/"));
        parent.canonicalize().unwrap_or_else(|_| parent.to_owned())
    };
    let name = |path: &Path| {
        path.file_name()
            .unwrap_or_default()
            .as_encoded_bytes()
            .to_vec()
    };
    for sink in sinks {
        if let SinkKind::File { path } = &sink.kind
            && place(path) == place(log)
            && name(path).starts_with(&name(log))
        {
            return Err(ConfigError::AuditSink {
                name: sink.name.clone(),
                origin: given.origin.clone(),
                why: "`path` is the audit log itself, or could be taken for one of its files"
                    .to_owned(),
            });
        }
    }
    Ok(())
}

fn syslog_address(text: &str) -> Result<SyslogAddress, String> {
    let Some(address) = text.strip_prefix("tcp://") else {
        let path = PathBuf::from(text.strip_prefix("unix://").unwrap_or(text));
        return match path.is_absolute() {
            true => Ok(SyslogAddress::Datagram(path)),
            false => Err(
                "`address` must be an absolute path, or tcp:// with address and port".to_owned(),
            ),
        };
    };
    let address = address
        .parse()
        .map_err(|_| "`address` needs a numeric address and a port after tcp://")?;
    SyslogAddress::tcp(address).ok_or_else(|| {
        "`address` is not on this machine: syslog over TCP is not secret, so let a relay here carry it further".to_owned()
    })
}

/// A key that no kind took.
fn leftover(table: &Table) -> Option<&'static str> {
    let left = [
        ("address", &table.address),
        ("facility", &table.facility),
        ("url", &table.url),
        ("secret_file", &table.secret_file),
        ("ca_file", &table.ca_file),
        ("path", &table.path),
    ];
    left.into_iter()
        .find_map(|(key, value)| value.is_some().then_some(key))
}

#[cfg(test)]
mod tests {
    use toml::Value;

    use super::*;
    use crate::config::layers::Origin;

    fn read_with(text: &str) -> Result<Vec<SinkSettings>, String> {
        let given = Given {
            value: Value::Table(text.parse().unwrap()),
            origin: Origin::Flag("--set"),
        };
        let environment = Environment::of(1000, [("HOME", "/home/me")]);
        read(&given, &environment).map_err(|error| error.to_string())
    }

    #[test]
    fn a_second_file_is_none_of_the_logs_own() {
        let given = Given {
            value: Value::Table(toml::Table::new()),
            origin: Origin::Flag("--set"),
        };
        let check = |path: &str| {
            let sinks = read_with(&format!(r#"a = {{ kind = "file", path = "{path}" }}"#)).unwrap();
            check_apart(&sinks, Path::new("/nowhere/audit.jsonl"), &given)
        };
        for own in ["/nowhere/audit.jsonl", "/nowhere/audit.jsonl.copy"] {
            assert!(check(own).is_err(), "{own}");
        }
        for other in ["/elsewhere/audit.jsonl", "/nowhere/copy.jsonl"] {
            assert!(check(other).is_ok(), "{other}");
        }
    }

    /// A4: such a configuration is refused as a whole, also where the file has another name by a link.
    #[test]
    fn a_configuration_whose_sink_is_the_log_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let (log, file) = (scratch.path().join("log"), scratch.path().join("config"));
        std::fs::create_dir(&log).unwrap();
        std::os::unix::fs::symlink(&log, scratch.path().join("link")).unwrap();
        let load = |sink: &str| {
            let base = scratch.path().display();
            let text = format!(
                "audit_log = \"{base}/log/audit.jsonl\"\n\
                 audit_sinks.copy = {{ kind = \"file\", path = \"{base}/{sink}\" }}\n"
            );
            std::fs::write(&file, text).unwrap();
            let flags = crate::config::Flags {
                config: Some(file.clone()),
                ..crate::config::Flags::default()
            };
            let uid = rustix::process::geteuid().as_raw();
            crate::config::load(&flags, &Environment::of(uid, [("HOME", "/home/someone")]))
        };
        for own in [
            "log/audit.jsonl",
            "link/audit.jsonl",
            "link/audit.jsonl.key",
        ] {
            let refused = load(own).expect_err(own);
            assert!(
                refused
                    .to_string()
                    .contains("`path` is the audit log itself"),
                "{own}: {refused}"
            );
        }
        for other in ["copy.jsonl", "link/copy.jsonl"] {
            assert!(load(other).is_ok(), "{other}");
        }
    }

    #[test]
    fn each_kind_is_read_with_what_it_has() {
        let read = read_with(
            r#"
            a = { kind = "stderr", format = "cef" }
            b = { kind = "syslog" }
            c = { kind = "syslog", address = "tcp://127.0.0.1:601", facility = "local3", format = "ocsf" }
            d = { kind = "journald" }
            e = { kind = "webhook", url = "https://siem.example/in", secret_file = "~/secret", max_lag = 100000 }
            f = { kind = "file", path = "/mnt/other/audit.jsonl" }
            "#,
        )
        .unwrap();
        let mut kinds: Vec<_> = read.iter().map(|sink| sink.kind.as_str()).collect();
        assert_eq!(kinds.remove(2), "syslog");
        assert_eq!(kinds, KINDS);
        assert!(FORMATS.iter().all(|format| Format::named(format).is_some()));
        assert_eq!(read[0].format, Format::Cef);
        assert_eq!(
            read[1].kind,
            SinkKind::Syslog {
                address: SyslogAddress::Datagram("/dev/log".into()),
                facility: Facility::LOG_AUDIT
            }
        );
        assert_eq!(
            read[2].kind,
            SinkKind::Syslog {
                address: SyslogAddress::tcp("127.0.0.1:601".parse().unwrap()).unwrap(),
                facility: Facility::named("local3").unwrap()
            }
        );
        let secret = Some("/home/me/secret".into());
        let hook = WebhookSettings::new("https://siem.example/in", secret, None).unwrap();
        assert_eq!(
            (&read[4].kind, read[4].max_lag),
            (&SinkKind::Webhook(hook), Some(100_000))
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, words) in [
            (r#"a = 1"#, "expected"),
            (r#"a = { }"#, "missing field `kind`"),
            (r#"a = { kind = "kafka" }"#, "one of stderr"),
            (
                r#"a = { kind = "stderr", path = "/x" }"#,
                "`path` is not for the kind stderr",
            ),
            (
                r#"a = { kind = "stderr", colour = "red" }"#,
                "unknown field",
            ),
            (
                r#"a = { kind = "stderr", format = "xml" }"#,
                "jsonl, ocsf, cef",
            ),
            (r#"a = { kind = "stderr", max_lag = 0 }"#, "at least 1"),
            (
                r#"a = { kind = "syslog", address = "udp://127.0.0.1:514" }"#,
                "absolute path",
            ),
            (
                r#"a = { kind = "syslog", address = "tcp://192.0.2.1:514" }"#,
                "not on this machine",
            ),
            (
                r#"a = { kind = "syslog", address = "tcp://localhost" }"#,
                "numeric",
            ),
            (
                r#"a = { kind = "syslog", facility = "mail" }"#,
                "`facility`",
            ),
            (r#"a = { kind = "webhook" }"#, "`url` is missing"),
            (
                r#"a = { kind = "webhook", url = "http://siem.example" }"#,
                "use https://",
            ),
            (
                r#"a = { kind = "webhook", url = "https://me:x@siem.example" }"#,
                "secret_file",
            ),
            (r#"a = { kind = "file" }"#, "`path` is missing"),
            (r#"a = { kind = "file", path = "x" }"#, "absolute"),
            (r#"A = { kind = "stderr" }"#, "small letters"),
            (r#""../a" = { kind = "stderr" }"#, "small letters"),
        ] {
            let error = read_with(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
