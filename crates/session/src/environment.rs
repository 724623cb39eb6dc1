//! The environment of a session's executions. The supervisor keeps it: it may hold secrets, which never stand on disk
//! here, and it must still be there when this server was restarted.

use std::collections::BTreeMap;

use model::Secret;

/// What every execution finds unless the session or the call says otherwise. `PATH` as in a sandbox that is made of the
/// host's system directories, or of a Debian image, after [`model::AGENT_DIRECTORY`].
const DEFAULTS: [(&str, &str); 7] = [
    (
        "PATH",
        "/opt/claude-code:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ),
    ("HOME", "/home/agent"),
    ("USER", "agent"),
    ("LOGNAME", "agent"),
    ("SHELL", "/bin/sh"),
    ("LANG", "C.UTF-8"),
    ("TMPDIR", "/tmp"),
];
/// The kind of terminal that clients emulate.
const TERMINAL: (&str, &str) = ("TERM", "xterm-256color");

/// What the supervisor keeps of a session: its own variables over the defaults.
pub(crate) fn of_session(env: &BTreeMap<String, Secret<String>>) -> Vec<Vec<u8>> {
    lines(DEFAULTS.into(), env)
}

/// What a call adds, which wins over the session's. On a terminal that includes its kind: the session's is about none.
pub(crate) fn of_execution(
    env: &BTreeMap<String, Secret<String>>,
    on_terminal: bool,
) -> Vec<Vec<u8>> {
    lines(on_terminal.then_some(TERMINAL).into_iter().collect(), env)
}

fn lines<'a>(
    mut lines: BTreeMap<&'a str, &'a str>,
    env: &'a BTreeMap<String, Secret<String>>,
) -> Vec<Vec<u8>> {
    lines.extend(
        env.iter()
            .map(|(name, value)| (name.as_str(), value.expose().as_str())),
    );
    lines
        .into_iter()
        .map(|(name, value)| format!("{name}={value}").into_bytes())
        .collect()
}
