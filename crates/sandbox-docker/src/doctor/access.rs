//! Whether whoever may speak to the engine is root on this machine, and why: by the socket, by who listens at it, and by
//! what the engine says of itself.
//!
//! What this does not show: other ways to the same engine, such as a proxy of its socket or a client's certificate.

use std::{
    fs,
    os::unix::{
        fs::{FileTypeExt, MetadataExt},
        net::UnixStream,
    },
    path::Path,
};

use bollard::models::SystemInfo;
use rustix::net::sockopt::socket_peercred;
use serde::Serialize;

use crate::{
    DockerConfig,
    address::{Address, is_elsewhere},
    machine::has_option,
};

/// Port of an engine that listens without encryption, by custom.
const PLAIN_PORT: u16 = 2375;
/// State of a socket that listens, in `/proc/net/tcp`.
const LISTENING: &str = "0A";
/// What an engine says in its warnings when it listens without encryption.
const PLAIN_WARNING: &str = "API is accessible on";

/// What kind of access to the machine the engine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum EngineKind {
    /// Its containers' root is the machine's.
    Rootful,
    /// It runs as an ordinary user.
    Rootless,
    /// Containers are mapped to other ids, unless one is asked for that is not.
    UsernsRemapped,
    /// Not on this machine.
    Remote,
    /// There is none, or it does not answer.
    Unknown,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Access {
    /// What kind of engine it is.
    pub kind: EngineKind,
    /// Whoever may speak to it is root, on the machine that it runs on.
    pub equals_root: bool,
    /// Why, and for whom; one sentence each.
    pub why: Vec<String>,
    /// The socket, where it is one of this machine.
    pub socket: Option<Socket>,
    /// What is open wider than it need be.
    pub findings: Vec<Opening>,
}

/// A socket of the engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Socket {
    /// Where.
    pub path: String,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Name of that group, if it has one.
    pub group: Option<String>,
    /// Members that the group's list names.
    pub members: Vec<String>,
    /// Permissions, in octal.
    pub mode: String,
    /// Effective uid of whoever listens at it; `None` when it could not be asked.
    pub listener_uid: Option<u32>,
}

/// A way to the engine that is too wide.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Opening {
    /// What was found.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

/// Looks at the socket and the machine; `info` is what the engine says, where it answers. Asks the engine nothing.
pub fn access(config: &DockerConfig, info: Option<&SystemInfo>) -> Access {
    let path = match config.address() {
        Ok(Address::Unix(path)) => path,
        Ok(address @ (Address::Tls { .. } | Address::Plain { .. })) => {
            return over_tcp(&address, info);
        }
        Err(_) => return not_spoken_to(config.docker_host.as_deref().unwrap_or_default()),
    };
    let socket = socket(&path);
    let kind = info.map_or(EngineKind::Unknown, kind);
    let listener_uid = socket.as_ref().and_then(|socket| socket.listener_uid);
    let equals_root = match kind {
        EngineKind::Rootless => false,
        EngineKind::Rootful | EngineKind::UsernsRemapped | EngineKind::Remote => true,
        EngineKind::Unknown => listener_uid == Some(0),
    };
    let mut findings: Vec<_> = socket.iter().filter_map(world_writable).collect();
    findings.extend(plain_listener(info, &listening_tcp()));
    Access {
        why: why(kind, equals_root, socket.as_ref()),
        kind,
        equals_root,
        socket,
        findings,
    }
}

fn kind(info: &SystemInfo) -> EngineKind {
    if has_option(info, "rootless") {
        EngineKind::Rootless
    } else if has_option(info, "userns") {
        EngineKind::UsernsRemapped
    } else {
        EngineKind::Rootful
    }
}

/// An engine that is spoken to over TCP; on which machine it is shows elsewhere (`posture`).
fn over_tcp(address: &Address, info: Option<&SystemInfo>) -> Access {
    let kind = info.map_or(EngineKind::Remote, kind);
    let equals_root = kind != EngineKind::Rootless;
    let mut why = why(kind, equals_root, None);
    let is_plain = matches!(address, Address::Plain { .. });
    why.push(if is_plain {
        format!("every user and every process of this machine may speak to it: {address}")
    } else {
        format!("whoever has the client's certificate may speak to it: {address}")
    });
    let plain = || Opening {
        what: format!("the engine at {address} asks nobody who he is and encrypts nothing"),
        remedy: "use a unix:// socket, or TLS with client certificates (DOCKER_TLS_VERIFY=1)"
            .to_owned(),
    };
    Access {
        kind,
        equals_root,
        why,
        socket: None,
        findings: is_plain.then(plain).into_iter().collect(),
    }
}

/// An address that is refused: what is known of the engine there is what the address says.
fn not_spoken_to(host: &str) -> Access {
    let is_plain = host.starts_with("tcp://") || host.starts_with("http://");
    let plain = || Opening {
        what: format!(
            "DOCKER_HOST={host} may be spoken to without encryption: whoever reaches that address may do all that the engine can"
        ),
        remedy:
            "use the engine of this machine (unix://…), or at least TLS with client certificates"
                .to_owned(),
    };
    let (kind, why) = match is_elsewhere(host) {
        Some(true) => (
            EngineKind::Remote,
            "the engine is not on this machine; unless it is rootless there, whoever may speak to it is root there".to_owned(),
        ),
        Some(false) => (
            EngineKind::Unknown,
            format!("every user and every process of this machine may speak to {host}; nothing is known of it, since it was not asked"),
        ),
        None => (
            EngineKind::Unknown,
            format!("DOCKER_HOST={host} is no address that is understood, so nothing is known of an engine"),
        ),
    };
    Access {
        kind,
        equals_root: kind == EngineKind::Remote,
        why: vec![why],
        socket: None,
        findings: is_plain.then(plain).into_iter().collect(),
    }
}

fn socket(path: &Path) -> Option<Socket> {
    let found = fs::metadata(path)
        .ok()
        .filter(|found| found.file_type().is_socket())?;
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    let (group, members) = group(&groups, found.gid());
    // At the moment of listen(2), by the kernel's own record.
    let stream = UnixStream::connect(path).ok();
    let listener = stream.and_then(|stream| socket_peercred(stream).ok());
    Some(Socket {
        path: path.display().to_string(),
        uid: found.uid(),
        gid: found.gid(),
        group,
        members,
        mode: format!("{:04o}", found.mode() & 0o7777),
        listener_uid: listener.map(|listener| listener.uid.as_raw()),
    })
}

/// Name and members of a group, as group(5) has them.
fn group(groups: &str, gid: u32) -> (Option<String>, Vec<String>) {
    let lines = groups
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>());
    for fields in lines {
        let [name, _, number, members] = fields[..] else {
            continue;
        };
        if number.parse() == Ok(gid) {
            let members = members.split(',').filter(|member| !member.is_empty());
            return (Some(name.to_owned()), members.map(str::to_owned).collect());
        }
    }
    (None, Vec::new())
}

impl Socket {
    fn is_open_to(&self, bit: u32) -> bool {
        u32::from_str_radix(&self.mode, 8).is_ok_and(|mode| mode & bit != 0)
    }
}

fn why(kind: EngineKind, equals_root: bool, socket: Option<&Socket>) -> Vec<String> {
    let mut why = Vec::new();
    match kind {
        EngineKind::Rootful => why.push("the engine's security options name neither rootless nor userns: root in a container that it starts with all privileges is root here".to_owned()),
        EngineKind::UsernsRemapped => why.push("the engine maps its containers' ids (userns-remap), but makes any container unmapped for whoever asks (--userns=host)".to_owned()),
        EngineKind::Rootless => why.push("the engine is rootless: it can do what its user can, and no more".to_owned()),
        EngineKind::Remote | EngineKind::Unknown => {}
    }
    let Some(socket) = socket else {
        return why;
    };
    if let Some(uid) = socket.listener_uid {
        why.push(format!("uid {uid} listens at {}", socket.path));
    }
    let mut who = vec!["root".to_owned()];
    if socket.uid != 0 {
        who.push(format!("uid {}", socket.uid));
    }
    if socket.is_open_to(0o020) {
        let name = socket.group.as_deref().unwrap_or("without a name");
        let members = match &socket.members[..] {
            [] => "its list is empty".to_owned(),
            members => members.join(", "),
        };
        who.push(format!(
            "members of group {} {name} ({members})",
            socket.gid
        ));
    }
    if socket.is_open_to(0o002) {
        who.push("every user of this machine".to_owned());
    }
    let what = if equals_root {
        "are root by it"
    } else {
        "may speak to it"
    };
    why.push(format!(
        "owner {}, group {}, mode {}: {} {what}",
        socket.uid,
        socket.gid,
        socket.mode,
        who.join(", ")
    ));
    why
}

fn world_writable(socket: &Socket) -> Option<Opening> {
    socket.is_open_to(0o002).then(|| Opening {
        what: format!(
            "every user and every process of this machine may speak to the engine: {} has mode {}",
            socket.path, socket.mode
        ),
        remedy: format!("chmod 0660 {}, and look who set it", socket.path),
    })
}

/// What the kernel lists as listening in this network namespace; both families.
fn listening_tcp() -> String {
    let read = |name| fs::read_to_string(format!("/proc/self/net/{name}")).unwrap_or_default();
    format!("{}{}", read("tcp"), read("tcp6"))
}

fn plain_listener(info: Option<&SystemInfo>, tcp: &str) -> Option<Opening> {
    let warnings = info.and_then(|info| info.warnings.as_deref());
    let warnings = warnings.unwrap_or_default().iter();
    let warned = warnings
        .filter(|line| line.contains(PLAIN_WARNING) && line.contains("http://"))
        .map(|line| format!("the engine says: {}", line.trim()))
        .next();
    let what = warned.or_else(|| {
        tcp.lines().any(is_plain_port).then(|| {
            format!("something listens at TCP port {PLAIN_PORT}, where engines listen without encryption")
        })
    })?;
    Some(Opening {
        what,
        remedy: "take the tcp:// address from the engine's `hosts`: whoever reaches it, a browser's page included, is root"
            .to_owned(),
    })
}

/// A line of `/proc/net/tcp`: number, local address and port in hexadecimal, remote, state.
fn is_plain_port(line: &str) -> bool {
    let mut words = line.split_whitespace().skip(1);
    let port = words.next().and_then(|local| local.rsplit_once(':'));
    let port = port.and_then(|(_, port)| u16::from_str_radix(port, 16).ok());
    port == Some(PLAIN_PORT) && words.nth(1) == Some(LISTENING)
}

#[cfg(test)]
mod tests {
    use std::os::unix::{fs::PermissionsExt, net::UnixListener};

    use model::OwnerId;

    use super::*;

    fn config(host: &str) -> DockerConfig {
        DockerConfig {
            docker_host: Some(host.to_owned()),
            ..DockerConfig::new("/nowhere".into(), OwnerId::from_bytes([0; 8]))
        }
    }

    fn info(options: &[&str]) -> SystemInfo {
        SystemInfo {
            security_options: Some(options.iter().map(|&option| option.to_owned()).collect()),
            ..SystemInfo::default()
        }
    }

    #[test]
    fn only_a_rootless_engine_is_not_root() {
        for (options, kind, equals_root) in [
            (
                &["name=seccomp,profile=default"][..],
                EngineKind::Rootful,
                true,
            ),
            (
                &["name=seccomp", "name=userns"],
                EngineKind::UsernsRemapped,
                true,
            ),
            (
                &["name=seccomp", "name=rootless"],
                EngineKind::Rootless,
                false,
            ),
        ] {
            let found = access(&config("unix:///nowhere/socket"), Some(&info(options)));
            assert_eq!((found.kind, found.equals_root), (kind, equals_root));
            assert!(!found.why.is_empty());
        }
        let silent = access(&config("unix:///nowhere/socket"), None);
        assert_eq!(
            (silent.kind, silent.equals_root),
            (EngineKind::Unknown, false)
        );
    }

    #[test]
    fn an_engine_elsewhere_is_told_and_without_encryption_a_finding() {
        let plain = access(&config("tcp://10.0.0.1:2375"), None);
        assert_eq!((plain.kind, plain.findings.len()), (EngineKind::Remote, 1));
        let ssh = access(&config("ssh://host"), None);
        assert_eq!(
            (ssh.kind, ssh.findings.len()),
            (EngineKind::Remote, 0),
            "the control"
        );
        let unclear = access(&config("foo"), None);
        assert_eq!(
            (unclear.kind, unclear.findings.len()),
            (EngineKind::Unknown, 0)
        );
        let here = access(&config("tcp://127.0.0.1:2375"), None);
        assert_eq!((here.kind, here.findings.len()), (EngineKind::Unknown, 1));
    }

    #[test]
    fn an_engine_over_tcp_is_what_it_says_and_only_without_tls_a_finding() {
        let tls = Address::Tls {
            authority: "host:2376".to_owned(),
            certificates: "/certificates".into(),
        };
        let plain = Address::Plain {
            authority: "127.0.0.1:2375".to_owned(),
        };
        let rootless = info(&["name=rootless"]);
        for (address, info, kind, equals_root, findings) in [
            (&tls, None, EngineKind::Remote, true, 0),
            (&tls, Some(&rootless), EngineKind::Rootless, false, 0),
            (&plain, None, EngineKind::Remote, true, 1),
            (&plain, Some(&rootless), EngineKind::Rootless, false, 1),
        ] {
            let found = over_tcp(address, info);
            assert_eq!((found.kind, found.equals_root), (kind, equals_root));
            assert_eq!(found.findings.len(), findings, "{found:?}");
            assert!(!found.why.is_empty());
        }
    }

    #[test]
    fn a_socket_that_all_may_write_to_is_a_finding_and_who_listens_is_told() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("engine.sock");
        let _listener = UnixListener::bind(&path).unwrap();
        let found = |mode| {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            access(
                &config(&format!("unix://{}", path.display())),
                Some(&info(&[])),
            )
        };
        let open = found(0o666);
        assert_eq!(open.findings.len(), 1, "{open:?}");
        assert!(open.why.last().unwrap().contains("every user"), "{open:?}");
        let closed = found(0o660);
        assert_eq!(closed.findings, [], "the control");
        let own = rustix::process::geteuid().as_raw();
        assert_eq!(closed.socket.unwrap().listener_uid, Some(own));
    }

    #[test]
    fn groups_are_read_with_their_members() {
        let groups = "root:x:0:\ndocker:x:107:ann,bob\nbroken\n";
        let members = vec!["ann".to_owned(), "bob".to_owned()];
        assert_eq!(group(groups, 107), (Some("docker".to_owned()), members));
        assert_eq!(group(groups, 0), (Some("root".to_owned()), Vec::new()));
        assert_eq!(group(groups, 5), (None, Vec::new()));
    }

    #[test]
    fn a_listener_without_encryption_is_found_by_the_engines_word_and_by_its_port() {
        let said = SystemInfo {
            warnings: Some(vec![
                "WARNING: API is accessible on http://0.0.0.0:4000 without encryption.".to_owned(),
            ]),
            ..SystemInfo::default()
        };
        assert!(
            plain_listener(Some(&said), "")
                .unwrap()
                .what
                .contains("0.0.0.0:4000")
        );
        let line =
            |port, state| format!("   0: 0100007F:{port} 00000000:0000 {state} 00000000:00000000");
        assert!(plain_listener(None, &line("0947", "0A")).is_some());
        for other in [line("0947", "01"), line("0948", "0A")] {
            assert_eq!(plain_listener(None, &other), None, "{other}");
        }
    }
}
